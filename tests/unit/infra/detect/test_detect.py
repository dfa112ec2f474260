"""All recognisers together: what overlaps, what words near decide, and that a finding never repeats a value."""

import dataclasses
import json

import pytest

from infra.detect import detect
from schemas.findings import Finding, Kind

TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"


def kinds(text: str) -> list[str]:
    return [one.kind.value for one in detect(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("My IBAN is RS35 2600 0560 1001 6113 79 thanks", ["iban"]),
        ("http://example.com/?mail=jo@example.org", ["email"]),
        ("my card 4012888888881881 and mail jo@example.org", ["card", "email"]),
        ("call 785 8949 or fax 166-684-7899", ["phone", "phone"]),
        ("order 785 8949 is late", []),
        ("Beverly Hills, CA 90210-1234", []),
        ("it reached 1000000 people", []),
        ("you can reach her at 06-24312407", ["phone"]),
        ("Thursday 3/23/1940 18:43", ["date", "date"]),
        ("on Monday, the 5th of May 2020 we met", ["date"]),
        ("He was born in 1965", ["date"]),
        ("It became something else in 1965", []),
        ("version 1.2.3.4 of the file", []),
        ("the server 1.2.3.4 answers", ["ip"]),
        ("print(b[::2])", []),
        ("the number 12345.6789", []),
        ("It ended.It was late, see file.py and e.g. this", []),
        ("see www.example.de, shop.example.co.uk and example.at/path", ["domain", "domain", "domain"]),
        ("the flat 680 36 4022 Oakridge Lane", []),
        ("nothing here at all", []),
        ("", []),
    ],
)
def test_what_is_found(text: str, expected: list[str]) -> None:
    """Strong forms count alone, weak ones where words say so, and of two that overlap the surer stays."""
    assert kinds(text) == expected


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("NPI 1245319599 signed", Kind.NPI, "1245319599"),
        ("DEA number BB1388568", Kind.DEA, "BB1388568"),
        ("Medicare 1EG4-TE5-MK73 card", Kind.MBI, "1EG4-TE5-MK73"),
        ("MRN: A-123456, ward 4", Kind.RECORD, "A-123456"),
        ("patient id is 99812 today", Kind.RECORD, "99812"),
        ("diagnosis E11.9 confirmed", Kind.ICD10, "E11.9"),
        ("she takes Metformin daily", Kind.HEALTH, "Metformin"),
        ("history of high blood pressure", Kind.HEALTH, "high blood pressure"),
    ],
)
def test_health_data(text: str, kind: Kind, value: str) -> None:
    """Identifiers of providers, patients and records, codes of diagnoses, and words of health."""
    assert (kind, value) in [(one.kind, text[one.start : one.end]) for one in detect(text)]


@pytest.mark.parametrize(
    "text", ["seat E11 is free", "the symptomatic word", "NPI 1245319598", "patient id unknown", "DEA BB1388567"]
)
def test_no_health_data(text: str) -> None:
    """A code without its word, half a word, a wrong check digit, a word without a number: nothing."""
    assert kinds(text) == []


@pytest.mark.parametrize(
    ("text", "rule", "value"),
    [
        (f"use {TOKEN} here", "github-pat", TOKEN),
        (f"x\u200b {TOKEN[:9]}\u200b{TOKEN[9:]} y", "github-pat", TOKEN[:9] + "\u200b" + TOKEN[9:]),
        ("api_key = 'q8Zr4Vx1Lm7Tn2Wc5Yb9'", "generic-api-key", "q8Zr4Vx1Lm7Tn2Wc5Yb9"),
        ("AKIA" + "Q3EGRZ7N2WLT5XYB is it", "aws-access-token", "AKIA" + "Q3EGRZ7N2WLT5XYB"),
    ],
)
def test_secrets(text: str, rule: str, value: str) -> None:
    """A secret is found by its rule, without the name and quotes around it, zero-width characters or not."""
    assert (rule, value) in [(one.rule, text[one.start : one.end]) for one in detect(text) if one.kind is Kind.SECRET]


@pytest.mark.parametrize(
    "text",
    [
        "api_key = 'aaaaaaaaaaaaaaaaaaaa'",
        "AKIA" + "IOSFODNN7EXAMPLE",
        "the key to success is patience",
        "password: ${PASSWORD}",
    ],
)
def test_no_secrets(text: str) -> None:
    """Too little entropy, an example that the rules allow, prose, a placeholder."""
    assert Kind.SECRET not in {one.kind for one in detect(text)}


def test_a_finding_holds_no_value() -> None:
    """Nothing that a finding holds or prints repeats a piece of what was found."""
    values = [
        "4012888888881881",
        "jo.doe@example.org",
        "GB82WEST12345698765432",
        "581-12-5803",
        TOKEN,
        "diabetes",
        "1EG4-TE5-MK73",
    ]
    found = detect(" and ".join(values))
    assert len(found) == len(values)
    said = repr(found) + json.dumps([dataclasses.asdict(one) for one in found])
    assert not [value for value in values if value in said or value[3:9] in said]
    assert {field.name for field in dataclasses.fields(Finding)} == {"kind", "start", "end", "rule", "score"}


def test_the_same_text_the_same_findings() -> None:
    """Detection is a function of the text: the second call says what the first said."""
    text = f"call 785 8949, {TOKEN}, born 3/23/1940"
    assert detect(text) == detect(text)
