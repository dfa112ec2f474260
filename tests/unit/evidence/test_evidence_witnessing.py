"""What a witness's process is made of."""

import subprocess
import sys
from pathlib import Path

import pytest

from agents import witnessing
from infra.settings import load
from schemas.errors import Refused
from schemas.tlog.note import COSIGNER, parse_vkey


def test_a_witness_has_nothing_of_the_log() -> None:
    """Its process loads no client of Kafka, Redis or Ray, nor the sequencer."""
    code = "import sys, agents.witnessing; print('\\n'.join(sys.modules))"
    root = Path(__file__).parents[3]
    loaded = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True).stdout
    found = {line.split(".")[0] for line in loaded.splitlines()}
    assert "aiohttp" in found
    assert not found & {"aiokafka", "faust", "redis", "ray", "torch", "streams"}
    assert "agents.evidence.sequencer" not in loaded.splitlines()


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


async def test_the_local_key_is_made_once_and_is_its_own(tmp_path: Path) -> None:
    """The key lies in the witness's folder, 0600, is a witness's kind, and stays; another name must begin dev."""
    settings = load({"RATCHET_STATE_DIR": str(tmp_path), "RATCHET_INSTANCE": "here"})
    key = parse_vkey(await witnessing.vkey(settings))
    assert (key.kind, key.name) == (COSIGNER, "dev.ratchet-witness/here")
    assert names_in(tmp_path) == ["key", "witness"]
    assert (tmp_path / "witness" / "key").stat().st_mode & 0o777 == 0o600
    assert parse_vkey(await witnessing.vkey(settings)) == key
    with pytest.raises(Refused, match="dev"):
        await witnessing.vkey(settings.model_copy(update={"witness_name": "witness.example"}))


async def test_a_witness_needs_to_know_its_logs(tmp_path: Path) -> None:
    """Without a file of logs it does not start, and says which setting is missing."""
    with pytest.raises(Refused, match="RATCHET_WITNESS_LOGS"):
        await witnessing.serve(load({"RATCHET_STATE_DIR": str(tmp_path)}))
