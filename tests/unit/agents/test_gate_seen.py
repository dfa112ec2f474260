"""From a scan to what events say: defaults, masked texts, `GateSeen`, and the same again from a recorded word."""

from dataclasses import replace

import pytest
from gates import BOOK, CARE, CLINIC, FAR, NOW, OUTSIDE, OWN, finding, scan

from agents.rules.gate import Book, decide
from agents.rules.gate_seen import Checked, again, asked_of, check, limits, masked, seen
from agents.rules.gate_standard import STANDARD
from infra.detect import detect
from schemas.gate import Scan, SizeRule

TEXT = "Please call ann@example.org about card 4111 1111 1111 1111."


def looked(*texts: str) -> Scan:
    return Scan(tuple(tuple(detect(text)) for text in texts), sum(len(text) for text in texts), 90)


def checked(*texts: str, found: Scan | None = None) -> Checked:
    return check(texts, CARE, found or looked(*texts), CLINIC, BOOK, NOW)


def test_the_tenants_words_where_the_sender_says_nothing() -> None:
    """Purpose, basis, notice and origin are the tenant's where the request names none, the request's own where it does."""
    settings = CLINIC.model_copy(update={"purpose": "care", "basis": "consent", "notice": "notice-2"})
    silent = asked_of("request", "clinic", settings, places=(OWN,))
    assert (silent.purpose, silent.basis, silent.notice, silent.origin) == ("care", "consent", "notice-2", "eu")
    said = asked_of("request", "clinic", settings, purpose="training", basis="contract", notice="n", origin="us")
    assert (said.purpose, said.basis, said.notice, said.origin) == ("training", "contract", "n", "us")
    assert asked_of("request", "clinic", None).purpose is None


def test_what_goes_on_is_masked_and_told() -> None:
    """Kinds and counts of what was replaced, the rules, the configuration; the values stand in the map alone."""
    gave = checked(TEXT)
    assert gave.masked is not None
    assert gave.masked.texts == ("Please call [EMAIL_1] about card [CARD_1].",)
    assert gave.seen.action == "mask"
    assert gave.seen.rules == ("hipaa-164.514.b.2", "soc2-c1.1", "soc2-p6.1")
    assert gave.seen.found == {"card": 1, "email": 1}
    assert gave.seen.masked == ("card", "email")
    assert (gave.seen.rules_digest, gave.seen.tenant_version, gave.seen.scan) == (BOOK.digest, 3, "whole")
    assert (gave.seen.purpose, gave.seen.legal_basis, gave.seen.origin) == ("care", "consent", "")
    assert "4111" not in gave.seen.model_dump_json()


def test_a_denied_text_goes_nowhere() -> None:
    """There is no masked text of it."""
    gave = checked(
        TEXT + " key AKIAQ4EXAMPLE3WXYZ77" + " with aws_secret_access_key=wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzKEYabcd"
    )
    assert gave.decision.action == "deny"
    assert gave.masked is None
    assert gave.seen.masked == ()


@pytest.mark.parametrize(
    "wrong",
    [
        replace(scan("email"), findings=((finding("email", 50, 500),),)),
        replace(scan("email"), findings=((finding("email"),), ())),
        replace(scan(), findings=()),
    ],
)
def test_a_detector_that_miscounts_has_failed(wrong: Scan) -> None:
    """A finding outside its text, or findings of another number of texts: denied as by a detector that failed."""
    assert masked([TEXT], wrong, ("email",)) is None
    gave = checked(TEXT, found=wrong)
    assert gave.masked is None
    assert gave.seen.action == "deny"
    assert "gate-detector" in gave.seen.rules
    assert gave.seen.scan == "failed"


def test_registered_is_what_the_register_holds() -> None:
    """Purpose, basis and a flow to each region that is left: all of them in the tenant's configuration."""
    origin = replace(CARE, origin="eu", places=(OWN, OUTSIDE, FAR))
    assert check([TEXT], origin, looked(TEXT), CLINIC, BOOK, NOW).seen.registered
    assert not check(
        [TEXT], replace(origin, basis="contract", purpose="other"), looked(TEXT), CLINIC, BOOK, NOW
    ).seen.registered
    assert not check([TEXT], replace(origin, origin="us"), looked(TEXT), CLINIC, BOOK, NOW).seen.registered
    assert not check([TEXT], origin, looked(TEXT), None, BOOK, NOW).seen.registered


def test_nothing_that_nobody_configured_is_repeated() -> None:
    """A purpose, basis or origin that the tenant has not named stands in no event of ours."""
    asked = replace(CARE, purpose="ann-smith", basis="born-in-may", origin="elm-street")
    told = check([TEXT], asked, looked(TEXT), CLINIC, BOOK, NOW).seen
    assert (told.purpose, told.legal_basis, told.origin) == ("", "", "")


@pytest.mark.parametrize(
    ("failed", "spent_us", "word"), [(False, 90, "whole"), (True, 0, "failed"), (False, 20_001, "late")]
)
def test_the_same_again_from_the_recorded_word(failed: bool, spent_us: int, word: str) -> None:
    """A replay that scans without a clock and knows how the scan ended comes to the same decision and words."""
    nothing = replace(looked(TEXT), findings=((),)) if word != "whole" else looked(TEXT)
    first = checked(TEXT, found=replace(nothing, failed=failed, spent_us=spent_us))
    assert first.seen.scan == word
    second = checked(TEXT, found=again(first.seen.scan, looked(TEXT), 20_000))
    assert second.seen == first.seen
    assert second.decision == first.decision


def test_limits_are_those_of_the_rules_in_force() -> None:
    """The least of all size rules in force; without one nothing may be scanned, and the gate is closed anyway."""
    assert limits(BOOK, NOW) == (50_000, 20_000)
    size = next(rule for rule in STANDARD.rules if isinstance(rule, SizeRule))
    less = size.model_copy(update={"id": "less", "characters": 10})
    assert limits(Book((size, less), ""), NOW) == (10, 20_000)
    assert limits(Book((), ""), NOW) == (0, 0)


def test_an_answer_needs_no_flow() -> None:
    """An answer goes to nobody but who asked."""
    asked = asked_of("answer", "clinic", CLINIC, purpose="care", basis="consent")
    found = looked(TEXT)
    assert seen(decide(asked, found, CLINIC, BOOK, NOW), asked, CLINIC, found).registered
