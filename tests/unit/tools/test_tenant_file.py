"""A tenant file: read whole, refused by field; what it says in words, and what changes."""

from pathlib import Path

import pytest

from agents.rules.gate_check import without_effect
from agents.rules.gate_standard import STANDARD
from schemas.errors import Refused
from schemas.gate import GateTenant
from tools.tenants import changes, read_tenant, until_words, words

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "tenant.toml"
NOW = 1_800_000_000_000  # 2027-01-15 08:00 UTC
DAY = 86_400_000


def file(folder: Path, text: str) -> Path:
    made = folder / "tenant.toml"
    made.write_text(text, encoding="utf-8")
    return made


def test_the_example_is_a_configuration_in_which_everything_has_an_effect() -> None:
    """Nobody copies a file that warns."""
    clinic = read_tenant(EXAMPLE)
    assert (clinic.tenant, clinic.hipaa, clinic.notify_hours) == ("clinic", True, 48)
    assert without_effect(clinic, STANDARD) == ()


def test_a_time_is_a_date_or_a_time(tmp_path: Path) -> None:
    """UTC where it names no zone; `until` a date: to the end of that day; epoch milliseconds as the model has them."""
    read = read_tenant(
        file(
            tmp_path,
            """
            tenant = "bank"
            [[flows]]
            origin = "eu"
            region = "eu"
            from = 2027-01-01
            until = 2027-12-31
            [[flows]]
            origin = "eu"
            region = "us"
            tool = "scc"
            from = 2027-01-01T12:00:00
            until = 2027-01-01T12:00:00-02:00
            [baa]
            id = "b"
            until = "2027-01-01T00:00:00Z"
            [[holds]]
            id = "h"
            until_ms = 1800000000000
            """,
        )
    )
    newyear = 1_798_761_600_000
    assert read.flows[0].from_ms == newyear
    assert (read.flows[0].until_ms or 0) == newyear + 365 * DAY
    assert (read.flows[1].from_ms, read.flows[1].until_ms) == (newyear + DAY // 2, newyear + DAY // 2 + DAY // 12)
    assert read.baa is not None
    assert read.baa.until_ms == newyear
    assert read.holds[0].until_ms == 1_800_000_000_000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tenant = ", "not TOML"),
        ("", "tenant: is missing"),
        ('tenant = "a b"', "tenant: 'a b' is not accepted: String should match pattern"),
        ('tenant = "a"\nnotify_hour = 24', "notify_hour: no such setting; did you mean 'notify_hours'?"),
        ('tenant = "a"\nnotify_hours = 0', "notify_hours: 0 is not accepted: Input should be greater than or equal to 1"),
        ('tenant = "a"\nversion = 3', "version: is counted when it is applied; leave it out"),
        ('tenant = "a"\n[[exemptions]]\nid = "e"\nrule = "gdpr-9"\nthen = "ignore"', "exemptions[0].then: 'ignore' is not"),
        ('tenant = "a"\n[[exemptions]]\nid = "e"\nrule = "r"\nthen = "mask"',
         "exemptions[0]: until: a time is missing at which it ends; accepted: a date or a time, such as 2027-01-31"),
        ('tenant = "a"\n[baa]\nid = "b"\nuntil = "soon"', "baa.until: 'soon' is not accepted: a date or a time"),
        ('tenant = "a"\n[baa]\nid = "b"\nuntil = 1999', "baa.until: 1999 is not accepted: a date or a time"),
        ('tenant = "a"\n[[flows]]\norigin = "x"\nregion = "y"\nuntil = 1960-01-01', "flows[0].until: "),
        ('tenant = "a"\n[baa]\nid = "b"\nuntil = 2027-01-01\nuntil_ms = 5', "baa.until: and until_ms: are one time"),
        ('tenant = "a"\n[[holds]]\nid = "h"\nfrom = 2027-01-02\nuntil = 2027-01-01', "holds[0]: until: "),
        ('tenant = "a"\n[[holds]]\nid = "h"\n[[holds]]\nid = "h"', "holds: ids must differ"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_field(text: str, told: str, tmp_path: Path) -> None:
    """File, field, what is wrong, what would be accepted."""
    with pytest.raises(Refused) as refused:
        read_tenant(file(tmp_path, text))
    assert told in str(refused.value)
    assert str(refused.value).startswith(str(tmp_path / "tenant.toml"))


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    """A line each, a time that is none among them."""
    wrong = 'tenant = "a"\nretention_days = 0\nhipaa = "no idea"\nshoe = 1\n[baa]\nid = "b"\nuntil = "soon"'
    with pytest.raises(Refused) as refused:
        read_tenant(file(tmp_path, wrong))
    named = [line.split(": ")[1] for line in str(refused.value).splitlines()]
    assert sorted(named) == ["baa.until", "hipaa", "retention_days", "shoe"]


def test_settings_that_are_known_are_listed_once(tmp_path: Path) -> None:
    """However many others there are."""
    with pytest.raises(Refused) as refused:
        read_tenant(file(tmp_path, 'tenant = "a"\nshoe = 1\nhat = 2'))
    first, second = str(refused.value).splitlines()
    assert "shoe: no such setting; known are tenant" in first
    assert second.endswith("hat: no such setting")


def test_a_routes_file_is_sent_to_its_own_command(tmp_path: Path) -> None:
    """Instead of a list of settings that no tenant has."""
    with pytest.raises(Refused, match=r"is a route's file: `ratchet apply "):
        read_tenant(file(tmp_path, 'tenant = "a"\nroute = "r"'))


def test_a_configuration_in_words_tells_when_permissions_end() -> None:
    """What has ended stands out, what ends soon and what is still to come as well."""
    settings = GateTenant.model_validate(
        {
            "tenant": "bank",
            "purposes": {"support": ("contract", "consent")},
            "purpose": "support",
            "origin": "eu",
            "exemptions": [
                {"id": "e1", "rule": "soc2-p6.1", "then": "allow", "kinds": ["email"], "until_ms": NOW + 5 * DAY + 1},
                {"id": "e2", "rule": "gdpr-9", "then": "mask", "until_ms": NOW - 1},
            ],
            "flows": [
                {"origin": "eu", "region": "us", "tool": "scc", "from_ms": NOW + DAY, "until_ms": NOW + 99 * DAY}
            ],
            "holds": [{"id": "h"}],
        }
    )
    told = {f"{line.name}: {line.text}": line.tone for line in words(settings, NOW)}
    assert told == {
        "purpose: support, on consent or contract": "",
        "where unsaid: purpose support, origin eu": "",
        "flow: from eu to us by scc, not before 2027-01-16 08:00 UTC, until 2027-04-24 08:00 UTC (99 days left)": "later",
        "exemption: e1: soc2-p6.1 does at most allow for email, until 2027-01-20 08:00 UTC (5 days left)": "soon",
        "exemption: e2: gdpr-9 does at most mask, ended 2027-01-15 07:59 UTC": "ended",
        "legal hold: h: nothing of every subject is erased": "",
        "retention: 183 days": "",
        "breach notice: within 72 hours": "",
    }


def test_the_end_of_a_day_is_said_as_that_day() -> None:
    """As it was written in the file; times that no calendar has are numbers."""
    assert until_words(1_798_761_600_000) == "2026-12-31"
    assert until_words(1_798_761_660_000) == "2027-01-01 00:01 UTC"
    assert until_words((1 << 53) - 1) == f"{(1 << 53) - 1} ms"


def test_changes_are_told_field_by_field() -> None:
    """The version is none: it is counted when it is applied."""
    before = GateTenant(tenant="bank", version=4, hipaa=True)
    after = GateTenant(tenant="bank", notify_hours=24, hipaa=True)
    assert changes(before, after) == {"notify_hours": {"before": 72, "after": 24}}
    assert changes(before, before.model_copy(update={"version": 9})) == {}
    assert changes(None, after)["hipaa"] == {"before": None, "after": True}
