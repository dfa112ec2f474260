"""`ratchet preview ROUTE --router FILE`: what it reads of the broker, what it prints, how it ends, what it refuses."""

import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import routed

from infra.clock import SystemClock
from schemas import codec, ids
from schemas.errors import Refused
from schemas.events import CaseAmended, CaseAnswered, CaseClosed
from schemas.payload import Payload
from streams.memory import MemoryBroker
from streams.port import TopicSpec
from tools.cli.bus import Bus
from tools.cli.preview_router import look, read_log, read_today, show
from tools.cli.screen import Exit, Screen
from tools.ratchet import main
from tools.routes import parse_route, read_routing, table

GOOD = """
[routing]
strategy = "balanced"
arms = ["big"]
alpha = 1.0
explore = 0.2
floor = 0.05
slo_ms = 100
latency_weight = 0.0
warm_share = 0.0
"""
Run = Callable[..., tuple[int, str, str]]


def write(folder: Path, text: str) -> Path:
    file = folder / "router.toml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture
def ratchet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The command line in this process: exit code, what it printed, what it complained of."""
    monkeypatch.setenv("RATCHET_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("KAFKA_BOOTSTRAP", raising=False)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ratchet", "preview", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


# the file


def test_the_table_alone_or_a_route_file_is_read(tmp_path: Path) -> None:
    """Both give the same settings."""
    alone = read_routing(write(tmp_path, GOOD))
    whole = 'route = "x"\nchampion = "small"\n[[arms]]\narm = "small"\nbase = "b"\n[[arms]]\narm = "big"\nbase = "b"\n'
    assert read_routing(write(tmp_path, whole + GOOD)) == alone == routed.NEW
    assert read_routing(write(tmp_path, GOOD), routed.route()) == alone


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD.replace("alpha", "alfa"), "routing.alfa: no such setting; did you mean 'alpha'?"),
        (GOOD.replace("1.0", "9.0"), "routing.alpha: 9.0 is not accepted: Input should be less than or equal to 1"),
        (GOOD + "[routing.budget]\nnano = 1\n", "routing.budget.nano: no such setting; did you mean 'nano_usd'?"),
        (GOOD + "[judge]\nalpha = 0.1\n", "judge: no setting of a router file; accepted: a table [routing] alone"),
        ("alpha = 1.0\n", "routing: is missing"),
        ("[routing", "not TOML"),
    ],
)
def test_a_wrong_file_ends_with_2_and_names_file_and_field(text: str, told: str, tmp_path: Path, ratchet: Run) -> None:
    """Before any server is asked."""
    file = write(tmp_path, text)
    code, out, err = ratchet("r", "--router", str(file))
    assert (code, out) == (2, "")
    assert f"{file}: {told}" in err


def test_an_arm_that_the_route_has_not_is_named(tmp_path: Path) -> None:
    """With the arms there are."""
    with pytest.raises(Refused, match=r"router.toml: .*routing.arms\[0\]: 'huge' is not an arm of this route"):
        read_routing(write(tmp_path, GOOD.replace("big", "huge")), routed.route())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--since", "2h"], "--since and --predictions are of --router FILE"),
        (["--router", "none.toml"], "none.toml: cannot be read"),
        (["--router", "FILE", "--since", "yesterday"], "--since 'yesterday': accepted: "),
        (["--router", "FILE", "--predictions", "best"], "--predictions 'best': accepted: logged, today"),
    ],
)
def test_wrong_use_ends_with_2(words: list[str], told: str, tmp_path: Path, ratchet: Run) -> None:
    """What was refused and what would be accepted."""
    file = str(write(tmp_path, GOOD))
    code, out, err = ratchet("r", *(file if word == "FILE" else word for word in words))
    assert (code, out) == (2, "")
    assert told in err


def test_without_a_stack_it_ends_with_3(tmp_path: Path, ratchet: Run) -> None:
    """And says how to start one."""
    code, _, err = ratchet("r", "--router", str(write(tmp_path, GOOD)), "--since", "2h")
    assert code == 3
    assert "`ratchet up`" in err


# the log


async def publish(bus: Bus, topic: str, *payloads: Payload) -> None:
    rows = []
    for number, payload in enumerate(payloads):
        event_id = ids.derive(f"{topic}{number}", "test", 0)
        row = codec.encode(payload, event_id=event_id, source="t", traceparent=ids.trace_parent(None, event_id))
        rows.append((topic, row))
    await bus.publish(rows)


async def test_policies_and_cases_are_read_of_the_route_and_from_the_time_on() -> None:
    """Closed and amended ones; those that are still open are counted; other routes' and earlier ones are not read."""
    broker = MemoryBroker(3, clock=SystemClock())
    await broker.admin().start()
    await broker.admin().create([TopicSpec(name, 3, 1, {}) for name in ("ratchet.policies", "ratchet.cases")])
    told = routed.policies(routed.route())
    assert told.route is not None
    assert told.fleet is not None
    assert told.router is not None
    cases = routed.log(6, routed.big_is_better)
    other = cases[0].model_copy(update={"route": "other"})
    amended = CaseAmended.model_validate(cases[3].model_dump() | {"amends": "x"})
    common = {name: getattr(cases[0], name) for name in CaseAnswered.model_fields if hasattr(cases[0], name)}
    common |= {"assigned_at_ms": routed.NOW + 9000, "ok": True, "latency_us": 1, "released": True}
    waits = CaseAnswered.model_validate(common | {"request_id": "waits"})
    done = CaseAnswered.model_validate(common | {"request_id": "q5"})
    async with Bus(broker, "memory") as bus:
        assert await read_today(bus, "r") is None
        await publish(bus, "ratchet.policies", told.route.data, told.fleet.data, told.router.data)
        await publish(bus, "ratchet.cases", *cases, other, amended, waits, done)
        today = await read_today(bus, "r")
        log = await read_log(bus, "r", routed.NOW + 2000)
    assert today is not None
    assert (today.route, today.fleet, today.router) == (told.route.data.settings, told.fleet.data, told.router.data)
    assert sorted(case.request_id for case in log.told) == ["q2", "q3", "q3", "q4", "q5"]
    assert {type(case) for case in log.told} == {CaseClosed, CaseAmended}
    assert (log.open, log.unread) == (1, 0)
    found = look(routed.NEW, today, log)
    assert found.seen.cases == 4
    assert any("1 cases are still open" in note for note in found.notes)


