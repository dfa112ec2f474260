"""The whole stack on real servers: up, joined, half dead, down; and what a careful user meets on a bad day."""

import asyncio
import fcntl
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.settings import Settings, load
from schemas.errors import Refused, Unavailable
from streams.admin import ensure_topics
from tools.doctor import run_checks
from tools.stack import down, status, up
from tools.stack.kafka import live_brokers, running_cluster, running_kafka
from tools.stack.ports import free_ports
from tools.stack.processes import kill, tagged, wait_until
from tools.stack.redis import url_answers
from tools.stack.stack import Record, Stack
from tools.stack.vault import VaultServer, health


def nothing(_: Settings) -> None:
    """No topics."""


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """A state folder of the test's own, and nothing of it left afterwards."""
    own = Settings(state_dir=tmp_path / "state", cache_dir=load().resolved().cache_dir)
    yield own
    if (own.state_dir / "stack.json").exists():
        down(settings=own)


def record(settings: Settings) -> Record:
    """What the stack wrote down."""
    return Record.model_validate_json((settings.state_dir / "stack.json").read_bytes())


def test_up_join_down(settings: Settings) -> None:
    """Up starts and says where; a second up joins and starts nothing; down stops all of it and leaves the data."""
    said: list[str] = []
    where = up(settings=settings, agents=(), prepare=nothing, say=said.append)
    assert set(where) >= {"kafka", "redis", "ray", "secrets", "state", "logs"}
    first = record(settings)
    env = load({}, settings.state_dir / "env")
    assert live_brokers(env.kafka_bootstrap or "") == 1
    assert url_answers(env.redis_url or "")
    assert (settings.state_dir / "env").stat().st_mode & 0o077 == 0

    assert up(settings=settings, agents=(), prepare=nothing) == where
    assert record(settings) == first
    assert status(settings).state == "whole"
    checks = {check.name: check for check in run_checks(settings)}
    assert checks["stack"].ok

    stopped = down(settings=settings)
    assert stopped[:3] == ["ray", "redis", "kafka"]
    assert status(settings).state == "absent"
    assert tagged(first.tag) == []
    assert not (settings.state_dir / "env").exists()
    assert down(settings=settings) == []


async def test_topics_outlive_down_and_up(settings: Settings) -> None:
    """What was in Kafka is there after down and up, at the same address."""

    def bring_up() -> str:
        up(settings=settings, agents=(), prepare=nothing, ray=False)
        return record(settings).services["kafka"].address

    before = await asyncio.to_thread(bring_up)
    made = await ensure_topics(before, 2, 1)
    assert made.created
    await asyncio.to_thread(lambda: down(settings=settings))
    after = await asyncio.to_thread(bring_up)
    assert after == before
    again = await ensure_topics(after, 2, 1)
    assert again.created == ()


def test_half_dead_stack_is_refused_then_cleared(settings: Settings) -> None:
    """Of a stack whose Redis was killed, up says so and what to do; down clears it; up starts anew."""
    up(settings=settings, agents=(), prepare=nothing, ray=False)
    redis = record(settings).services["redis"].running
    assert redis is not None
    kill(redis)
    assert status(settings).broken == [f"redis (pid {redis.pid}) has ended"]
    with pytest.raises(Refused, match=r"half dead.*redis.*`ratchet down`"):
        up(settings=settings, agents=(), prepare=nothing, ray=False)
    assert down(settings=settings) == ["kafka"]
    up(settings=settings, agents=(), prepare=nothing, ray=False)
    assert status(settings).state == "whole"


def test_failed_up_leaves_nothing(settings: Settings) -> None:
    """When a later part fails, what was started before it is stopped, and no record is left."""

    def fail(_: Settings) -> None:
        raise Refused("topics differ")

    with pytest.raises(Refused, match="topics differ"):
        up(settings=settings, agents=(), prepare=fail, ray=False)
    assert not (settings.state_dir / "stack.json").exists()
    ports = json.loads((settings.state_dir / "data" / "ports.json").read_text())
    assert live_brokers(f"127.0.0.1:{ports['kafka'][0]}") == 0
    assert not url_answers(f"redis://127.0.0.1:{ports['redis'][0]}/0")


