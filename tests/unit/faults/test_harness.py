"""The harness itself: what was broken is found, what did nothing is not called good, what is unknown is refused."""

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.errors import Unavailable
from streams.memory import MemoryBroker
from streams.shapes import Record
from tests.faults import __main__ as command
from tests.faults.hosts import InProcess
from tests.faults.scenarios import SCENARIOS, chosen
from tests.faults.table import Row, bad, dump, merged, verdict
from tests.faults.threads import whole
from tests.faults.world import Shape, World

Change = Callable[[list[Record]], list[Record]]


async def worked(shape: Shape) -> World:
    """A world whose agent has answered 40 events undisturbed."""
    broker = MemoryBroker(4, offsets=False)
    world = await World(broker, "probe", shape, broker.clock).start()
    host = InProcess(world)
    await world.publish("m", 5)
    assert await world.settled("m", 10)
    await asyncio.sleep(0.3)  # its ticks
    await host.stop()
    await world.read()
    return world


async def counts(world: World) -> tuple[int, int, int]:
    findings = await world.check()
    return findings.of("m.")


def lose(rows: list[Record]) -> list[Record]:
    return rows[1:]


def repeat(rows: list[Record]) -> list[Record]:
    return [rows[0], *rows]


def swap(rows: list[Record]) -> list[Record]:
    """The first two answers of one partition that differ in key change places."""
    first = rows[0]
    other = next(row for row in rows if row.partition == first.partition and row.value != first.value)
    return [{id(first): other, id(other): first}.get(id(row), row) for row in rows]


@pytest.mark.parametrize("shape", ["transform", "fold"])
async def test_an_undisturbed_world_is_found_whole(shape: Shape) -> None:
    """The reference agrees with both agents where nothing was broken."""
    assert await counts(await worked(shape)) == (0, 0, 0)


@pytest.mark.parametrize("shape", ["transform", "fold"])
@pytest.mark.parametrize(("change", "found"), [(lose, (1, 0, 0)), (repeat, (0, 1, 0)), (swap, (0, 0, 1))])
async def test_one_answer_lost_repeated_or_out_of_turn_is_found(
    shape: Shape, change: Change, found: tuple[int, int, int]
) -> None:
    """Exactly that one, as what it is."""
    world = await worked(shape)
    out = f"{world.group}.out"
    world.rows[out] = change(world.rows[out])
    assert await counts(world) == found


async def test_a_fold_that_took_an_event_twice_is_found() -> None:
    """The order topic tells a run twice: the event counts as repeated, and the chain after it is another."""
    world = await worked("fold")
    order = f"{world.group}.order"
    world.rows[order] = repeat(world.rows[order])
    lost, duplicated, wrong = await counts(world)
    assert duplicated > 0
    assert wrong > 0
    assert lost > 0  # the answers that the longer chain would have given


async def test_a_state_that_stayed_behind_is_found() -> None:
    """The changelog lacks its newest record of a key."""
    world = await worked("fold")
    state = f"{world.group}.state"
    newest = next(row for row in reversed(world.rows[state]) if row.key == b"m.0")
    world.rows[state].remove(newest)
    assert (await counts(world))[2] == 1


def test_a_fault_that_did_nothing_is_not_good() -> None:
    """No fault struck, or no copy was aborted where the fault is inside a transaction: the row is bad, and so is the run."""
    idle = Row(("exit", "sent"), "memory", "fold")
    harmless = Row(("exit", "acknowledged"), "memory", "fold", faults=1, inside=True)
    struck = Row(("exit", "acknowledged"), "memory", "fold", faults=1, aborted=1, inside=True)
    assert [row.bad for row in (idle, harmless, struck)] == [True, True, False]
    assert [bad(rows) for rows in ([], [struck], [struck, idle])] == [True, False, True]


def test_rows_of_one_scenario_are_one_line() -> None:
    """Counts are summed, and one bad row makes the line bad."""
    rows = [
        Row(("exit", "sent"), "kafka", "fold", faults=1, recoveries=[1.0]),
        Row(("exit", "sent"), "kafka", "transform", faults=1, lost=1, recoveries=[2.0]),
        Row(("exit", "sent"), "memory", "fold", faults=1),
    ]
    lines = merged(rows)
    assert [(line.broker, line.shape, line.faults, line.lost, line.bad) for line in lines] == [
        ("kafka", "both", 2, 1, True),
        ("memory", "fold", 1, 0, False),
    ]
    assert lines[0].recoveries == [1.0, 2.0]


def test_scenarios_and_parts_are_chosen_by_name() -> None:
    """In the order of the table, with all parts or those that are named; the short form is part of the whole."""
    assert chosen(["kills", "points/stop", "points/exit"]) == [("points", ("exit", "stop")), ("kills", ())]
    assert [name for name, _ in chosen(None)] == list(SCENARIOS)
    whole_table = dict(chosen(None))
    assert all(set(parts) <= set(whole_table[name]) for name, parts in chosen(None, short=True))


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--only", "kill"], "accepted are memory, points"),
        (["--only", "points/freeze"], "points/exit"),
        (["--kills", "4"], "5 and more"),
        (["--kills", "many"], "invalid int value"),
        (["--fast"], "unrecognized"),
    ],
)
def test_a_wrong_argument_is_refused(argv: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With what would be accepted, and exit code 2."""
    with pytest.raises(SystemExit) as ended:
        command.main(argv)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err


def test_what_there_is_can_be_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """Every scenario on a line with its parts; nothing runs."""
    assert command.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(SCENARIOS)
    assert "exit, stop, raise, delay" in lines[1]


def test_a_run_that_was_written_is_printed_as_markdown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same lines, counts and times as the run had; a file that is none is refused."""
    rows = [
        Row(("exit", "sent"), "kafka", "fold", faults=1, aborted=3, recoveries=[1.0]),
        Row(("exit", "sent"), "kafka", "transform", faults=1, recoveries=[2.0], notes=["held"]),
        Row(("exit", "sent"), "memory", "fold", faults=1, lost=1),
    ]
    path = tmp_path / "run.json"
    about = {"kills": 5, "seconds": 3, "cores": 2, "kafka": "4", "python": "3"}
    path.write_text(json.dumps(about | {"rows": dump(rows)}))
    assert command.main(["--table", str(path)]) == 0
    said = capsys.readouterr().out
    assert "| exit sent | kafka | 2 | 3 | 0 | 0 | 0 | 0 | 0 | 1.50 | 2.00 |" in said
    assert "| every point, broker in memory | memory | 1 | 0 | 0 | 0 | 1 | 0 | 0 |  |  |" in said
    assert "* exit sent: held" in said
    assert f"{verdict(rows)}; `--kills 5`" in said
    path.write_text("[]")
    assert command.main(["--table", str(path)]) == 2
    assert "that --json wrote" in capsys.readouterr().err


async def test_a_thread_is_waited_for_when_we_are_cancelled() -> None:
    """What it starts is known before the cancellation goes on."""
    started: list[str] = []

    def start() -> None:
        time.sleep(0.2)
        started.append("a broker")

    task = asyncio.create_task(whole(start))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert started == ["a broker"]


async def test_an_error_in_the_thread_is_ours() -> None:
    """It comes through as it is."""

    def fail() -> None:
        raise Unavailable("no Java")

    with pytest.raises(Unavailable, match="no Java"):
        await whole(fail)
