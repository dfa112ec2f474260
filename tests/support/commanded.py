"""The command line in a test's own process, and a stack with a Vault that it finds by the environment."""

import json
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.settings import Settings, load
from tools.ratchet import main
from tools.stack import down, up

Run = Callable[..., tuple[int, list[dict[str, Any]], str]]
"""Words of a command -> its exit code, its JSON lines, all it said."""


def commanded(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *before: str) -> Run:
    """`ratchet BEFORE WORDS --json`."""

    def run(*words: str) -> tuple[int, list[dict[str, Any]], str]:
        monkeypatch.setattr(sys, "argv", ["ratchet", *before, *words, "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), [json.loads(line) for line in said.out.splitlines()], said.out + said.err

    return run


def never_up(monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    """No stack was ever up here."""
    for name in ("KAFKA_BOOTSTRAP", "RATCHET_SECRETS", "VAULT_ADDR", "RATCHET_VAULT_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RATCHET_STATE_DIR", str(state))


@contextmanager
def vault_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agents: tuple[tuple[str, ...], ...]
) -> Generator[Settings]:
    """Kafka, Redis, Vault and agents with a scripted engine."""
    own = Settings(state_dir=tmp_path / "state", cache_dir=load().resolved().cache_dir, engine="scripted", partitions=2)
    monkeypatch.setenv("RATCHET_STATE_DIR", str(own.state_dir))
    try:
        up(settings=own, vault=True, agents=agents, ray=False)
        yield load({}, own.state_dir / "env")
    finally:
        down(settings=own)
