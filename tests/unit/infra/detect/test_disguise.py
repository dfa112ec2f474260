"""What senders and programs put around and into a value: escapes, underscores, joined words, lines, tables, unseen characters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.detect import detect, named
from infra.detect.fold import fold, unescaped
from schemas.findings import Kind

CARD, IBAN, SSN, MAIL, KEY = (
    "4111111111111111",
    "DE89370400440532013000",
    "536-22-8726",
    "jo.doe@example.org",
    "AKIAQ3EGRVCTU6LKXZ7P",
)
VALUES = [
    (Kind.CARD, CARD), (Kind.IBAN, IBAN), (Kind.SSN, SSN), (Kind.EMAIL, MAIL), (Kind.PHONE, "+1 415 555 2671"), (Kind.IP, "192.168.10.77"),
    (Kind.MBI, "1EG4-TE5-MK73"), (Kind.DEA, "AB1234563"), (Kind.SECRET, KEY), (Kind.HEALTH, "diabetes"),
]  # fmt: skip
OF_NUMBERS = [row for row in VALUES if row[0] not in {Kind.SECRET, Kind.HEALTH}]


def covered(text: str, kind: Kind, value: str) -> bool:
    """Whether one finding of the kind covers the value where it stands."""
    at = text.index(value)
    return any(one.kind is kind and one.start <= at and one.end >= at + len(value) for one in detect(text))


def written(how: str, value: str) -> str:
    return "".join(how.format(ord(char), char) for char in value)


@pytest.mark.parametrize(
    "how", ["%{0:02x}", "%{0:02X}", "&#{0};", "&#x{0:x};", "&#X{0:X};", "\\u{0:04x}", "\\x{0:02X}"]
)
@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_escapes(how: str, kind: Kind, value: str) -> None:
    """A value in the escapes of URLs, HTML and strings is found, and the finding covers every escape of it."""
    assert covered(f"see {written(how, value)} there", kind, written(how, value))


@pytest.mark.parametrize(
    "text",
    [
        "a=%20{}%20", "?to=%0A{}&x", '{{"note": "first\\n{}\\nlast"}}', "x\\t{}\\r\\n", '{{\\"a\\":\\"\\\\n{}\\"}}',
        "<b>&nbsp;{}&nbsp;</b>", "&lt;{}&gt;",
        "%E2%80%8B{}%C2%A0",
    ],
)  # fmt: skip
@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_behind_an_escape(text: str, kind: Kind, value: str) -> None:
    """What an escape ends with is no part of the word behind it."""
    assert covered(text.format(value), kind, value)


def test_escapes_inside() -> None:
    """A part of a value that is escaped, by name too, and other escapes that stand for what nobody sees."""
    for text in (
        "jo.doe%40example.org",
        "jo.doe&commat;example&period;org",
        "jo.d&shy;oe@example.org",
        "jo.doe\\u0040example.org",
    ):
        assert covered(f"to {text}, please", Kind.EMAIL, text)
    assert covered(
        "at %F0%9D%9F%9Cunsaid 4111%C2%A01111%C2%A01111%C2%A01111.", Kind.CARD, "4111%C2%A01111%C2%A01111%C2%A01111"
    )


@pytest.mark.parametrize(
    "text", ["100% of it", "50%zz", "AT&T; x", "&nosuch;", "&#9999999;", "\\u12", "%C3 %", "\\d+", "R&D;", "%"]
)
def test_no_escapes(text: str) -> None:
    """What stands for no character stays as it is."""
    assert unescaped(fold(text)) == fold(text)
    assert detect(text) == []


def test_an_escape_ends_no_url() -> None:
    """A URL goes on behind its escapes, so that all of it is one finding."""
    text = "see https://www.example.com/?name=Jo%20Doe%22x here"
    assert covered(text, Kind.DOMAIN, "https://www.example.com/?name=Jo%20Doe%22x")


@pytest.mark.parametrize("around", ["_{}_", "my_{}", "{}_x", "__{}__", "a_{}_b"])
@pytest.mark.parametrize(("kind", "value"), OF_NUMBERS)
def test_underscores(around: str, kind: Kind, value: str) -> None:
    """An underscore, as in names of programs and in text that is set off, is no part of a number or an address."""
    assert covered(f"so {around.format(value)} it is", kind, value)


def test_underscores_within() -> None:
    """Between groups an underscore is a separator, but not of what could be called, nor around words in a name."""
    assert covered("no 4111_1111_1111_1111", Kind.CARD, "4111_1111_1111_1111")
    assert covered("the _diabetes_ ward", Kind.HEALTH, "diabetes")
    assert detect("text = 1_048_588 + number_of_diabetes_codes") == []


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        (f"Visa{CARD}", Kind.CARD, CARD),
        (f"{CARD}exp12/27", Kind.CARD, CARD),
        ("MyCard4111 1111 1111 1111cvc", Kind.CARD, "4111 1111 1111 1111"),
        (f"IBAN{IBAN}", Kind.IBAN, IBAN),
        (f"SSN{SSN}", Kind.SSN, SSN),
        ("NPI1245319599", Kind.NPI, "1245319599"),
        ("DEAAB1234563", Kind.DEA, "AB1234563"),
        ("MRN00123456", Kind.RECORD, "00123456"),
        ('{"mrn": "00123456"}', Kind.RECORD, "00123456"),
        ('{"patient_id":"P-00123"}', Kind.RECORD, "P-00123"),
        ("| MRN | 00123456 |", Kind.RECORD, "00123456"),
        ("**Patient ID:** P-00123", Kind.RECORD, "P-00123"),
        ("Member number\n  00123456", Kind.RECORD, "00123456"),
        ("1EG4 TE5 MK73", Kind.MBI, "1EG4 TE5 MK73"),
    ],
)
def test_names_and_numbers_joined(text: str, kind: Kind, value: str) -> None:
    """A number right behind its name, or behind the quotes, bars and stars of JSON, tables and lists."""
    assert covered(f"is {text} ok", kind, value)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("code 1234 4111 1111 1111 1111", Kind.CARD, "4111 1111 1111 1111"),
        ("since 2024\n4111 1111 1111 1111", Kind.CARD, "4111 1111 1111 1111"),
        ("pin 1234 2024 4111-1111-1111-1111", Kind.CARD, "4111-1111-1111-1111"),
        ("is 12 DE89 3704 0044 0532 0130 00", Kind.IBAN, "DE89 3704 0044 0532 0130 00"),
        ("at 20 at 20 DE89370400440532013000", Kind.IBAN, "DE89370400440532013000"),
    ],
)
def test_what_stands_in_front(text: str, kind: Kind, value: str) -> None:
    """A number or a word in front of one, which might itself be its beginning, hides none."""
    assert covered(text, kind, value)


@pytest.mark.parametrize("between", ["  ", "   ", "\t", "\n", "\r\n"])
def test_groups_apart(between: str) -> None:
    """Groups of a card or an IBAN stand in columns or on two lines."""
    card, iban = between.join(["4111", "1111", "1111", "1111"]), f"DE89 3704{between}0044 0532 0130 00"
    assert covered(f"card: {card}, thanks", Kind.CARD, card)
    assert covered(f"to {iban}", Kind.IBAN, iban)


def test_a_table_of_numbers_is_no_card() -> None:
    """Four numbers of a longer row or column, and the digits of a digest or an id, are none, though their check digit fits."""
    row = ["3983", "4048", "4114", "4181", "4250", "4320"]
    for between in ("  ", "\t", "\n"):
        assert detect(between.join(row)) == []
    assert detect(f"commit ab{CARD}cd") == []
    assert named(f"a{CARD}f") == []


def test_a_uuid_is_no_iban() -> None:
    """A part of a UUID whose check digits are right by chance is none; an IBAN between dashes is one."""
    for name in (
        "bf58c53a-237e-ba59-1401-4c5a3ef919e0", "ba563de7-a44d-a0dd-2742-c22dd48ff396", "ba61a42f-0142-e73d-be45-25977f202d42",
        "be579a35-bd69-0df0-c34e-af946ee0fd0c",
    ):  # fmt: skip
        assert named(name) == []
        assert [one.kind for one in detect(f"id {name}.")] == []
    for name in ("x-DE89-3704-0044-0532-0130-00-1", f"x-{IBAN}-1", "DE89-370400440532013000"):
        assert [one.kind for one in named(name)] == [Kind.IBAN]


@pytest.mark.parametrize(
    "unseen",
    ["\x00", "\x08", "\x1f", "\x7f", "\x80", "\u115f", "\u1160", "\u3164", "\uffa0", "\u2065", "\ufff0", "\U000e0fff"],
)
@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_unseen(unseen: str, kind: Kind, value: str) -> None:
    """Control characters, fillers and what is to be ignored hide nothing, and the finding covers them."""
    hidden = unseen.join(value)
    assert covered(f"so {hidden} it is", kind, hidden)


def test_circled_digits() -> None:
    """Digits that are no decimal ones to Unicode are read all the same."""
    text = CARD.replace("1", "\u2776").replace("4", "\u2779")
    assert covered(f"no {text}", Kind.CARD, text)


@pytest.mark.parametrize(
    "name",
    [
        f"card_{CARD}",
        f"{CARD}_1",
        f"u{CARD}",
        f"iban_{IBAN}",
        f"x_{SSN}",
        f"{SSN}_x",
        "4111_1111_1111_1111",
        "ssn_536228726",
    ],
)
def test_ids(name: str) -> None:
    """An id that a program made of a prefix and a value is seen through."""
    assert named(name) != []


def test_a_secret_is_not_hidden_by_what_lies_in_it() -> None:
    """A private key with an address or a card number in it stays a secret; a secret that is a card number only is the card."""
    body = "\n".join(["MIIEpAIBAAKCAQEAxq8Zr4Vx1Lm7Tn2Wc5Yb9KdPq3Rs6Tu8Vw0Xy2Za4Bc6De8"] * 4)
    for inside in (MAIL, CARD, IBAN):
        text = f"-----BEGIN RSA PRIVATE KEY-----\nComment: {inside}\n{body}\n-----END RSA PRIVATE KEY-----"
        assert Kind.SECRET in [one.kind for one in detect(text)]
    assert [one.kind for one in detect("api_key = '4012888888881881'")] == [Kind.CARD]


def test_health_in_a_url() -> None:
    """A word of health counts inside a URL too, which stays one; inside an address, which is replaced, it does not."""
    assert [one.kind for one in detect("see https://example.com/?q=diabetes now")] == [Kind.DOMAIN, Kind.HEALTH]
    assert [one.kind for one in detect("diagnosis: https://example.com/E11.9 now")] == [
        Kind.HEALTH,
        Kind.DOMAIN,
        Kind.ICD10,
    ]
    assert [one.kind for one in detect("write to surgery@example.org")] == [Kind.EMAIL]


PIECES = st.sampled_from(
    [
        "%",
        "%4",
        "%40",
        "&",
        "&#",
        "&#64;",
        "&amp;",
        "\\",
        "\\u0040",
        "\\n",
        "\\u200b",
        "%E2%80%8B",
        "4",
        "1",
        "_",
        "é",
        "\ufdfa",
        "@",
        "a.b",
        "\x00",
    ]
)


@given(st.lists(PIECES, max_size=40).map("".join))
def test_places_survive_any_escapes(text: str) -> None:
    """Places of an unescaped text never go back and end with the text, and findings lie inside and are not empty."""
    read = unescaped(fold(text))
    assert read.text.isascii()
    if read.origins is not None:
        assert list(read.origins) == sorted(read.origins)
        assert (len(read.origins), read.origins[-1]) == (len(read.text) + 1, len(text))
    whole = f"{text} jo%40example.org {text}"
    assert all(0 <= one.start < one.end <= len(whole) for one in detect(whole))
    assert Kind.EMAIL in [one.kind for one in detect(whole)]
