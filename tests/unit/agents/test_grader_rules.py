"""What a judge model is asked, and what its replies are worth: both orders, ties, replies that say nothing, canaries."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.cases.decide import Graded, choice, grading, number, rating, speaks_as, verdict
from agents.rules.grading import asks_model, chance, grade, heads
from schemas.events import BlindAnswer, Message, ReviewRequested
from schemas.routes import GraderSettings

NEVER = GraderSettings(arm="judge", rubric="Names the right card.", canary_share=0.0)
ALWAYS = NEVER.model_copy(update={"canary_share": 1.0})


def review(*texts: str, grader: str = "model", **more: Any) -> ReviewRequested:
    return ReviewRequested.model_validate(
        {
            "at_ms": 5, "route": "r", "request_id": "q", "request_partition": 0, "request_offset": 0, "due_ms": 10**13,
            "messages": (Message(role="system", content="be brief"), Message(role="user", content="Which card?")),
            "answers": [BlindAnswer(label=chr(65 + n), text=text) for n, text in enumerate(texts)],
            "grader": grader, "gated": True,
        } | more
    )  # fmt: skip


def played(of: ReviewRequested, told: GraderSettings, reply: Callable[[str], str]) -> tuple[Graded, list[str]]:
    """The grading with a judge model that replies so, and all that it was asked."""
    asking, asked = grading(of, told, "m4rk"), list[str]()
    prompt = next(asking)
    while True:
        asked.append(prompt)
        try:
            prompt = asking.send(reply(prompt))
        except StopIteration as end:
            return end.value, asked


def order_of(prompt: str) -> tuple[str, str]:
    """The two answers of a comparison as they stand in it."""
    parts = [prompt.split(f"<{name} m4rk>\n")[1].split(f"\n</{name} m4rk>")[0] for name in ("first", "second")]
    return parts[0], parts[1]


def prefers(*best: str) -> Callable[[str], str]:
    """A judge model that prefers by a list, wherever an answer stands; an answer not in it comes last."""
    ranks = {text: place for place, text in enumerate(best)}

    def reply(prompt: str) -> str:
        one, other = (ranks.get(text, len(ranks)) for text in order_of(prompt))
        return "0" if one == other else ("1" if one < other else "2")

    return reply


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("7", 7.0), (" 7 \n", 7.0), ("Good.\n7.5\n", 7.5), ("10", 10.0), ("", None), ("seven", None), ("7/10", None),
        ("about 7", None), ("7\n8", None), ("-1", None), ("1e1", None), ("nan", None), ("٧", None), ("100", None),
        ("7.", None), ("7.12345", None),
    ],
)  # fmt: skip
def test_a_number_stands_alone_on_one_line_or_is_none(said: str, found: float | None) -> None:
    """Words, signs, two numbers, other scripts' digits: no number is guessed out of them."""
    assert number(said) == found


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_a_reply_is_on_its_scale_or_nothing(said: str) -> None:
    """Whatever a model says, a rating lies in 0..1 and a choice is one of three."""
    found = rating(said)
    assert found is None or 0.0 <= found <= 1.0
    assert choice(said) in (None, 0.0, 1.0, 2.0)


def test_a_rating_past_the_scale_is_none() -> None:
    """11 of 10 is no rating, and 3 is no choice of two."""
    assert rating("11") is None
    assert rating("2.5") == 0.25
    assert choice("3") is None


@pytest.mark.parametrize(("best", "grades"), [("a", {"A": 1.0, "B": 0.0}), ("b", {"A": 0.0, "B": 1.0})])
def test_who_wins_in_both_orders_has_won(best: str, grades: dict[str, float]) -> None:
    """Each answer stands first once; the winner has 1, the other 0."""
    graded, asked = played(review("a", "b"), NEVER, prefers(best))
    assert graded == Graded(grades)
    assert [order_of(prompt) for prompt in asked] == [("a", "b"), ("b", "a")]


@pytest.mark.parametrize("replies", [("1", "1"), ("2", "2"), ("0", ""), ("1", "0"), ("2", "0")])
def test_disagreement_is_a_tie(replies: tuple[str, str]) -> None:
    """A judge that goes by the place, or cannot say in one order, has not decided: both have half."""
    turns = iter(replies)
    graded, asked = played(review("a", "b"), NEVER, lambda _: next(turns))
    assert graded == Graded({"A": 0.5, "B": 0.5})
    assert len(asked) == (1 if replies[0] == "0" else 2), "a tie in the first order stays one"


def test_of_three_each_meets_each() -> None:
    """A rating is the mean over the others: a clear order gives 1, ½, 0."""
    graded, asked = played(review("a", "b", "c"), NEVER, prefers("c", "a", "b"))
    assert graded.ratings == {"A": 0.5, "B": 0.0, "C": 1.0}
    assert len(asked) == 6


def test_what_cannot_be_read_is_asked_once_more() -> None:
    """The second time the model is told to reply with the number alone."""
    turns = iter(("A is better", "1", "2"))
    graded, asked = played(review("a", "b"), NEVER, lambda _: next(turns))
    assert graded == Graded({"A": 1.0, "B": 0.0})
    assert asked[1].startswith(asked[0])
    assert "the number alone" in asked[1].removeprefix(asked[0])