def test_taken_port_is_said(settings: Settings) -> None:
    """A port that somebody listens on is named with the server that wanted it; nothing is started."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(Unavailable, match=rf"port {port} is taken, kafka"):
            up(settings=settings, agents=(), prepare=nothing, ports={"kafka": port})


def test_full_disk_is_said(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Less than 2 GiB free is said before anything is started."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1 << 20))
    with pytest.raises(Unavailable, match="2 GiB are needed"):
        up(settings=settings, agents=(), prepare=nothing)


@pytest.mark.parametrize(("program", "said"), [("java", "Java is not on the path"), ("mvn", "install Maven and Java")])
def test_missing_program_is_said(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, said: str
) -> None:
    """Without Docker, a machine without Java or Maven is told what to install."""
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name in {program, "docker"} else real(name))
    bare = settings.model_copy(update={"cache_dir": tmp_path / "empty-cache"})
    with pytest.raises(Unavailable, match=said):
        up(settings=bare, agents=(), prepare=nothing)


def test_given_address_that_does_not_answer(settings: Settings) -> None:
    """An address that is set is used or refused by its name, never replaced silently."""
    (port,) = free_ports(1)
    given = settings.model_copy(update={"kafka_bootstrap": f"127.0.0.1:{port}"})
    with pytest.raises(Unavailable, match=f"KAFKA_BOOTSTRAP=127.0.0.1:{port}"):
        up(settings=given, agents=(), prepare=nothing)


def test_given_servers_are_not_stopped(settings: Settings, kafka: str, redis_url: str, ray_address: str) -> None:
    """Servers of the user's own are used, and live on after down."""
    given = Settings(
        state_dir=settings.state_dir,
        cache_dir=settings.cache_dir,
        kafka_bootstrap=kafka,
        redis_url=redis_url,
        ray_address=ray_address,
    )
    where = up(settings=given, agents=(), prepare=nothing)
    assert where["kafka"] == f"{kafka} (external)"
    assert down(settings=given) == []
    assert live_brokers(kafka) == 1
    assert url_answers(redis_url)


def test_two_at_once_are_refused(settings: Settings) -> None:
    """While one up is at work in a folder, another is told to wait."""
    settings.state_dir.mkdir(parents=True)
    with (settings.state_dir / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(Refused, match="another `ratchet up`"):
            up(settings=settings, agents=(), prepare=nothing)


def test_broken_record_is_not_guessed(settings: Settings) -> None:
    """A record that cannot be read stops nothing and is not overwritten."""
    settings.state_dir.mkdir(parents=True)
    file = settings.state_dir / "stack.json"
    file.write_text("{")
    for work in (lambda: up(settings=settings, agents=()), lambda: down(settings=settings)):
        with pytest.raises(Refused, match="not a record of ours"):
            work()
    assert file.read_text() == "{"
    file.unlink()


def test_vault_keeps_its_keys(settings: Settings, kafka: str, redis_url: str) -> None:
    """With Vault: an unsealed, configured server, whose keys are the same after down and up."""
    given = Settings(
        state_dir=settings.state_dir, cache_dir=settings.cache_dir, kafka_bootstrap=kafka, redis_url=redis_url
    )

    def public_key() -> str:
        stack = Stack(given)
        stack.up(vault=True, agents=(), ray=False)
        address = record(given).services["vault"].address
        assert health(address) == 200
        assert load({}, given.state_dir / "env").secrets == "vault"
        keys = given.state_dir / "data" / "vault" / "keys.json"
        assert keys.stat().st_mode & 0o077 == 0
        server = VaultServer(addr=address, **json.loads(keys.read_text()))
        return server.call("GET", "transit/keys/notary")["data"]["keys"]["1"]["public_key"]

    first = public_key()
    unfinished = record(given).model_copy(update={"complete": False})
    (given.state_dir / "stack.json").write_text(unfinished.model_dump_json())
    with pytest.raises(Refused, match="it never came up"):
        up(settings=given, vault=True, agents=(), prepare=nothing)
    down(settings=given)
    assert public_key() == first
    down(settings=given)


def test_three_brokers_lose_one_and_get_it_back(tmp_path: Path) -> None:
    """A cluster of three names two brokers after a SIGKILL and three once it is back."""
    with running_cluster(tmp_path, load().resolved().cache_dir) as cluster:
        assert live_brokers(cluster.nodes[1].bootstrap) == 3
        cluster.kill(3)
        wait_until(
            lambda: live_brokers(cluster.nodes[1].bootstrap) == 2, None, timeout_s=60, what="the smaller cluster"
        )
        cluster.start(3)
        assert live_brokers(cluster.nodes[3].bootstrap) == 3
        pids = [running.pid for running in cluster.running.values()]
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_broker_restarts_on_its_data(tmp_path: Path) -> None:
    """The same node started again after a SIGKILL has the same address and data folder."""
    with running_kafka(tmp_path, load().resolved().cache_dir) as node:
        assert (tmp_path / "logs" / "meta.properties").exists()
        assert live_brokers(node.bootstrap) == 1
    running = node.start()
    assert live_brokers(node.bootstrap) == 1
    kill(running)
