"""The mark on answers: it says who wrote them, and holds for exactly one answer."""

from dataclasses import fields, replace

import pytest

from agents.rules.ai_mark import Mark, Origins, holds, mark, told
from schemas import canonical

KEY = b"k" * 32
ORIGINS = Origins("clinic", "r1", "res1", "champion", None, "model", "none")
TEXT = "Take two."


def test_a_mark_holds_for_its_answer_alone() -> None:
    """Another text, another key, another word of where it comes from: the mark does not hold."""
    found = mark(ORIGINS, TEXT, KEY)
    assert holds(found, ORIGINS, TEXT, KEY)
    assert found == mark(ORIGINS, TEXT, KEY)
    assert not holds(found, ORIGINS, TEXT + " ", KEY)
    assert not holds(found, ORIGINS, TEXT, b"l" * 32)
    others = {"by": "person", "review": "approved"}
    for name in (one.name for one in fields(Origins)):
        assert not holds(found, replace(ORIGINS, **{name: others.get(name, "other")}), TEXT, KEY)
    assert not holds(Mark(found.statement, "0" * 64), ORIGINS, TEXT, KEY)
    assert not holds(Mark(found.statement + " ", found.binding), ORIGINS, TEXT, KEY)


def test_the_statement_is_for_machines() -> None:
    """Canonical JSON that says that a machine wrote it, which arm, and nothing of the text."""
    found = mark(ORIGINS, TEXT, KEY)
    assert canonical.decode(found.statement.encode()) == {
        "v": 1, "ai": True, "tenant": "clinic", "request": "r1", "result": "res1", "arm": "champion", "adapter": None,
        "by": "model", "review": "none",
    }  # fmt: skip
    assert len(found.binding) == 64


def test_the_binding_is_no_dictionary() -> None:
    """Without the key equal texts of two requests cannot be told to be equal."""
    assert mark(ORIGINS, TEXT, KEY).binding != mark(replace(ORIGINS, request_id="r2"), TEXT, KEY).binding


def test_a_mark_can_be_read_by_people() -> None:
    """Machine, machine with a person's approval, person; and what is no statement is refused."""
    assert told(mark(ORIGINS, TEXT, KEY)) == "A machine wrote this answer."
    approved = replace(ORIGINS, review="approved")
    assert told(mark(approved, TEXT, KEY)) == "A machine wrote this answer; a person approved it."
    assert told(mark(replace(ORIGINS, by="person"), TEXT, KEY)) == "A person wrote this answer."
    for statement in ("", "{}", "[]", '{"v":2,"ai":true}', '{"ai":1,"v":1}'):
        with pytest.raises(ValueError, match="statement"):
            told(Mark(statement, ""))


def test_a_short_key_is_refused() -> None:
    """A key that can be guessed binds nothing."""
    with pytest.raises(ValueError, match="at least 16"):
        mark(ORIGINS, TEXT, b"k" * 15)
