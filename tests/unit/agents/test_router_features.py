"""The surface numbers and the complexity tier: integers, the same everywhere, in plain words."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.router import features
from agents.router.features import CLIP, NAMES, ONE, complexity, log2, measures, read, surface

LISTED = "Which is NOT a prime, of those below?\nA. 2\nB. 14\nC. 37\nD. 1999\nAnswer:"


def named(text: str) -> dict[str, int]:
    return dict(zip(NAMES, measures(read(text)), strict=True))


def test_the_logarithm_is_close_and_grows() -> None:
    """Over small and large numbers the table's logarithm is at most 2^-7 below the real one, and never falls."""
    numbers = [*range(1, 5000), *(3**n for n in range(8, 60))]
    found = [log2(number) for number in numbers]
    assert found == sorted(found)
    assert all(
        -(ONE >> 7) <= value - ONE * math.log2(number) <= 1 for value, number in zip(found, numbers, strict=True)
    )


def test_a_power_of_two_is_exact() -> None:
    """The logarithm of a power of two has no rounding."""
    assert [log2(1 << n) for n in range(40)] == [n * ONE for n in range(40)]


def test_the_numbers_of_a_text_do_not_drift() -> None:
    """Vectors of our own: another result means another feature, and every basis would need learning again."""
    assert measures(read(LISTED)) == PUBLISHED
    assert surface(LISTED) == PUBLISHED_SCORES


PUBLISHED = (
    25189,
    21649,
    21495,
    526,
    970,
    292,
    10588,
    4096,
    9155,
    3855,
    4096,
    0,
    0,
    4096,
    4096,
    9510,
    12984,
    0,
    0,
    1152,
)
PUBLISHED_SCORES = (
    -3204, -4260, -790, 16384, 15732, 6320, 3604, 577, -10093, 3158,
    2789, -457, -2015, 12841, 3744, 3813, 596, -1418, -1412, 16384,
)  # fmt: skip


def test_each_number_counts_what_its_name_says() -> None:
    """Questions, items, negations, years, commas and digits of the items."""
    found = named(LISTED)
    assert found["questions"] == found["commas"] == found["negations"] == found["years"] == log2(2)
    assert found["items"] == log2(5)
    assert found["log_length"] == log2(1 + len(LISTED))
    assert found["log_stem"] == log2(1 + LISTED.index("A. 2"))
    assert found["item_digits"] > found["digits"] > 0
    assert named("It was ____ in 1999.")["blanks"] == log2(2)
    assert named('He said "no".')["quotes"] == log2(3)


def test_the_last_sentence_before_the_items_is_measured() -> None:
    """`log_last` is of the last sentence of the stem, `log_stem` of all of it."""
    found = named("There is a long story here. And then a question?\n(A) yes\n(B) no")
    assert found["log_last"] == log2(1 + len("And then a question?\n"))
    assert found["log_stem"] == log2(1 + len("There is a long story here. And then a question?\n"))


@pytest.mark.parametrize(
    "text", ["", " ", "\n\n", "\ud800", "🙂", "é", "\x00", "日本語の質問です。", "a" * 50_000, "1." * 9, "- "]
)
def test_odd_texts_have_numbers(text: str) -> None:
    """Empty, unprintable, foreign and lone-surrogate texts are texts."""
    found = surface(text)
    assert len(found) == len(NAMES) == 20
    assert all(isinstance(value, int) and -CLIP <= value <= CLIP for value in found)
    assert complexity(text).points >= 0


@given(st.text(max_size=400))
def test_any_text_has_twenty_clipped_integers(text: str) -> None:
    """Whatever the characters: 20 integers within ±4, and one way to write a character is as good as another."""
    found = surface(text)
    assert len(found) == 20
    assert max(map(abs, found)) <= CLIP


def test_composed_and_decomposed_letters_are_the_same_words() -> None:
    """NFC first: the words do not depend on how an accent was typed."""
    assert read("caf\u00e9").words == read("cafe\u0301").words


def test_a_huge_text_is_read_at_its_ends() -> None:
    """200 kB cost what 16,384 characters cost; the length is of the whole, and a question at the end is seen."""
    huge = "word, and 12 more. " * 11_000 + "Why not?"
    reading = read(huge)
    assert reading.length == len(huge)
    assert len(reading.seen) == features.HEAD + features.TAIL + 1
    assert named(huge)["questions"] == log2(2)


@pytest.mark.parametrize("piece", ["_", ".", "(", "A. ", "\n", " ", "-", "a\n", "1", "\u0301", "$", "(a) "])
def test_no_text_is_slow(piece: str) -> None:
    """A repeated sign of 200 kB is read in well under a second: no expression goes back over what it saw."""
    text = piece * (200_000 // len(piece))
    before = time.process_time()
    surface(text)
    complexity(text)
    assert time.process_time() - before < 1.0


def test_complexity_says_its_points() -> None:
    """The points of the table add up to the total, each with its name."""
    found = complexity("How do I then compute the total of 12 and 13 step by step? Why not 99?", 4)
    assert dict(found.why) == {"tokens": 1, "questions": 1, "digits": 1, "negation": 1, "steps": 3, "turns": 1}
    assert found.points == sum(points for _, points in found.why) == 8
    assert found.tier == "moderate"


def test_tiers_go_from_trivial_to_complex() -> None:
    """A greeting is trivial, a question simple, a proof with formulae and code complex."""
    proof = (
        "Prove that for each n >= 2 the sum 1/1^2 + 1/2^2 + ... + 1/n^2 < 2 - 1/n, then explain why the bound does not hold for n = 1. "
        "Finally implement it: def f(n): return sum(1 / k**2 for k in range(1, n + 1)); compare f(10) with 2 - 1/10; how far is it?"
    )
    texts = (
        "Hello there",
        "How do I change the address of my account, and is there a fee for a new card in the post?",
        proof,
    )
    assert [complexity(text).tier for text in texts] == ["trivial", "simple", "complex"]


def test_longer_conversations_are_no_simpler() -> None:
    """More messages never take points away."""
    points = [complexity(LISTED, messages).points for messages in (1, 2, 3, 6, 7, 50)]
    assert points == sorted(points)
    assert points[-1] > points[0]
