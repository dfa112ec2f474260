"""Check digits: what they promise of any number, and numbers that others published."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.detect import detect
from infra.detect.checksums import dea, luhn, mod97
from schemas.findings import Kind

DIGITS = st.text("0123456789", min_size=11, max_size=18)


def closed(digits: str) -> str:
    """These digits and the one that makes Luhn's sum right."""
    return next(digits + last for last in "0123456789" if luhn(digits + last))


@given(DIGITS)
def test_luhn_has_one_last_digit(digits: str) -> None:
    """Of ten last digits exactly one is right."""
    assert sum(luhn(digits + last) for last in "0123456789") == 1


@given(DIGITS, st.data())
def test_luhn_sees_a_wrong_digit(digits: str, data: st.DataObject) -> None:
    """Any one digit replaced makes it wrong."""
    number = closed(digits)
    at = data.draw(st.integers(0, len(number) - 1))
    other = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != number[at]]))
    assert not luhn(number[:at] + other + number[at + 1 :])


@given(st.integers(0, 10**18 - 1), st.data())
def test_mod97_sees_a_wrong_digit_and_a_swap(account: int, data: st.DataObject) -> None:
    """Of an IBAN any digit replaced, or two unlike neighbours swapped, makes it wrong."""
    body = f"{account:018d}"
    check = 98 - int(body + "131400") % 97  # DE00 behind the account
    iban = f"DE{check:02d}{body}"
    assert mod97(iban)
    at = data.draw(st.integers(4, 21))
    other = data.draw(st.sampled_from([digit for digit in "0123456789" if digit != iban[at]]))
    assert not mod97(iban[:at] + other + iban[at + 1 :])
    if at < 21 and iban[at] != iban[at + 1]:
        assert not mod97(iban[:at] + iban[at + 1] + iban[at] + iban[at + 2 :])


@given(st.text("0123456789", min_size=6, max_size=6))
def test_dea_has_one_last_digit(digits: str) -> None:
    """Of ten last digits exactly one is right."""
    assert sum(dea(digits + last) for last in "0123456789") == 1


@given(st.text("0123456789", min_size=14, max_size=14))
def test_every_visa_number_is_found(digits: str) -> None:
    """A sixteen-digit number that begins with 4 and has its check digit is a card, whole, hyphenated or spaced."""
    number = closed("4" + digits)
    for sign in ("", "-", " "):
        text = f"pay with {sign.join(number[at : at + 4] for at in range(0, 16, 4))} now"
        assert [text[one.start : one.end] for one in detect(text) if one.kind is Kind.CARD] == [text[9:-4]]


@pytest.mark.parametrize("area", ["000", "666", "900", "999"])
def test_void_areas(area: str) -> None:
    """No social security number was ever issued with these first digits."""
    assert Kind.SSN not in {one.kind for one in detect(f"my ssn is {area}-12-3456")}
    assert Kind.SSN in {one.kind for one in detect("my ssn is 123-12-3456")}
