"""Folding: what a reader sees is what the patterns see, and every byte knows its place in the original."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.detect import detect
from infra.detect.fold import fold
from schemas.findings import Kind

CARD = "4012888888881881"
FULL_WIDTH = CARD.translate({48 + digit: 0xFF10 + digit for digit in range(10)})
ARABIC = CARD.translate({48 + digit: 0x0660 + digit for digit in range(10)})
BOLD = CARD.translate({48 + digit: 0x1D7CE + digit for digit in range(10)})


@pytest.mark.parametrize(
    "written",
    [
        FULL_WIDTH, ARABIC, BOLD,
        "\u200b".join(CARD), "\u00ad".join(CARD), "\u2060".join(CARD), "\ufeff".join(CARD),
        "4O12888888881881", "40l2888888881881", "4\u041e12888888881881", "40I2 8888 8888 I88I",
        "4012\u00a08888\u00a08888\u00a01881", "4012\u20118888\u20118888\u20111881", "4012\u20138888\u20138888\u20131881",
        "4 0 1 2 8 8 8 8 8 8 8 8 1 8 8 1",
    ],
)  # fmt: skip
def test_a_card_in_disguise(written: str) -> None:
    """Other digits, look-alikes, hidden characters and odd spaces hide no card, and the finding covers all of it."""
    text = f"Größe \u200bпривет {written}, bitte"
    (one,) = [one for one in detect(text) if one.kind is Kind.CARD]
    assert text[one.start : one.end] == written


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("mail ｊｏｈｎ＠ｅｘａｍｐｌｅ．ｃｏｍ now", Kind.EMAIL, "ｊｏｈｎ＠ｅｘａｍｐｌｅ．ｃｏｍ"),
        ("mail müller@exämple.com now", Kind.EMAIL, "müller@exämple.com"),
        ("mail jo\u200bhn@example.com now", Kind.EMAIL, "jo\u200bhn@example.com"),
        ("ssn \u0665\u0668\u0661-12-5803", Kind.SSN, "\u0665\u0668\u0661-12-5803"),
        ("IBAN ＧＢ82 WEST 1234 5698 7654 32!", Kind.IBAN, "ＧＢ82 WEST 1234 5698 7654 32"),
        ("号码13812345678请拨 call 010-6552-9988", Kind.PHONE, "010-6552-9988"),
        ("at 192。168。0。1 there", Kind.IP, "192。168。0。1"),
        ("\U0001f600\U0001f600 born 3/23/1940", Kind.DATE, "3/23/1940"),
    ],
)
def test_spans_are_of_the_original(text: str, kind: Kind, value: str) -> None:
    """Offsets count the characters of the text as it was given."""
    assert value in [text[one.start : one.end] for one in detect(text) if one.kind is kind]


def test_what_is_no_character_breaks_nothing() -> None:
    """Lone surrogates, control characters and private ones stand between, and what is around them is found."""
    text = "\ud800 \x00\ue000 4012888888881881\udfff"
    assert [(one.kind, text[one.start : one.end]) for one in detect(text)] == [(Kind.CARD, "4012888888881881")]


def test_marks_behind_belong_to_the_span() -> None:
    """A combining mark or a hidden character right behind the last one is covered: nothing of the value is left over."""
    text = "e.g. john@example.com\u0301\u200b x"
    (one,) = detect(text)
    assert text[one.start : one.end] == "john@example.com\u0301\u200b"


@given(st.text())
def test_every_text_folds_to_ascii_in_order(text: str) -> None:
    """Any text gives ASCII, and places that never go back and end with the text."""
    folded = fold(text)
    assert folded.text.isascii()
    if folded.origins is None:
        assert len(folded.text) == len(text)
    else:
        assert list(folded.origins) == sorted(folded.origins)
        assert len(folded.origins) == len(folded.text) + 1
        assert folded.origins[-1] == len(text)


@given(st.text(alphabet=st.characters(min_codepoint=0xFF01, max_codepoint=0xFF5E)))
def test_full_width_is_what_nfkc_says(text: str) -> None:
    """Full-width text folds to its NFKC form."""
    assert fold(text).text.decode() == unicodedata.normalize("NFKC", text)


NUMERIC = st.text("0123456789 :/-.,@xe#+()OoIlTtZgGbB\n\u200b\uff11\u00e9", max_size=60)


@given(st.one_of(st.text(), NUMERIC))
def test_findings_lie_inside_and_apart(text: str) -> None:
    """Findings of any text are inside it, not empty, in order, and none lies over another."""
    found = detect(text + " 4012888888881881 " + text)
    places = [at for one in found for at in (one.start, one.end)]
    assert places == sorted(places)
    assert all(0 <= one.start < one.end <= 2 * len(text) + 18 for one in found)
