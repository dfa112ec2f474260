"""`ratchet judge show` and `ratchet preview` on histories that the real judge wrote: pictures, words, every look made again."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from arena_history import History as Made

from agents.judge.fold import preview as look_now
from schemas.errors import Refused
from schemas.events import CommandPromote, CommandReject, CommandRollback, PromotionEvaluated
from schemas.events import PromotionApprovalRequested as Asked
from tools.cli import judge, preview
from tools.cli.arenas import again, histories, outcome_of, pick
from tools.cli.chart import Panel, draw
from tools.cli.events import one_line
from tools.cli.panels import legend, panels
from tools.cli.screen import Screen

FAST = {"stage_time_s": 20, "cooldown_s": 0}


@pytest.fixture(scope="module")
def promoted() -> Made:
    """Twenty points better: through the shadow and three stages, then a holdback."""
    made = Made(FAST)
    made.live("old", None)
    made.pairs(420, 0.6, 0.8)
    return made


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def tampered(made: Made, change: Mapping[str, Any], number: int = 3) -> list[dict[str, Any]]:
    """The rows, one look's payload changed."""
    rows = made.rows
    looks = [row for row in rows if row["type"] == "promotion.evaluated"]
    looks[number]["data"] = looks[number]["data"] | change
    return rows


# judge show


