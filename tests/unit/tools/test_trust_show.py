"""`trust show` says what the ladder holds: read from its changelog, as a table, as JSON, as a picture."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio
from trusting import QUICK, Trusted, case, customers, said
from typer.testing import CliRunner

from agents.trust.fold import Ladder
from infra.clock import SystemClock
from schemas.topics import state_topic
from streams.memory import MemoryBroker
from streams.port import TopicSpec
from streams.shapes import Change
from streams.state import MemoryState
from streams.wire import partition_of
from tools.cli.bus import Bus
from tools.cli.risk_picture import plot
from tools.cli.screen import Exit, Screen
from tools.cli.trust import account, proven_below, shown, standing_of
from tools.ratchet import app

PARTITIONS = 3


def taught(labels: int = 400) -> Trusted:
    """A route with a certificate, enforced."""
    ladder = Trusted(trust=QUICK)
    for number, (told, right, chance) in enumerate(customers(labels)):
        ladder.take(case(number, told, right or chance > 0.5))
    ladder.take(said("drill"))
    ladder.take(said("grant"))
    assert ladder.policy.mode == "ENFORCE"
    return ladder


@pytest_asyncio.fixture
async def bus() -> AsyncGenerator[Bus, None]:
    broker = MemoryBroker(PARTITIONS, clock=SystemClock())
    admin = broker.admin()
    await admin.start()
    await admin.create([TopicSpec(state_topic("ladder"), PARTITIONS, 1, {})])
    async with Bus(broker, "memory") as made:
        yield made


async def write(bus: Bus, ladder: Trusted, route: str = "bank") -> None:
    """The changelog of that state, with a key that was forgotten beside it."""
    state = MemoryState(Ladder())
    cell = ladder.cells["bank"]
    state.apply(route, Change(record=cell.record, put=cell.entries))
    producer = bus._broker.producer()
    await producer.start()
    await producer.send(state_topic("ladder"), partition_of(route.encode(), PARTITIONS), list(state.rows()))
    await producer.stop()


async def test_the_state_is_read_from_the_changelog(bus: Bus) -> None:
    """All of it, and nothing of another route; an unknown route is none."""
    ladder = taught()
    await write(bus, ladder)
    standing = await standing_of(bus, "bank")
    assert standing is not None
    assert account(standing) == account(ladder.standing)
    assert await standing_of(bus, "other") is None


def test_json_says_every_number(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Ten rungs with counts, evidence and certificates; exit 0 where something is certified, and the picture is a PNG."""
    ladder, file = taught(), tmp_path / "sub" / "risk.png"
    assert shown(Screen(as_json=True), "bank", ladder.standing, file) == Exit.DONE
    told = json.loads(capsys.readouterr().out)
    rungs = ladder.standing.running.rungs
    assert rungs is not None
    assert (told["mode"], told["rung"], told["lacks"]) == ("ENFORCE", rungs.covers(), [])
    assert [row["coverage"] for row in told["rungs"]] == list(range(10, 101, 10))
    assert tuple(row["labels"] for row in told["rungs"]) == rungs.n
    assert tuple(row["rejected"] for row in told["rungs"]) == rungs.bad
    assert tuple(row["certified"] for row in told["rungs"]) == rungs.certified()
    assert all(row["released"] == (row["coverage"] <= told["rung"]) for row in told["rungs"])
    first = told["rungs"][0]
    assert first["laplace_approval"] == (rungs.n[0] - rungs.bad[0] + 1) / (rungs.n[0] + 2)
    assert told["detector"] == {"level": 0.0, "alarm_at": 1e4, "labels": 0}
    assert file.read_bytes().startswith(b"\x89PNG")


def test_the_table_fits_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """80 columns: every rung on one line, the picture under it, what lacks named."""
    monkeypatch.setenv("COLUMNS", "80")
    ladder = taught()
    ladder.take(said("withdraw"))
    assert shown(Screen(as_json=False), "bank", ladder.standing) == Exit.DONE
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if " %" in line and ("certified" in line or "not yet" in line)]
    assert len([line for line in table if line.strip().split(" ")[0].isdigit()]) == 10
    assert any("o rejected of those labelled" in line for line in lines)
    assert all(len(line) <= 110 for line in lines)


def test_nothing_certified_is_a_no(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Exit 1: an unknown route, and one whose rungs are not cut yet; the picture can be drawn all the same."""
    assert shown(Screen(as_json=True), "nowhere", None) == Exit.NO
    assert shown(Screen(as_json=False), "bank", Trusted().standing, tmp_path / "x.png") == Exit.NO
    said_of = capsys.readouterr().out
    assert "1000 scores" in said_of
    assert "no rung is certified" in said_of


def test_a_route_that_is_no_name_is_used_wrongly() -> None:
    """Exit 2, and threshold out of range too."""
    runner = CliRunner()
    assert runner.invoke(app, ["trust", "grant", "bank", "--threshold", "1.5"]).exit_code == Exit.USED_WRONGLY
    assert runner.invoke(app, ["trust", "show"]).exit_code == Exit.USED_WRONGLY


def test_what_is_proven_of_a_rung_is_above_what_was_seen() -> None:
    """Never below the observed share, nearer with more labels, nothing of none."""
    assert proven_below(0, 0, 0.05) is None
    few, many = proven_below(2, 100, 0.05), proven_below(20, 1000, 0.05)
    assert few is not None
    assert many is not None
    assert 0.02 < many < few < 0.2


def test_the_picture_marks_what_is_released() -> None:
    """One column a rung; the released ones are ruled with #."""
    told = account(taught().standing)
    rows = plot(told).splitlines()
    bar = next(row for row in rows if "#" in row and "released" not in row)
    assert bar.count("#####") == told["rung"] // 10
    assert any(row.count("-") > 30 for row in rows)