# what is said


def looked(grade: routed.Grade, count: int = 1500, **changes: Any) -> Any:
    from tools.cli.preview_router import Log

    new = routed.NEW.model_copy(update=changes)
    return look(new, routed.today(), Log(tuple(routed.log(count, grade)), 0, 0))


def test_what_passes_ends_with_0_and_says_what_to_put_in(capsys: pytest.CaptureFixture[str]) -> None:
    """Figures with intervals, support, calibration; then the lines of a route file that its parser takes, for 20, 50 and 80 %."""
    found = looked(routed.big_is_better)
    assert show(Screen(as_json=False), found, Path("router.toml")) == Exit.DONE
    page = capsys.readouterr().out
    for words in ("1500 cases, 1500 of 1500 sessions used", "SNIPS", "DR ", "nano-USD", "95 %", "(ESS)"):
        assert words in page
    assert "it may be rolled out" in page
    assert "trial_share = 0.2" in page
    assert "[trial]" in page
    assert "then trial_share = 0.5, then trial_share = 0.8, then as [routing]" in page
    assert show(Screen(as_json=True), found, Path("router.toml")) == Exit.DONE
    row = json.loads(capsys.readouterr().out)
    assert (row["may_roll_out"], row["holds"], row["cases"], row["left_out"]) == (True, [], 1500, {})
    assert row["verdict"]["dr"]["difference"]["low"] > 0
    assert {gap["arm"] for gap in row["calibration"]} == {"big", "small"}
    assert list(row["rollout"]) == ["20", "50", "80"]
    for share, lines in row["rollout"].items():
        declared = tomllib.loads(lines)
        made = parse_route(routed.route().model_dump(exclude={"trial", "trial_share"}) | declared, "route.toml")
        assert (made.trial, made.trial_share) == (routed.NEW, int(share) / 100)


def test_a_worse_policy_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    """It says by how much quality may fall, and gives no lines."""
    found = looked(routed.big_is_worse)
    assert show(Screen(as_json=False), found, Path("router.toml")) == Exit.NO
    page = capsys.readouterr().out
    assert "it may not be rolled out" in page
    assert "quality may fall by" in page
    assert "[trial]" not in page


def test_a_log_that_cannot_tell_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    """Too few cases; another basis."""
    assert show(Screen(as_json=False), looked(routed.big_is_better, 40), Path("router.toml")) == Exit.NO
    assert "the log cannot tell" in capsys.readouterr().out
    assert show(Screen(as_json=True), looked(routed.big_is_better, 2, basis="x"), Path("router.toml")) == Exit.NO
    row = json.loads(capsys.readouterr().out)
    assert (row["cannot_tell"], row["rollout"]) == (True, {})
    assert "nothing learnt carries over" in row["holds"][0]


def test_what_is_the_whole_routes_cannot_be_tried_on_a_share(capsys: pytest.CaptureFixture[str]) -> None:
    """It passes, and says so."""
    assert show(Screen(as_json=False), looked(routed.big_is_better, forget=0.999), Path("router.toml")) == Exit.DONE
    page = capsys.readouterr().out
    assert "not on a share of sessions, for it differs in what is the whole route's: forget" in page
    assert "[trial]" not in page


def test_a_table_reads_back_as_it_was(tmp_path: Path) -> None:
    """With budgets, price tables and lists."""
    text = GOOD + '[routing.budget]\nnano_usd = 5\n[[routing.prices]]\narm = "big"\n[[routing.prices]]\narm = "small"\n'
    made = read_routing(write(tmp_path, text))
    assert len(made.prices) == 2
    assert read_routing(write(tmp_path, table("routing", made))) == made
