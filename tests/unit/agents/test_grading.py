"""Grades: by equality with the right text, or by what was said of letters that give no arm away."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.rules.grading import blind_order, grade, lacks
from agents.rules.text import same
from schemas.events import ArmVerdict, VerdictGiven

TEXTS = st.dictionaries(st.sampled_from(("old", "new", "third")), st.text(max_size=4), max_size=3)


def verdict(**said: Any) -> VerdictGiven:
    return VerdictGiven.model_validate({"route": "r", "request_id": "q", "at_ms": 1, "by": "ann"} | said)


def test_a_correction_grades_every_arm_by_equality() -> None:
    """Right but for case and spaces is right; anything else is wrong; the label is the correction."""
    grades = grade("q", {"old": " Card  Lost", "new": "card stolen"}, verdict(corrected="card lost"))
    assert grades.by_arm == {"old": 1000, "new": 0}
    assert grades.label == "card lost"


def test_letters_grade_the_arms_behind_them() -> None:
    """An approval is 1000, a rejection 0, a rating its thousandths; what nobody named has no grade."""
    texts = {"old": "one", "new": "two", "third": "three"}
    letters = {arms[0]: letter for letter, arms in blind_order("q", texts).items()}
    said = (
        ArmVerdict(label=letters["old"], decision="reject"),
        ArmVerdict(label=letters["new"], rating=0.7),
    )
    grades = grade("q", texts, verdict(answers=said))
    assert grades.by_arm == {"old": 0, "new": 700, "third": None}
    assert grades.label == "two"
    nothing_right = grade("q", texts, verdict(answers=said[:1]))
    assert nothing_right.label is None


def test_equal_answers_share_a_letter() -> None:
    """One letter for two arms that say the same, so both get its grade."""
    texts = {"old": "Yes", "new": " yes"}
    assert list(blind_order("q", texts)) == ["A"]
    grades = grade("q", texts, verdict(answers=(ArmVerdict(decision="approve"),)))
    assert grades.by_arm == {"old": 1000, "new": 1000}


def test_the_order_favours_no_arm() -> None:
    """Over many requests each arm is A about half of the time."""
    first = sum(blind_order(f"q{i}", {"old": "x", "new": "y"})["A"] == ["old"] for i in range(1000))
    assert 440 < first < 560


@settings(max_examples=60, deadline=None)
@given(TEXTS)
def test_letters_are_consecutive_and_cover_every_arm_once(texts: dict[str, str]) -> None:
    """A, B, C...; each arm under one letter; two letters never say the same."""
    letters = blind_order("q", texts)
    assert list(letters) == [chr(ord("A") + i) for i in range(len(letters))]
    assert sorted(arm for arms in letters.values() for arm in arms) == sorted(texts)
    shown = [texts[arms[0]] for arms in letters.values()]
    assert not any(same(one, other) for i, one in enumerate(shown) for other in shown[:i])


@pytest.mark.parametrize(
    ("said", "letters", "names"),
    [
        ({"kind": "reference"}, (), "corrected"),
        ({"kind": "reference", "answers": (ArmVerdict(decision="approve"),)}, (), "corrected"),
        ({}, (), "answers"),
        ({"answers": (ArmVerdict(label="A"),)}, (), "answers"),
        ({"answers": (ArmVerdict(label="C", decision="approve"),)}, ("A", "B"), "no answer has the label C"),
    ],
)
def test_what_a_verdict_lacks_is_named(said: dict[str, Any], letters: tuple[str, ...], names: str) -> None:
    """The field, and what would be accepted."""
    problem = lacks(verdict(**said), letters)
    assert problem is not None
    assert names in problem


def test_whole_verdicts_lack_nothing() -> None:
    """A correction suffices for anyone; a decision or a rating for a person; letters count once they are known."""
    assert lacks(verdict(kind="reference", corrected="x"), ()) is None
    assert lacks(verdict(corrected="x", answers=(ArmVerdict(label="Z"),)), ("A",)) is None
    assert lacks(verdict(answers=(ArmVerdict(label="B", rating=0.0),)), ()) is None
    assert lacks(verdict(answers=(ArmVerdict(label="B", rating=0.0),)), ("A", "B")) is None
