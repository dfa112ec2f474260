"""The witness that `ratchet up` starts: apart from the log, told of the log's keys, kept alive, and in every policy file."""

import hashlib
import http.client
import json
import os
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from infra.settings import Settings, load
from schemas.tlog.policy import Policy, parse_policy
from tools.doctor import Check, run_checks
from tools.stack import down, status, up, witness
from tools.stack.processes import wait_until
from tools.stack.stack import Record
from tools.stack.supervise import ChildState, read_state
from tools.stack.vault import VaultServer

EVIDENCE = (("evidence",),)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A state folder of the test's own, under a user's environment that has something to give away."""
    monkeypatch.setenv("SOMEBODYS_PASSWORD", "seen")
    own = Settings(state_dir=tmp_path / "state", cache_dir=load().resolved().cache_dir, partitions=1)
    yield own
    if (own.state_dir / "stack.json").exists():
        down(settings=own)


def child(settings: Settings) -> ChildState:
    """What the supervisor says of the witness."""
    state = read_state(settings.state_dir / "agents-state.json")
    assert state is not None
    return state.children["witness"]


def read(settings: Settings, file: str) -> Policy:
    """A policy file of the state folder."""
    return parse_policy((settings.state_dir / file).read_text())


def seen(settings: Settings) -> int:
    """How many entries of the log the witness has cosigned."""
    problems, said = witness.problems_of(settings.state_dir)
    assert not problems, problems
    return int(said.split()[-2]) if said.endswith("entries") else 0


def check(settings: Settings) -> Check:
    """What doctor says of it."""
    env = load({}, settings.state_dir / "env").resolved()
    return next(row for row in run_checks(env) if row.name == "witness")


def test_the_log_is_watched_from_up_to_down(settings: Settings) -> None:
    """It cosigns what the log writes, has nothing of the log's, comes back after a kill, remembers over down and up; a second up joins."""
    where = up(settings=settings, agents=EVIDENCE, prepare=topics, ray=False)
    asked = read(settings, "witnesses.policy").witnesses["local"]
    assert asked.key.name == "dev.ratchet/local/witness"
    assert asked.url in where["evidence witness"]
    assert where["evidence policy"] == str(settings.state_dir / "evidence.policy")
    assert asked.key in [one.key for one in read(settings, "evidence.policy").witnesses.values()]
    assert read(settings, "evidence.policy").quorum != "none"
    wait_until(lambda: seen(settings) > 0, None, timeout_s=30, what="the first cosignature")
    assert check(settings).ok, check(settings)
    assert status(settings).evidence == {name: where[f"evidence {name}"] for name in ("policy", "witness")}

    first = child(settings)
    environment = psutil.Process(first.pid).environ()
    assert not environment.keys() & {"KAFKA_BOOTSTRAP", "REDIS_URL", "SOMEBODYS_PASSWORD"}
    assert environment["RATCHET_STATE_DIR"] == str(settings.state_dir / "witness")
    opened = [file.path for file in psutil.Process(first.pid).open_files()]
    assert not [path for path in opened if path.startswith(str(settings.state_dir / "evidence"))]
    assert (settings.state_dir / "witness").stat().st_mode & 0o077 == 0

    psutil.Process(first.pid).kill()
    wait_until(lambda: child(settings).starts > first.starts, None, timeout_s=30, what="the restart")
    wait_until(lambda: witness.answers(asked.url or ""), None, timeout_s=30, what="the witness")
    before = seen(settings)
    assert before > 0
    assert up(settings=settings, agents=EVIDENCE, prepare=topics, ray=False) == where

    pid = child(settings).pid
    assert "agents" in down(settings=settings)
    assert not psutil.pid_exists(pid)
    up(settings=settings, agents=EVIDENCE, prepare=topics, ray=False)
    assert read(settings, "witnesses.policy").witnesses["local"] == asked
    assert seen(settings) >= before


def topics(settings: Settings) -> None:
    """Those of the agents, and one record in them."""
    from tools.stack.stack import create_topics

    create_topics(settings)
