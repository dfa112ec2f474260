"""Engines and jobs on a real Ray cluster of three nodes, two of them with a logical GPU each. The engines are scripted ones."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ray.cluster_utils import Cluster

from infra.adapters import AdapterPredicate, sign_adapter
from infra.artifacts import DirectoryStore
from infra.cluster import (
    EngineSettings,
    RayEngines,
    RayGuest,
    connect,
    disconnect,
    forget_job,
    job_status,
    stop_job,
    submit_job,
)
from infra.engine import ArmSpec, Generation
from infra.engine_scripted import Script
from schemas.errors import Refused, Unavailable

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
BASE = "sha256:" + "b" * 64


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head without GPUs and two workers with one logical GPU each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1, num_gpus=1)
    made.wait_for_nodes()
    connect(made.address)
    yield made
    disconnect()
    made.shutdown()


@pytest.fixture
def settings(tmp_path: Path, request: pytest.FixtureRequest) -> EngineSettings:
    return EngineSettings(
        kind="scripted",
        store_root=tmp_path / "store",
        public_keys={"test": KEY.public_key().public_bytes_raw()},
        replicas=2,
        name=str(request.node.name),
        script=Script(latency_ms=(5, 10), hang_pattern="hang", max_chars=1000),
    )


@pytest.fixture
async def engines(cluster: Cluster, settings: EngineSettings) -> AsyncIterator[RayEngines]:
    made = RayEngines(settings)
    yield made
    await made.shutdown()


def _adapter(settings: EngineSettings, folder: Path) -> tuple[str, Path]:
    """A signed adapter in the store: its name and one of its stored files."""
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(bytes(100))
    store = DirectoryStore(settings.store_root)
    tree = store.put_tree(folder)
    predicate = AdapterPredicate(BASE, tree, "sha256:" + "d" * 64, 0, {}, "test", {})
    return store.put_bytes(sign_adapter(folder, predicate, KEY.sign, "test")), store.open_tree(
        tree
    ) / "adapter_model.safetensors"


async def _until_answered(engines: RayEngines, arm: str) -> Generation:
    async with asyncio.timeout(60):
        while True:
            try:
                return await engines.generate(arm, "again", "r", 5)
            except Unavailable:
                await asyncio.sleep(0.1)


async def test_one_replica_per_gpu_spread_over_the_nodes(engines: RayEngines) -> None:
    """Two replicas pin one GPU each on two nodes, and both answer under load."""
    outcomes = await engines.ensure([ArmSpec("one", BASE)])
    assert [o.live for o in outcomes] == [True, True]
    about = await engines.about()
    assert len({a["node"] for a in about}) == 2
    assert [len(a["gpus"]) for a in about] == [1, 1]
    answers = await asyncio.gather(*(engines.generate("one", f"text {i}", f"r{i}", 5) for i in range(40)))
    assert len({a.replica for a in answers}) == 2
    assert await engines.healthy()


async def test_a_guest_asks_what_others_loaded_and_loads_nothing(
    engines: RayEngines, settings: EngineSettings, cluster: Cluster
) -> None:
    """Before an engine runs, and for an arm that nobody has loaded, it is Unavailable; then it answers as the engines do."""
    guest, one = RayGuest(settings, cluster.address), ArmSpec("one", BASE)
    with pytest.raises(Unavailable, match="inference starts it"):
        await guest.generate(one, "text", "r", 5)
    await engines.ensure([one])
    assert (await guest.generate(one, "text", "r", 5)).text == (await engines.generate("one", "text", "r", 5)).text
    answers = await asyncio.gather(*(guest.generate(one, f"text {i}", f"r{i}", 5) for i in range(20)))
    assert len({a.replica for a in answers}) == 2
    with pytest.raises(Unavailable, match="inference loads it"):
        await guest.generate(ArmSpec("two", BASE), "text", "r", 5)
    with pytest.raises(Refused) as refused:
        await guest.generate(one, "x" * 2000, "r", 5)
    assert refused.value.kind == "prompt_too_long"
    assert [a["replica"] for a in await engines.about()], "the engines' own arms are as they were"
    assert await engines.healthy()


async def test_the_ports_errors_cross_the_cluster(engines: RayEngines) -> None:
    """Refused and Unavailable arrive as what they are, with field and what is accepted."""
    await engines.ensure([ArmSpec("one", BASE)])
    with pytest.raises(Refused) as refused:
        await engines.generate("two", "text", "r", 5)
    assert refused.value.kind == "unknown_arm"
    with pytest.raises(Refused) as refused:
        await engines.generate("one", "x" * 2000, "r", 5)
    assert (refused.value.kind, refused.value.field) == ("prompt_too_long", "text")
    with pytest.raises(Unavailable, match=r"within 0\.2 s"):
        await engines.generate("one", "hang", "r", 0.2)


async def test_a_killed_replica_comes_back_with_its_arms(
    engines: RayEngines, settings: EngineSettings, tmp_path: Path
) -> None:
    """After SIGKILL the other replica answers; the killed one returns with another process, its adapter ensured again."""
    adapter, _ = _adapter(settings, tmp_path / "adapter")
    assert all(o.live for o in await engines.ensure([ArmSpec("one", BASE, adapter)]))
    victim = (await engines.about())[0]
    os.kill(victim["pid"], signal.SIGKILL)
    await _until_answered(engines, "one")
    async with asyncio.timeout(60):
        answered: set[str] = set()
        while len(answered) < 2:
            rounds = await asyncio.gather(
                *(engines.generate("one", f"t{i}", "r", 5) for i in range(8)), return_exceptions=True
            )
            answered |= {g.replica for g in rounds if isinstance(g, Generation) and g.adapter_digest == adapter}
            assert all(isinstance(g, Generation | Unavailable) for g in rounds)
            await asyncio.sleep(0.1)
    back = (await engines.about())[0]
    assert back["replica"] == victim["replica"]
    assert back["pid"] != victim["pid"]


async def test_an_adapter_changed_by_one_byte_is_refused_by_every_replica(
    engines: RayEngines, settings: EngineSettings, tmp_path: Path
) -> None:
    """Each replica says which file is wrong; the other arm stays live."""
    adapter, stored = _adapter(settings, tmp_path / "adapter")
    stored.chmod(0o644)
    stored.write_bytes(bytes(99) + b"\x01")
    outcomes = await engines.ensure([ArmSpec("good", BASE), ArmSpec("bad", BASE, adapter)])
    assert [(o.arm, o.live) for o in outcomes] == [("good", True), ("good", True), ("bad", False), ("bad", False)]
    assert all("adapter_model.safetensors" in o.reason for o in outcomes[2:])
    assert {o.replica for o in outcomes[2:]} == {f"{settings.name}-0", f"{settings.name}-1"}
    await engines.generate("good", "text", "r", 5)
    with pytest.raises(Unavailable):
        await engines.generate("bad", "text", "r", 5)


async def test_a_restarted_owner_finds_the_replicas_alive(engines: RayEngines, settings: EngineSettings) -> None:
    """Another pool of the same name joins the running actors instead of starting new ones."""
    await engines.ensure([ArmSpec("one", BASE)])
    before = [a["pid"] for a in await engines.about()]
    again = RayEngines(replace(settings))
    await again.ensure([ArmSpec("one", BASE)])
    assert [a["pid"] for a in await again.about()] == before
    await again.close()


async def test_a_job_runs_once_under_its_name(cluster: Cluster, tmp_path: Path) -> None:
    """Submitting again finds the job; done it stays done, failed it starts again, its environment and log are its own."""
    log = tmp_path / "job.log"
    argv = ["sh", "-c", "echo $WORD; exit $CODE"]
    await submit_job("fails", argv, {"WORD": "first", "CODE": "1"}, log=log)
    await _status_becomes("fails", "failed")
    await submit_job("fails", argv, {"WORD": "second", "CODE": "0"}, log=log)
    await _status_becomes("fails", "succeeded")
    assert await submit_job("fails", argv, {"WORD": "third", "CODE": "0"}, log=log) == "succeeded"
    assert log.read_text() == "first\nsecond\n"
    await forget_job("fails")
    assert await job_status("fails") == "absent"


async def test_stopping_a_job_ends_all_that_it_started(cluster: Cluster, tmp_path: Path) -> None:
    """The whole process group ends, and a stopped job does not start again under its name."""
    pids = tmp_path / "pids"
    argv = ["sh", "-c", f"sleep 300 & echo $! > {pids}.part; mv {pids}.part {pids}; wait"]
    assert await submit_job("long", argv) == "running"
    assert await submit_job("long", argv) == "running"
    async with asyncio.timeout(20):
        while not pids.exists():  # noqa: ASYNC110  another process writes it
            await asyncio.sleep(0.05)
    assert await stop_job("long") == "stopped"
    async with asyncio.timeout(10):
        while _alive(int(pids.read_text())):  # noqa: ASYNC110  another process decides it
            await asyncio.sleep(0.05)
    assert await submit_job("long", argv) == "stopped"
    await forget_job("long")


async def test_a_job_dies_with_its_actor(cluster: Cluster, tmp_path: Path) -> None:
    """A job whose actor is gone does not go on beside its successor: it is absent, and may be submitted again."""
    mark = tmp_path / "pid"
    await submit_job("orphan", ["sh", "-c", f"echo $$ > {mark}.part; mv {mark}.part {mark}; exec sleep 300"])
    async with asyncio.timeout(20):
        while not mark.exists():  # noqa: ASYNC110  another process writes it
            await asyncio.sleep(0.05)
    await forget_job("orphan")
    async with asyncio.timeout(10):
        while _alive(int(mark.read_text())):  # noqa: ASYNC110  another process decides it
            await asyncio.sleep(0.05)
    assert await job_status("orphan") == "absent"


async def _status_becomes(job_id: str, status: str) -> None:
    async with asyncio.timeout(20):
        while await job_status(job_id) != status:  # noqa: ASYNC110  another process decides it
            await asyncio.sleep(0.05)


def _alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rsplit(") ", 1)[1][0] not in "ZX"
