"""`ratchet replay` as a person or a script meets it: what it prints, how it ends, what it refuses."""

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from replayed import LOOP, changed, one, put

from streams.recorded import RecordedLog, read_file, write_file
from tools.cli.replay import agents_of, instant_ms
from tools.ratchet import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ratchet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command line in this process: exit code, what it printed, what it complained of."""
    monkeypatch.setenv("RATCHET_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("KAFKA_BOOTSTRAP", raising=False)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ratchet", "replay", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def rows(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_the_same_is_said_and_ends_with_0(ratchet: Run) -> None:
    """A line for each agent with its figures and a digest of what it gave, then the whole."""
    code, out, err = ratchet("--log", str(LOOP), "--json")
    *agents, whole = rows(out)
    assert (code, err) == (0, "")
    assert [row["agent"] for row in agents] == [*agents_of(())]
    assert all(row["equal"] and len(row["sha256"]) == 64 for row in agents)
    assert whole["equal"]
    assert set(whole["excluded_headers"]) == {"ratchet-dlq-at", "ratchet-dlq-attempts"}


def test_a_difference_is_a_diff_with_its_event_and_ends_with_1(ratchet: Run, tmp_path: Path) -> None:
    """For people: cause, output, field, recorded and derived value. For scripts: the same as a row."""
    file = tmp_path / "other.xz"
    write_file(changed(one("ratchet.decisions", put("arm", value="other"))), file)
    code, out, _ = ratchet("--log", str(file), "--agent", "router")
    assert code == 1
    assert "changed router: ratchet.requests[" in out
    assert "decision.routed" in out
    assert re.search(r"  value\.arm\n    - other recorded\n    \+ (base|better) now\n", out)
    assert "1 differ" in out
    code, out, _ = ratchet("--log", str(file), "--agent", "router", "--json")
    shown, row, whole = rows(out)
    assert (code, row["differences"], row["kinds"], whole["equal"]) == (1, 1, {"changed": 1}, False)
    assert shown["difference"]["fields"][0]["path"] == "value.arm"


def test_only_so_many_are_shown_and_the_rest_counted(ratchet: Run, tmp_path: Path) -> None:
    """`--limit`: a broken rule differs everywhere."""
    file = tmp_path / "other.xz"

    def all_decisions(record: Any) -> Any:
        return put("code", value="router/0")(record) if record.topic == "ratchet.decisions" else (record,)

    write_file(changed(all_decisions), file)
    code, out, _ = ratchet("--log", str(file), "--agent", "router", "--limit", "2")
    assert code == 1
    assert out.count("changed router") == 2
    decided = sum(1 for row in read_file(LOOP).topic("ratchet.decisions"))
    assert f"… and {decided - 2} more (--limit)" in out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--agent", "nobody"], "--agent nobody: accepted: router, trust, cases, ladder, judge, trainer, estimator"),
        (["--agent", "inference"], "what inference and jobs did lies outside the log"),
        (["--from", "yesterday"], "--from 'yesterday': accepted: "),
        (["--from", "2026-01-02", "--to", "2026-01-01"], "--to lies before --from"),
        (["--from-offsets", "requests"], "accepted: topic[partition]@offset or topic/partition/offset"),
        (["--log", "none.xz"], "there is no file none.xz"),
        (["--log", "a.xz", "--record", "b.xz"], "give one of them"),
        (["--record", "b.xz", "--from", "2h"], "--record writes the whole log"),
    ],
)
def test_wrong_use_ends_with_2(words: list[str], told: str, ratchet: Run) -> None:
    """What was refused and what would be accepted."""
    code, out, err = ratchet(*words)
    assert (code, out) == (2, "")
    assert told in err


def test_without_a_stack_it_ends_with_3(ratchet: Run) -> None:
    """And says how to start one."""
    code, _, err = ratchet()
    assert code == 3
    assert "`ratchet up`" in err


def test_a_recording_never_replaces_a_file(ratchet: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before anything is read."""
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "127.0.0.1:1")
    file = tmp_path / "there"
    file.write_text("mine")
    code, _, err = ratchet("--record", str(file))
    assert code == 2
    assert f"{file} exists; accepted: the name of a new file in a folder" in err
    assert file.read_text() == "mine"


def test_a_recording_is_for_its_owners_eyes(tmp_path: Path) -> None:
    """Mode 0600 whatever the mask, also where a run that was killed has left a part that others may read."""
    file, part = tmp_path / "log.xz", tmp_path / "log.xz.part"
    part.write_text("half of it")
    part.chmod(0o644)
    before = os.umask(0)
    try:
        size = write_file(RecordedLog(1), file)
    finally:
        os.umask(before)
    assert (file.stat().st_mode & 0o777, file.stat().st_size) == (0o600, size)
    assert not part.exists()


def test_times_and_agents() -> None:
    """What `--from` and `--agent` take."""
    assert instant_ms("--from", "1795261179077") == 1795261179077
    assert instant_ms("--from", "2026-11-21T11:39:39.077Z") == 1795261179077
    assert instant_ms("--from", "2026-11-21 11:39:39.077") == 1795261179077
    assert 0 < instant_ms("--from", "1d") < instant_ms("--from", "15m")
    assert agents_of(()) == (
        "router",
        "trust",
        "cases",
        "ladder",
        "judge",
        "trainer",
        "estimator",
        "learner",
        "compliance",
    )
    assert agents_of(("judge", "router")) == ("router", "judge")
