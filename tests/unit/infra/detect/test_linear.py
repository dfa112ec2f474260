"""Time is linear: twice the text takes twice the time, whatever the text is made of."""

import time

import pytest

from infra.detect import detect
from infra.detect.pattern import Pattern
from tools.bench.pii_speed import ADVERSARIAL

SIZE = 20_000


@pytest.mark.parametrize("piece", ADVERSARIAL, ids=ascii)
def test_twice_the_text_takes_no_four_times(piece: str) -> None:
    """What is quadratic takes four times as long for twice as much; the bound between leaves room for noise."""
    text = piece * (SIZE // len(piece))
    detect(text[:2000])
    ratios = (_cpu_s(2 * text) / _cpu_s(text) for _ in range(5))
    assert min(ratios) < 3


def test_what_re2_refuses_is_named() -> None:
    """An expression that needs backtracking is refused with its text."""
    with pytest.raises(ValueError, match="RE2 refuses"):
        Pattern(r"(a)\1")


def _cpu_s(text: str) -> float:
    started = time.process_time()
    detect(text)
    return time.process_time() - started