def test_the_history_is_shown(promoted: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """Pictures of gains and guardrails, the last look, every decision in its order, the holdback by name; 80 columns wide."""
    assert judge.show(Screen(as_json=False), histories(promoted.rows), promoted.arena) == 0
    text = capsys.readouterr().out
    for word in (
        "gains: one is enough",
        "not worse by the margin",
        "not past the harm line",
        "promoted",
        "4.09",
        "3.00",
    ):
        assert word in text
    places = [text.index(word) for word in ("promotion.opened", "stage 1", "stage 2", "stage 3", "takes over")]
    assert places == sorted(places)
    assert "its holdback: `ratchet judge show" in text
    assert all(len(line) < 80 for line in text.splitlines() if "|" in line)


def test_as_json(promoted: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """One object: every look with its numbers but not its basis, and what was decided."""
    assert judge.show(Screen(as_json=True), histories(promoted.rows), "r", recompute=True) == 0
    row = said(capsys)
    assert (row["arena"], row["outcome"], row["holdback"]) == (promoted.arena, "promoted", False)
    assert {event["type"] for event in row["events"]} >= {"promotion.opened", "promotion.staged", "model.promoted"}
    assert "basis" not in row["looks"][0]
    assert row["recomputed"] == {
        "looks": len(row["looks"]),
        "agree": len(row["looks"]),
        "differ": [],
        "without_basis": 0,
    }
    assert len(row["holdbacks"]) == 1


def test_an_arena_is_named_by_key_beginning_or_route(promoted: Made) -> None:
    """A route means its newest arena that is no holdback; an unknown word means none; a short beginning may mean several."""
    found = histories(promoted.rows)
    assert [history.arena for history in pick(found, promoted.arena[:6])] == [promoted.arena]
    assert [history.arena for history in pick(found, "r")] == [promoted.arena]
    assert pick(found, "nowhere") == []
    assert len(pick(found, "")) == len(found) == 2
    watched = next(history for history in found.values() if history.holdback)
    assert [panel.title for panel in panels(watched)] == ["harm: one is enough to end it"]


def test_what_is_not_known_ends_with_1(promoted: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """The answer names what there is, as text and as JSON; also where there is nothing at all."""
    found = histories(promoted.rows)
    assert judge.show(Screen(as_json=True), found, "nowhere") == 1
    row = said(capsys)
    assert (row["found"], [one["arena"] for one in row["known"]]) == (0, list(found))
    assert judge.show(Screen(as_json=False), found, "") == 1
    assert "2 arenas begin with" in capsys.readouterr().out
    assert judge.show(Screen(as_json=False), {}, "r") == 1
    assert "nothing was ever said" in capsys.readouterr().out


def test_a_rollback_is_told_with_the_arena_that_had_promoted(promoted: Made) -> None:
    """While the holdback lasts it carries the holdback's key, afterwards none: it is found either way."""
    made = Made(FAST | {"holdback_share": 0})
    made.live("old", None)
    made.pairs(420, 0.6, 0.8)
    made.say(CommandRollback(route="r", at_ms=made.now, operator="ann", reason="complaints"))
    (history,) = histories(made.rows).values()
    assert history.rows[-1]["data"]["arena"] == ""
    assert history.outcome == "rolled back"
    made = Made(FAST | {"stages": ()})
    made.live("old", None)
    made.pairs(300, 0.6, 0.8)
    made.say(CommandRollback(route="r", at_ms=made.now, operator="ann", reason="before the holdback's first look"))
    found = histories(made.rows)
    assert len(found) == 2
    assert outcome_of(found, pick(found, "r")[0]) == "promoted, rolled back"


def test_a_rejected_one_shows_harm(capsys: pytest.CaptureFixture[str]) -> None:
    """Where a harm process came near its level it is drawn too."""
    made = Made()
    made.pairs(300, 0.8, 0.55)
    assert judge.show(Screen(as_json=False), histories(made.rows), "r") == 0
    text = capsys.readouterr().out
    assert "harm: one is enough to end it" in text
    assert "harmful: worse in quality" in text
    assert "X rejected" in text


# every look made again


def test_every_look_comes_out_the_same(promoted: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """Shadow, stages and holdback, commands by an operator too: nothing differs, and nothing lacks its basis."""
    made = Made(FAST, approval="operator")
    made.pairs(320, 0.6, 0.8)
    made.say(CommandPromote(route="r", at_ms=made.now, operator="ann", challenger="new"))
    made.pairs(20, 0.6, 0.8)
    assert len(made.folding.of(Asked)) == 1
    for one in (promoted, made):
        for history in histories(one.rows).values():
            found = [again(row, look) for row, look in history.looks]
            assert found
            assert all(result is not None and not result.differs for result in found)
    assert judge.show(Screen(as_json=False), histories(made.rows), "r", recompute=True) == 0
    assert "looks come out the same" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        (("arena", "quality", "wins"), 90, "processes"),
        (("arena", "slowness", "ties"), 200, "pairs"),
        (("settings", "min_pairs"), 10, "conditions"),
        (("beside", "cooldown_until_ms"), 10**15, "conditions"),
        (("rules",), "judge/1", "its basis is none"),
    ],
)
def test_a_changed_basis_is_found(promoted: Made, path: tuple[str, ...], value: Any, word: str) -> None:
    """Whatever is changed in what the decision was made from, the look comes out otherwise, and it says in what."""
    rows = promoted.rows
    look = next(row for row in rows if row["type"] == "promotion.evaluated")
    basis = json.loads(look["data"]["basis"])
    at = basis
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    changed = tampered(promoted, {"basis": json.dumps(basis)}, 0)
    history = histories(changed)[promoted.arena]
    first = again(*history.looks[0])
    assert first is not None
    assert any(word in told for told in first.differs)


@pytest.mark.parametrize(
    "change", [{"decision": "promote"}, {"pairs": 41}, {"reason": "because"}, {"stage": 2}, {"wins": 0}, {"basis": "{"}]
)
def test_a_changed_event_is_found(promoted: Made, change: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """An event that says other than its basis ends the command with 1 and names the place."""
    known = histories(tampered(promoted, change))
    assert judge.show(Screen(as_json=True), known, promoted.arena, recompute=True) == 1
    (wrong,) = said(capsys)["recomputed"]["differ"]
    assert wrong["place"].startswith("ratchet.promotions")
    assert judge.show(Screen(as_json=False), known, promoted.arena, recompute=True) == 1
    assert "differs" in capsys.readouterr().out


def test_an_event_without_basis_is_counted(promoted: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """As an older judge wrote it: neither the same nor different."""
    assert judge.show(Screen(as_json=True), histories(tampered(promoted, {"basis": ""})), "r", recompute=True) == 0
    assert said(capsys)["recomputed"]["without_basis"] == 1


# pictures


def test_a_chart_of_plain_characters() -> None:
    """A line from the lower left to the upper right, its level, zero, a mark, what lies beyond: exactly these lines."""
    points = [(float(x), x / 10 - 4) for x in range(0, 101, 5)]
    panel = Panel("gains", {"quality": points}, {"quality": "q"}, 3.0, [(50.0, "1")])
    assert draw(panel, width=40, height=9) == [
        "gains",
        "     6.0 |              1             qq",
        "         |              :         qqqq",
        "    3.00 |====================qqqq======",
        "         |              :  qqq",
        "         |             qqqq",
        "       0 |..........qqq.:...............",
        "         |      qqqq    :",
        "         |  qqqq        :",
        "    -4.0 |qq            :",
        "         +------------------------------",
        "          0                    100 pairs",
    ]


def test_any_numbers_fit_into_the_frame() -> None:
    """Far beyond above and below, one point only, none: lines of at most the width, no exception."""
    wild = [(float(x), (-1) ** x * 10.0**x) for x in range(9)]
    for points in (wild, wild[:1], [(5.0, 0.0)]):
        lines = draw(Panel("t", {"a": points, "b": points[::-1]}, {"a": "a", "b": "b"}, 4.1))
        assert lines
        assert all(len(line) <= 79 for line in lines)
    assert any("^" in line for line in draw(Panel("t", {"a": wild}, {"a": "a"}, 4.1)))
    assert draw(Panel("t", {"a": []}, {"a": "a"}, 4.1)) == []


def test_the_legend_names_what_is_drawn(promoted: Made) -> None:
    """Letters, signs, stages and the promotion."""
    words = legend(panels(histories(promoted.rows)[promoted.arena]))
    for word in ("q quality", "= the level", "a stage begins", "P promoted"):
        assert word in words


def test_a_png_is_written(promoted: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of every arena with a look; where there is none nothing is written, and the command says so."""
    for number, key in enumerate(histories(promoted.rows)):
        file = tmp_path / f"{number}.png"
        assert judge.show(Screen(as_json=False), histories(promoted.rows), key, png=file) == 0
        assert file.read_bytes().startswith(b"\x89PNG")
        assert file.stat().st_size > 20_000
    none = tmp_path / "none.png"
    assert judge.show(Screen(as_json=False), histories(Made().rows), "r", png=none) == 0
    assert not none.exists()
    assert "nothing to draw" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["", "nowhere/a.png"])
def test_a_png_that_cannot_be_is_refused_first(tmp_path: Path, place: str) -> None:
    """A folder, or a file in a folder that is not there: refused before anything is read."""
    with pytest.raises(Refused, match="a file in a folder that exists"):
        judge.check_png(tmp_path / place)


# preview


@pytest.mark.parametrize("count", [5, 30, 190, 320])
def test_preview_says_what_the_next_decision_says(count: int) -> None:
    """At the same time the same look: what an operator's promote is then told, condition by condition and bit for bit."""
    made = Made(approval="operator")
    made.pairs(count, 0.55, 0.8)
    bench, entries = made.state
    ((arena, seen),) = look_now(bench, entries, made.now)
    made.say(CommandPromote(route="r", at_ms=made.now, operator="ann", challenger="new"))
    told = made.folding.of(PromotionEvaluated)[-1]
    assert (told.processes, told.conditions) == (seen.processes, seen.conditions)
    assert told.reason.startswith("approved" if seen.decision == "request_approval" else "approval by ann refused")
    assert told.pairs == arena.pairs == count


def test_preview_at_a_look_is_that_look() -> None:
    """After every tick that folded a tenth pair: decision, conditions and wealths are those of the event just written."""
    made = Made(approval="operator")
    decisions: set[str] = set()
    for _ in range(30):
        made.pairs(10, 0.55, 0.8)
        bench, entries = made.state
        ((_, seen),) = look_now(bench, entries, made.now)
        told = made.folding.of(PromotionEvaluated)[-1]
        assert (told.decision, told.processes, told.conditions) == (seen.decision, seen.processes, seen.conditions)
        decisions.add(seen.decision)
    assert decisions == {"continue", "request_approval"}


def test_preview_only_reads(promoted: Made, capsys: pytest.CaptureFixture[str]) -> None:
    """It is given a record and entries and gives text: nothing of them changes, and nothing is emitted."""
    bench, entries = promoted.state
    before = bench.model_dump_json(), [entry.model_dump_json() for entry in entries], len(promoted.folding.emitted)
    assert preview.show(Screen(as_json=True), bench, entries, promoted.now, None) == 0
    after = bench.model_dump_json(), [entry.model_dump_json() for entry in entries], len(promoted.folding.emitted)
    assert before == after
    row = said(capsys)
    assert row["looks"][0]["holdback"]
    assert row["rollback_live"]
    assert row["challengers"] == []


def test_preview_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """In the shadow: where each condition stands, how many more pairs, the time, what comes then, pairs that wait."""
    made = Made()
    made.pairs(60, 0.6, 0.8)
    bench, entries = made.state
    assert preview.show(Screen(as_json=False), bench, entries, made.now, made.rows[-1]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for word in (
        "challenger new: in the shadow", "60 pairs", "a minute", "by quality", "by latency", "more pairs", "40 more pairs to 100",
        "at this rate of pairs", "then 3 stages of 1 min", "ends as inconclusive", "decision now: continue", "last:",
    ):  # fmt: skip
        assert word in text


def test_preview_before_the_first_pair_and_without_an_arena(capsys: pytest.CaptureFixture[str]) -> None:
    """Novelty is counted down; with nothing judged the command ends with 1."""
    made = Made({"novelty_pairs": 50})
    made.pairs(20, 0.6, 0.8)
    assert preview.show(Screen(as_json=False), *made.state, made.now, None) == 0
    assert "novelty: 20 of the first 50 pairs" in capsys.readouterr().out
    made.say(CommandReject(route="r", at_ms=made.now, operator="ann", challenger="new"))
    assert preview.show(Screen(as_json=False), *made.state, made.now, None) == 1
    assert "nothing is being judged now" in capsys.readouterr().out


def test_preview_in_a_stage(capsys: pytest.CaptureFixture[str]) -> None:
    """Which stage, the share that it serves, how long it still lasts, when all requests at the earliest."""
    made = Made({"stage_time_s": 3600})
    made.pairs(320, 0.6, 0.8)
    assert preview.show(Screen(as_json=False), *made.state, made.now, None) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "stage 1 of 3, serves 20%" in text
    assert "all requests in" in text


def test_every_promotion_event_has_its_line(promoted: Made) -> None:
    """No field is unexpected, and a stage's line says the share."""
    made = Made()
    made.pairs(60, 0.8, 0.5)
    lines = [one_line(row) for row in promoted.rows + made.rows]
    assert not [line for line in lines if "unexpected fields" in line]
    assert any("stage 2, serves 50 % of requests" in line for line in lines)
    assert any("holdback" in line for line in lines)
