"""What a person signs of a control: read from a note, refused by name."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agents.evidence.statements import HEADER, read
from infra.notary import LocalNotary, verify
from schemas.errors import Refused
from schemas.tlog import note

ORIGIN = "dev.ratchet.test"


def signed(notary: LocalNotary, *lines: str, origin: str = ORIGIN, header: str = HEADER) -> bytes:
    text = "\n".join((header, origin, *lines)) + "\n"
    key = note.parse_vkey(notary.vkey(1))
    return (text + "\n" + note.sign_line(key, notary.sign(text.encode(), 1))).encode()


def line(**changed: Any) -> str:
    row = {"control": "soc2-cc1", "says": "reviewed", "until": "2027-06-30", "why": "Read on 1 June."} | changed
    return json.dumps(row)


@pytest.fixture
def notary(tmp_path: Path) -> LocalNotary:
    return LocalNotary.create(tmp_path / "ann.key", "dev.ann")


def test_statements_are_read(notary: LocalNotary) -> None:
    """Of a note that a known signer signed: who, what, until when."""
    data = signed(notary, line(), line(control="gdpr-9", says="not-applicable"))
    found = read(data, ORIGIN, [note.parse_vkey(notary.vkey(1))], verify)
    assert [(one.control, one.says, one.by) for one in found] == [
        ("soc2-cc1", "reviewed", "dev.ann"), ("gdpr-9", "not-applicable", "dev.ann"),
    ]  # fmt: skip


def test_a_statement_of_nobody_known_is_refused(notary: LocalNotary, tmp_path: Path) -> None:
    """Another signer, a changed line, no signature at all."""
    data, keys = signed(notary, line()), [note.parse_vkey(notary.vkey(1))]
    other = LocalNotary.create(tmp_path / "bob.key", "dev.bob")
    for bad, known in (
        (data, [note.parse_vkey(other.vkey(1))]),
        (data.replace(b"2027", b"2097"), keys),
        (data.split(b"\n\n")[0], keys),
    ):
        with pytest.raises(Refused, match="statements"):
            read(bad, ORIGIN, known, verify)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ({"origin": "other.log"}, "another log"),
        ({"header": "x"}, HEADER),
        ({"lines": ("{",)}, "line 3 is not JSON"),
        ({"lines": ("[]",)}, "control, says, until, why"),
        ({"lines": (line(more=1),)}, "control, says, until, why"),
        ({"lines": (line(control="soc2-cc99"),)}, "soc2-cc99"),
        ({"lines": (line(says="satisfied"),)}, "not-applicable, reviewed"),
        ({"lines": (line(control="gdpr-9"),)}, "shown by the log"),
        ({"lines": (line(until="2027-02-30"),)}, "2027-02-30"),
        ({"lines": (line(why="=cmd()"),)}, "why"),
        ({"lines": (line(), line())}, "stated twice"),
    ],
)
def test_what_a_statement_may_not_be(notary: LocalNotary, data: Mapping[str, Any], word: str) -> None:
    """Signed or not: each is refused by name, with what would be accepted."""
    made = signed(notary, *data.get("lines", ()), origin=data.get("origin", ORIGIN), header=data.get("header", HEADER))
    with pytest.raises(Refused, match=word) as refused:
        read(made, ORIGIN, [note.parse_vkey(notary.vkey(1))], verify)
    assert "accepted" in str(refused.value)
