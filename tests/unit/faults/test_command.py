"""`python -m tests.faults` as a command: what it refuses before it runs, how many it kills, and what it leaves however it ends."""

import asyncio
import json
import logging
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from schemas.errors import Unavailable
from tests.faults import __main__ as command
from tests.faults import outages
from tests.faults.scenarios import SCENARIOS, Run, Scenario, chosen, run_scenarios
from tests.faults.table import Row

GOOD = Row(("exit", "sent"), "memory", "fold", faults=1)
BAD = Row(("exit", "sent"), "memory", "fold", faults=1, lost=1)


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """Where the command makes its folder; the loggers that it silences speak again afterwards."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    streams, client = logging.getLogger("streams"), logging.getLogger("aiokafka")
    before = streams.level, client.propagate, list(client.handlers)
    yield folder
    streams.level, client.propagate, client.handlers = before


def script(monkeypatch: pytest.MonkeyPatch, name: str, found: Row | BaseException) -> None:
    """In the place of a scenario: one that finds this row, or ends so; both leave a log."""

    async def begin(run: Run, parts: Sequence[str]) -> list[Row]:
        (run.folder / "worker.log").touch()
        if isinstance(found, BaseException):
            raise found
        return [found]

    monkeypatch.setitem(SCENARIOS, name, Scenario("scripted", begin))  # pyright: ignore[reportArgumentType]


def left(scratch: Path) -> list[str]:
    return [path.name for path in scratch.glob("*/*")]


def test_an_error_that_nobody_expected_keeps_rows_and_logs(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is raised; what was found until then is told, and the logs that it names are there."""
    script(monkeypatch, "memory", GOOD)
    script(monkeypatch, "points", AssertionError("worker 3 ended, see its log"))
    with pytest.raises(AssertionError, match="see its log"):
        command.main(["--only", "memory", "points", "--json"])
    said = capsys.readouterr()
    assert [row["faults"] for row in json.loads(said.out)["rows"]] == [1]
    assert left(scratch) == ["worker.log"]
    assert f"the workers' logs are in {next(scratch.iterdir())}" in said.err


@pytest.mark.parametrize(
    ("found", "code", "stays"),
    [
        (GOOD, 0, []),
        (BAD, 1, ["worker.log"]),
        (Unavailable("no Java"), 3, []),
        (asyncio.CancelledError(), 130, []),
    ],
)
def test_logs_stay_only_where_they_are_wanted(
    scratch: Path, monkeypatch: pytest.MonkeyPatch, found: Row | BaseException, code: int, stays: list[str]
) -> None:
    """Of a bad row; not of a good run, without a server, or where somebody stopped it."""
    script(monkeypatch, "points", found)
    assert command.main(["--only", "points", "--json"]) == code
    assert left(scratch) == stays


@pytest.mark.parametrize("name", ["away/run.json", "scratch"])
def test_a_file_that_cannot_be_written_is_refused_before_the_run(
    scratch: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """A folder that is not there, or a folder in the file's place: exit code 2, and nothing has run."""
    with pytest.raises(SystemExit) as ended:
        command.main(["--only", "memory", "--json", str(tmp_path / name)])
    assert ended.value.code == 2
    assert "accepted is a file in a folder that there is" in capsys.readouterr().err
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("unshare", [None, "#!/bin/sh\nexit 1\n"])
def test_without_a_disk_to_fill_nothing_begins(
    scratch: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    unshare: str | None,
) -> None:
    """No `unshare`, or no user namespaces: exit code 3 before the first scenario, with what to do; the others run without it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    if unshare is not None:
        (tmp_path / "unshare").write_text(unshare)
        (tmp_path / "unshare").chmod(0o755)
    script(monkeypatch, "memory", GOOD)
    assert command.main(["--only", "memory", "disk"]) == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert "`--only` without disk runs the rest" in said.err
    assert list(scratch.iterdir()) == []
    assert command.main(["--only", "memory"]) == 0


def test_with_user_namespaces_the_disk_is_let_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An `unshare` that works is no reason to refuse."""
    (tmp_path / "unshare").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    outages.check_disk()


@pytest.mark.parametrize(
    ("only", "short", "others"),
    [(["kills"], False, 1000), (["kills", "shaken"], False, 800), (None, False, 800), (["kills"], True, 6)],
)
async def test_a_fifth_of_the_kills_is_kept_for_rebalances_that_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, only: list[str] | None, short: bool, others: int
) -> None:
    """`--kills 1000 --only kills` kills a thousand times; beside `shaken` a fifth is its own."""
    for name in SCENARIOS:
        script(monkeypatch, name, GOOD)
    run = Run(tmp_path, tmp_path, 1000, short=short)
    await run_scenarios(chosen(only), run, lambda line: None)
    assert (run.other_kills, run.kills_in_rebalances) == (others, 200)
