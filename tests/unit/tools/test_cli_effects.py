"""What came of a command, told from the events that the real judge answers with: done, no, under way."""

from typing import Any

import pytest
from arena_history import History as Made

from schemas import codec, ids
from schemas.events import (
    Command,
    CommandPause,
    CommandPromote,
    CommandReject,
    CommandRollback,
)
from schemas.payload import Payload
from streams.shapes import Record
from tools.cli.effects import Word, meaning
from tools.cli.events import as_row

BY: dict[str, Any] = {"route": "r", "operator": "ann", "reason": "refused waits"}


def row_of(payload: Payload) -> dict[str, Any]:
    event_id = ids.derive("effect", "test", 0)
    row = codec.encode(payload, event_id=event_id, source="test", traceparent=ids.trace_parent(None, event_id))
    return as_row(Record("ratchet." + payload.TOPIC, 0, 0, row.key, row.value, row.headers, payload.at_ms))


def told(made: Made, kind: str, command: Command | None = None, route: str = "r") -> list[Word]:
    """Every word that the events caused by the command are; those of the last events where none is given."""
    before = len(made.written)
    if command is not None:
        made.say(command)
    rows = [row_of(payload) for _, payload in made.written[before:]]
    return [word for row in rows if (word := meaning(kind, route, row, caused=True)) is not None]


def test_promote_is_done_when_the_first_stage_begins() -> None:
    """The evaluation that comes first is no refusal; with stages promotion.staged is the effect, without them model.promoted."""
    for stages in ((0.2, 0.5), ()):
        made = Made({"stages": stages}, approval="operator")
        made.pairs(320, 0.6, 0.8)
        command = CommandPromote(**BY, at_ms=made.now, challenger="new")
        assert told(made, "promote", command) == [Word.UNDER_WAY, Word.DONE]


def test_promote_without_evidence_is_a_no() -> None:
    """The judge says why in an evaluation."""
    made = Made(approval="operator")
    made.pairs(20, 0.6, 0.8)
    assert told(made, "promote", CommandPromote(**BY, at_ms=made.now, challenger="new")) == [Word.NO]


def test_rollback_waits_until_the_arm_is_live() -> None:
    """Under way as long as no engine has proven the old arm; done by an event that the command did not cause."""
    made = Made({"stages": ()})
    made.pairs(320, 0.6, 0.8)
    assert told(made, "rollback", CommandRollback(**BY, at_ms=made.now)) == [Word.UNDER_WAY]
    before = len(made.written)
    made.live("old", None)
    rows = [row_of(payload) for _, payload in made.written[before:]]
    assert [word for row in rows if (word := meaning("rollback", "r", row, caused=False))] == [Word.DONE]


def test_rollback_is_done_at_once_where_the_arm_is_live() -> None:
    """Nothing else that comes with it says otherwise."""
    made = Made({"stages": ()})
    made.live("old", None)
    made.pairs(320, 0.6, 0.8)
    assert told(made, "rollback", CommandRollback(**BY, at_ms=made.now)) == [Word.DONE]


def test_rollback_without_an_arm_to_return_to_is_a_no() -> None:
    """Nothing was promoted: it does not wait for what never comes."""
    made = Made()
    assert told(made, "rollback", CommandRollback(**BY, at_ms=made.now)) == [Word.NO]


@pytest.mark.parametrize(
    ("kind", "command"),
    [("reject", CommandReject(**BY, at_ms=1, challenger="new")), ("pause", CommandPause(**BY, at_ms=1))],
)
def test_others(kind: str, command: Command) -> None:
    """Their effect is the word; another route's events and events of other causes are none."""
    made = Made()
    assert Word.DONE in told(made, kind, command)
    rows = [row_of(payload) for _, payload in made.written]
    assert not [row for row in rows if meaning(kind, "other", row, caused=True)]
    assert not [row for row in rows if meaning(kind, "r", row, caused=False)]