@pytest.mark.parametrize("grader", ["model", "rubric"])
def test_a_model_that_says_no_number_grades_nothing(grader: str) -> None:
    """Asked twice for each, then nothing: no grade is invented, and the reason is told."""
    graded, asked = played(review("a", "b", grader=grader), NEVER, lambda _: "I cannot decide")
    assert graded.ratings == {}
    assert graded.problem is not None
    assert graded.problem[0] == "unparsable"
    assert len(asked) == (2 if grader == "model" else 4)


def test_a_rubric_rates_each_answer_alone() -> None:
    """The rubric and the question are asked with one answer at a time; one that could not be rated has no rating."""
    graded, asked = played(
        review("good", "bad", grader="rubric"), NEVER, lambda prompt: "8" if "good" in prompt else "well"
    )
    assert graded == Graded({"A": 0.8})
    assert all("Names the right card." in prompt and "Which card?" in prompt for prompt in asked)
    assert not any("good" in prompt and "bad" in prompt for prompt in asked)
    assert not any("be brief" in prompt for prompt in asked), "the arms did not see it either"


@pytest.mark.parametrize(("empty", "counts"), [("0", True), ("3", True), ("8", False), ("10", False), ("none", False)])
def test_a_rubric_canary_must_lose(empty: str, counts: bool) -> None:
    """An empty answer rated as high as the best one, or not at all, leaves no rating."""
    graded, _ = played(review("good", grader="rubric"), ALWAYS, lambda prompt: "8" if "good" in prompt else empty)
    assert graded.ratings == ({"A": 0.8} if counts else {})
    assert (graded.problem is None) == counts
    assert counts or (graded.problem is not None and graded.problem[0] == "canary")


def test_where_all_is_worth_nothing_so_is_a_canary() -> None:
    """A model that rates every answer 0 has let the empty one lose as far as it could."""
    graded, _ = played(review("bad", grader="rubric"), ALWAYS, lambda _: "0")
    assert graded == Graded({"A": 0.0})


def test_a_pairwise_canary_meets_the_better_answer_in_both_orders() -> None:
    """It must lose both; a model that prefers what stands first is found out."""
    graded, asked = played(review("a", "b"), ALWAYS, prefers("b", "a"))
    assert graded == Graded({"A": 0.0, "B": 1.0})
    assert [order_of(prompt) for prompt in asked[2:]] == [("b", ""), ("", "b")]
    graded, _ = played(review("a", "b"), ALWAYS, lambda _: "1")
    assert graded.problem is not None
    assert graded.problem[0] == "canary"


@given(st.sampled_from(("model", "rubric")), st.lists(st.text(max_size=6), min_size=2, max_size=4), st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_a_model_replies_ratings_are_of_the_letters_and_in_range(
    grader: str, texts: list[str], data: st.DataObject
) -> None:
    """Either ratings of letters that were shown, each in 0..1, or a problem: never both, never neither."""
    replies = st.one_of(st.sampled_from(("0", "1", "2", "7", "1\n2", "")), st.text(max_size=8))
    graded, asked = played(review(*texts, grader=grader), ALWAYS, lambda _: data.draw(replies))
    assert bool(graded.ratings) == (graded.problem is None)
    assert set(graded.ratings) <= {chr(65 + n) for n in range(len(texts))}
    assert all(0.0 <= value <= 1.0 for value in graded.ratings.values())
    most = len(texts) * (len(texts) - 1) if grader == "model" else len(texts)
    assert len(asked) <= 2 * most + 4


def test_a_verdict_says_which_model_and_what_of_each_letter() -> None:
    """It is of kind `model`, under a name that an id may have, however long the arm's is; the grades are the ratings'."""
    given = verdict(review("one", "two"), "judge", {"B": 0.25, "A": 1.0}, 77)
    assert (given.kind, given.by, given.at_ms) == ("model", "model.judge", 77)
    assert [(row.label, row.rating) for row in given.answers] == [("A", 1.0), ("B", 0.25)]
    texts = {"old": "one", "new": "two"}
    assert sorted(value or 0 for value in grade("q", texts, given).by_arm.values()) == [250, 1000]
    assert len(speaks_as("x" * 64)) == 64


def test_who_is_asked_depends_on_grader_and_answers() -> None:
    """A rubric rates one answer, a comparison needs two; people's routes ask no model."""
    asked = {
        (grader, n): asks_model(grader, n) for grader in ("reference", "verdict", "rubric", "model") for n in range(3)
    }
    assert [key for key, value in asked.items() if value] == [("rubric", 1), ("rubric", 2), ("model", 2)]


@pytest.mark.parametrize("share", [0.0, 0.02, 0.05, 0.5, 1.0])
def test_the_chance_of_heads_is_exact(share: float) -> None:
    """Of the coin's 65,536 sides exactly `chance` show heads: what F10 divides by is what was drawn by."""
    sides = sum(side < share * 65_536 for side in range(65_536))
    assert chance(share) == sides / 65_536
    drawn = sum(heads(f"q{n}", "human", share) for n in range(4000)) / 4000
    assert abs(drawn - share) < 0.03
