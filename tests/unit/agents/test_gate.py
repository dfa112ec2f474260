"""The gate: what each rule does, what is closed when something is not known, and what is said of it."""

from dataclasses import replace
from typing import Any

import pytest
from gates import ASIA, BOOK, CARE, CLINIC, FAR, LATER, NOW, OUTSIDE, OWN, scan
from pydantic import ValidationError

from agents.rules.gate import CLOSED, Asked, Book, GateDecision, decide
from agents.rules.gate_check import without_effect
from agents.rules.gate_standard import STANDARD
from schemas.findings import Kind
from schemas.gate import Baa, Exemption, Flow, GateTenant, KindRule, RuleSet, Scan

PLAIN = CLINIC.model_copy(update={"hipaa": False})


def rules(decision: GateDecision, action: str = "deny") -> set[str]:
    return {fired.rule for fired in decision.fired if fired.action == action}


def test_clean_text_goes_on() -> None:
    """Nothing found, all named: allowed on every arm of an allowed region, and no rule fired."""
    decision = decide(CARE, scan(), CLINIC, BOOK, NOW)
    assert (decision.action, decision.fired, decision.masks) == ("allow", (), ())
    assert decision.arms == ("far", "outside", "own")
    assert decision.regions == ("eu-west", "us-east")
    assert (decision.tenant_version, decision.retention_days, decision.digest) == (3, 183, STANDARD.digest())


@pytest.mark.parametrize(
    ("kind", "action", "rule"),
    [
        ("email", "mask", "soc2-p6.1"),
        ("phone", "mask", "soc2-p6.1"),
        ("card", "mask", "soc2-c1.1"),
        ("date", "allow", "gdpr-25"),
        ("icd-10", "deny", "gdpr-9"),
        ("health", "confine", "gdpr-9"),
        ("secret", "deny", "soc2-cc6.7"),
    ],
)
def test_each_kind_has_its_rule(kind: str, action: str, rule: str) -> None:
    """One finding of a kind, one rule, one action."""
    decision = decide(CARE, scan(kind), PLAIN, BOOK, NOW)
    assert decision.action == action
    assert [(fired.rule, fired.action) for fired in decision.fired] == [(rule, action)]
    assert decision.masks == ((kind,) if action == "mask" else ())


def test_a_stronger_action_lifts_no_weaker_one() -> None:
    """Confined to private arms, the e-mail is replaced all the same; both rules are named."""
    decision = decide(CARE, scan("health", "email", "email"), PLAIN, BOOK, NOW)
    assert (decision.action, decision.arms, decision.masks) == ("confine", ("own",), ("email",))
    assert [fired.rule for fired in decision.fired] == ["gdpr-9", "soc2-p6.1"]
    assert decision.found == (("email", 2), ("health", 1))


def test_health_under_hipaa_needs_a_baa() -> None:
    """With an agreement in force health text is confined, after its end denied; a tenant outside HIPAA is not asked for one."""
    assert decide(CARE, scan("health"), CLINIC, BOOK, NOW).arms == ("own",)
    late = CLINIC.exemptions[0].model_copy(update={"until_ms": LATER * 2})
    lasting = CLINIC.model_copy(update={"exemptions": (late,)})
    assert rules(decide(CARE, scan("health"), lasting, BOOK, LATER)) == {"hipaa-164.312.e"}
    plain = lasting.model_copy(update={"hipaa": False})
    assert decide(CARE, scan("health"), plain, BOOK, LATER).action == "confine"


def test_hipaa_replaces_what_identifies_a_patient() -> None:
    """Dates and domains pass elsewhere; under HIPAA they are replaced."""
    assert decide(CARE, scan("date", "domain"), PLAIN, BOOK, NOW).masks == ()
    assert decide(CARE, scan("date", "domain"), CLINIC, BOOK, NOW).masks == ("date", "domain")


def test_an_exemption_ends_at_its_time() -> None:
    """The last millisecond before its end counts, the end does not; the decision names it while it counts."""
    before = decide(CARE, scan("health"), PLAIN, BOOK, LATER - 1)
    assert [(fired.action, fired.exemption) for fired in before.fired] == [("confine", "consent-health")]
    after = decide(CARE, scan("health"), PLAIN, BOOK, LATER)
    assert (after.action, [fired.exemption for fired in after.fired][-1]) == ("deny", None)


def test_an_exemption_covers_what_it_names_alone() -> None:
    """Another kind, another purpose, another place: denied."""
    assert "gdpr-9" in rules(decide(CARE, scan("health", "icd-10"), PLAIN, BOOK, NOW))
    training = replace(CARE, purpose="training")
    assert "gdpr-9" in rules(decide(training, scan("health"), PLAIN, BOOK, NOW))
    here = PLAIN.exemptions[0].model_copy(update={"where": ("curation",)})
    assert "gdpr-9" in rules(decide(CARE, scan("health"), PLAIN.model_copy(update={"exemptions": (here,)}), BOOK, NOW))


def test_no_exemption_lets_a_secret_through() -> None:
    """A rule without exemptions has none, whatever a tenant writes."""
    row = Exemption(id="x", rule="soc2-cc6.7", then="allow", until_ms=LATER)
    tenant = CLINIC.model_copy(update={"exemptions": (row,)})
    assert rules(decide(CARE, scan("secret"), tenant, BOOK, NOW)) == {"soc2-cc6.7"}


def test_what_the_sender_names_counts_as_found() -> None:
    """A data class in the request denies as a finding would."""
    decision = decide(replace(CARE, classes=("religion",)), scan(), CLINIC, BOOK, NOW)
    assert rules(decision) == {"gdpr-9"}
    assert decision.found == (("religion", 0),)


@pytest.mark.parametrize(
    ("asked", "found", "tenant", "rule"),
    [
        (CARE, scan(), None, "gate-tenant"),
        (replace(CARE, tenant="other"), scan(), CLINIC, "gate-tenant"),
        (replace(CARE, purpose=None), scan(), CLINIC, "gate-purpose"),
        (replace(CARE, basis=None), scan(), CLINIC, "gate-basis"),
        (CARE, scan(failed=True), CLINIC, "gate-detector"),
        (CARE, scan(spent_us=20_001), CLINIC, "gate-time"),
        (CARE, scan(characters=50_001), CLINIC, "soc2-pi1.2"),
        (replace(CARE, classes=("iris",)), scan(), CLINIC, "gate-kind"),
        (replace(CARE, places=()), scan(), CLINIC, "gate-no-arm"),
        (replace(CARE, purpose="marketing"), scan(), CLINIC, "gdpr-5"),
        (replace(CARE, notice="notice-1"), scan(), CLINIC, "gdpr-5"),
        (replace(CARE, notice=None), scan(), CLINIC, "gdpr-5"),
        (replace(CARE, basis="legal_obligation"), scan(), CLINIC, "gdpr-6"),
    ],
)
def test_what_is_not_known_is_denied(asked: Asked, found: Scan, tenant: GateTenant | None, rule: str) -> None:
    """Each gap denies under a rule id of its own, and leaves no arm."""
    decision = decide(asked, found, tenant, BOOK, NOW)
    assert decision.action == "deny"
    assert rule in rules(decision)
    assert (decision.arms, decision.regions) == ((), ())


def test_the_limits_themselves_pass() -> None:
    """Exactly 20 ms and exactly the longest text are within."""
    assert decide(CARE, scan(spent_us=20_000, characters=50_000), CLINIC, BOOK, NOW).action == "allow"


def test_a_family_without_a_rule_in_force_denies() -> None:
    """A set that has not begun, or in which one part has ended, closes the gate instead of opening it."""
    ended = [rule.model_copy(update={"until_ms": NOW}) if rule.family == "secret" else rule for rule in STANDARD.rules]
    book = Book.of(RuleSet(rules=tuple(ended)))
    assert decide(CARE, scan(), CLINIC, book, NOW - 1).action == "allow"
    assert "gate-rules" in rules(decide(CARE, scan("secret"), CLINIC, book, NOW))


@pytest.mark.parametrize("purpose", ["service", "support", "fraud", "care", "public", "training", "marketing"])
@pytest.mark.parametrize(
    "basis", ["consent", "contract", "legal_obligation", "vital_interest", "public_task", "legitimate_interest"]
)
def test_purpose_by_basis(purpose: str, basis: str) -> None:
    """The whole matrix: a pair passes where the rule names it and the tenant relies on it, and nowhere else."""
    fits = {
        "service": "consent contract legitimate_interest",
        "support": "consent contract legitimate_interest",
        "fraud": "legal_obligation legitimate_interest",
        "care": "consent contract vital_interest legal_obligation",
        "public": "legal_obligation public_task",
        "training": "consent legitimate_interest",
        "marketing": "consent",
    }
    asked = replace(CARE, purpose=purpose, basis=basis)
    tenant = CLINIC.model_copy(update={"purposes": {purpose: (basis,)}})
    decision = decide(asked, scan(), tenant, BOOK, NOW)
    assert (decision.action == "allow") is (basis in fits[purpose].split())
    unused = CLINIC.model_copy(update={"purposes": {purpose: ("other",)}})
    assert rules(decide(asked, scan(), unused, BOOK, NOW)) == {"gdpr-6"}


def test_residency_takes_arms_away() -> None:
    """An arm outside the tenant's regions is left out and the rule named; where no other is left, denied."""
    some = decide(replace(CARE, places=(OWN, ASIA)), scan(), CLINIC, BOOK, NOW)
    assert (some.action, some.arms, rules(some, "allow")) == ("allow", ("own",), {"gdpr-44"})
    none = decide(replace(CARE, places=(ASIA,)), scan(), CLINIC, BOOK, NOW)
    assert rules(none) == {"gdpr-44", "gate-no-arm"}
    nowhere = decide(replace(CARE, origin="br"), scan(), CLINIC, BOOK, NOW)
    assert "gdpr-44" in rules(nowhere)


def test_a_transfer_needs_a_tool_in_force() -> None:
    """Out of the area without a tool, with an unknown one, or past its end: that arm is left out, and alone it is denied."""
    for flow in (
        Flow(origin="eu", region="us-east"),
        Flow(origin="eu", region="us-east", tool="handshake"),
    ):
        tenant = CLINIC.model_copy(update={"flows": (CLINIC.flows[0], flow)})
        decision = decide(CARE, scan(), tenant, BOOK, NOW)
        assert (decision.arms, rules(decision, "allow")) == (("outside", "own"), {"gdpr-46"})
        assert "gdpr-46" in rules(decide(replace(CARE, places=(FAR,)), scan(), tenant, BOOK, NOW))
    assert decide(CARE, scan(), CLINIC, BOOK, LATER - 1).arms == ("far", "outside", "own")
    assert decide(CARE, scan(), CLINIC, BOOK, LATER).arms == ("outside", "own")


def test_confined_without_a_private_arm_is_denied() -> None:
    """Where only private arms may answer and the route has none, nobody answers."""
    decision = decide(replace(CARE, places=(OUTSIDE, FAR)), scan("health"), PLAIN, BOOK, NOW)
    assert rules(decision) == {"gate-no-arm"}
    assert rules(decision, "confine") == {"gdpr-9"}


def test_answers_are_judged_by_their_own_rules() -> None:
    """An answer needs no arm, no basis again; a secret in it is withheld, a phone number in it is replaced."""
    answer = Asked(where="answer", tenant="clinic")
    assert decide(answer, scan("health"), PLAIN, BOOK, NOW).action == "allow"
    assert decide(answer, scan("phone"), PLAIN, BOOK, NOW).masks == ("phone",)
    assert rules(decide(answer, scan("secret"), PLAIN, BOOK, NOW)) == {"soc2-cc6.7"}
    assert "gate-tenant" in rules(decide(answer, scan(), None, BOOK, NOW))


def test_curation_is_stricter() -> None:
    """A card number is replaced in a request and keeps a row out of a data set."""
    row = replace(CARE, where="curation", purpose="training", places=(OWN,))
    assert decide(row, scan("email"), PLAIN, BOOK, NOW).action == "mask"
    assert rules(decide(row, scan("card"), PLAIN, BOOK, NOW)) == {"soc2-c1.1"}


def test_a_threshold_leaves_uncertain_findings_out() -> None:
    """Below the tenant's threshold a finding does not count, at it it does."""
    tenant = PLAIN.model_copy(update={"thresholds": {"phone": 600}})
    assert decide(CARE, scan("phone", score=0.599), tenant, BOOK, NOW).masks == ()
    assert decide(CARE, scan("phone", score=0.6), tenant, BOOK, NOW).masks == ("phone",)


def test_a_threshold_hides_no_secret() -> None:
    """A rule that has no exemptions counts what is uncertain too: a threshold would be an exemption without an end."""
    tenant = CLINIC.model_copy(update={"thresholds": {"secret": 1000, "health": 1000}})
    assert rules(decide(CARE, scan("secret", score=0.6), tenant, BOOK, NOW)) == {"soc2-cc6.7"}
    unsure = decide(CARE, scan("health", score=0.6), tenant, BOOK, NOW)
    assert rules(unsure, "confine") == {"hipaa-164.312.e"}
    assert unsure.found == (("health", 1),)


def test_the_explanation_is_in_plain_words() -> None:
    """What was decided, then a line for each rule, the strongest first."""
    decision = decide(CARE, scan("secret", "email"), PLAIN, BOOK, NOW)
    assert decision.explanation.splitlines() == [
        "Denied.",
        "soc2-cc6.7: Credentials go to no model, no answer and no data set. Found: secret (1).",
        "soc2-p6.1: What names a person or a way to reach one is replaced. Found: email (1).",
    ]


def test_nothing_that_a_sender_wrote_is_repeated() -> None:
    """A value in place of a purpose, basis, notice, origin, class, kind or tenant stands in no part of the decision."""
    canary = "maria@example.org"
    asked = Asked("request", canary, canary, canary, canary, canary, (canary,), CARE.places)
    for row in (asked, replace(asked, tenant="clinic")):
        decision = decide(row, scan("email"), CLINIC, BOOK, NOW)
        assert decision.action == "deny"
        assert canary not in repr(decision)
        assert ("unknown", 0) in decision.found


def test_a_kind_without_a_rule_is_denied() -> None:
    """The standard rules know every kind that detectors find; a set that leaves one out denies it, and counts it as unknown."""
    named = {kind for rule in STANDARD.rules if isinstance(rule, KindRule) for kind in rule.kinds}
    assert {kind.value for kind in Kind} <= named
    rest = (rule for rule in STANDARD.rules if rule.id != "soc2-cc6.7")
    other = KindRule(id="x", words="y", family="secret", kinds=("other",), at={})
    book = Book.of(RuleSet(rules=(*rest, other)))
    decision = decide(CARE, scan("secret"), CLINIC, book, NOW)
    assert rules(decision) == {"gate-kind"}
    assert decision.found == (("unknown", 1),)


def test_digest_is_of_the_rules_not_of_their_order() -> None:
    """Order of rules and of names does not count; a version, a parameter, a date, a word does."""
    assert RuleSet(rules=STANDARD.rules[::-1]).digest() == STANDARD.digest()
    seen = {STANDARD.digest()}
    for number, rule in enumerate(STANDARD.rules):
        for change in ({"version": 2}, {"words": "Otherwise."}, {"until_ms": 5}, {"from_ms": 1}):
            changed = list(STANDARD.rules)
            changed[number] = rule.model_copy(update=change)
            seen.add(RuleSet(rules=tuple(changed)).digest())
    assert len(seen) == 1 + 4 * len(STANDARD.rules)
    kinds = KindRule(id="x", words="y", family="secret", kinds=("b", "a", "b"), at={})
    assert kinds == KindRule(id="x", words="y", family="secret", kinds=("a", "b"), at={})


def test_what_is_wrong_in_a_set_is_named() -> None:
    """A family that lacks, two versions in force at once, an answer that is confined, a time that ends before it begins."""
    with pytest.raises(ValidationError, match=r"none of the families \['size'\]"):
        RuleSet(rules=tuple(rule for rule in STANDARD.rules if rule.family != "size"))
    again = STANDARD.rules[0].model_copy(update={"version": 2, "from_ms": NOW})
    with pytest.raises(ValidationError, match=r"versions 1 and 2 of gdpr-5"):
        RuleSet(rules=(*STANDARD.rules, again))
    with pytest.raises(ValidationError, match="cannot be confined"):
        KindRule(id="x", words="y", family="special", kinds=("a",), at={"answer": "confine"})
    with pytest.raises(ValidationError, match="is not after from_ms"):
        Flow(origin="eu", region="eu", from_ms=5, until_ms=5)
    with pytest.raises(ValidationError, match="a time is missing"):
        Exemption(id="x", rule="gdpr-9", then="mask")
    with pytest.raises(ValidationError, match="a time is missing"):
        Baa(id="x")
    with pytest.raises(ValidationError, match="ids must differ"):
        GateTenant(tenant="a", exemptions=(CLINIC.exemptions[0], CLINIC.exemptions[0]))


def test_a_later_version_takes_over_at_its_time() -> None:
    """Of one id the version in force counts, and the decision names it."""
    old = next(rule for rule in STANDARD.rules if rule.id == "soc2-p6.1")
    assert isinstance(old, KindRule)
    rest = [rule for rule in STANDARD.rules if rule is not old]
    new = old.model_copy(update={"version": 2, "from_ms": LATER, "at": {"request": "deny"}})
    book = Book.of(RuleSet(rules=(*rest, old.model_copy(update={"until_ms": LATER}), new)))
    for at_ms, expected in ((LATER - 1, (1, "mask")), (LATER, (2, "deny"))):
        fired = next(row for row in decide(CARE, scan("npi"), PLAIN, book, at_ms).fired if row.rule == "soc2-p6.1")
        assert (fired.version, fired.action) == expected


def test_permissions_without_effect_are_named() -> None:
    """A configuration says when it is written what of it permits nothing."""
    assert without_effect(CLINIC, STANDARD) == ()
    idle = GateTenant(
        tenant="a",
        purposes={"care": ("public_task",)},
        flows=(Flow(origin="eu", region="us"),),
        thresholds={"iris": 5},
        exemptions=(
            Exemption(id="one", rule="soc2-cc6.7", then="allow", until_ms=5),
            Exemption(id="two", rule="soc2-p6.1", then="confine", until_ms=5),
            Exemption(id="three", rule="gdpr-9", then="mask", kinds=("card",), purposes=("fun",), until_ms=5),
        ),
    )
    told = without_effect(idle, STANDARD)
    assert [row.split(":")[0] for row in told] == [
        "purposes.care",
        "flows[0]",
        "thresholds.iris",
        "exemptions.one",
        "exemptions.two",
        "exemptions.three",
        "exemptions.three",
    ]


def test_what_counts_for_requests_that_do_not_say_must_be_the_tenants() -> None:
    """Else they would all be denied: each such field is named with what it may be."""
    own: dict[str, Any] = {"purposes": {"care": ("contract",), "support": ("consent",)}, "notices": ("n1",)}
    wrong = GateTenant(tenant="a", purpose="care", basis="consent", notice="n2", origin="eu", **own)
    assert without_effect(wrong, STANDARD) == (
        "basis: 'consent' is not the tenant's; accepted: ['contract']",
        "notice: 'n2' is not the tenant's; accepted: ['n1']",
        "origin: 'eu' is not the tenant's; accepted: []",
    )
    flows = (Flow(origin="eu", region="eu"),)
    right = GateTenant(tenant="a", purpose="care", basis="contract", notice="n1", origin="eu", flows=flows, **own)
    assert without_effect(right, STANDARD) == ()
    assert without_effect(GateTenant(tenant="a", basis="consent", **own), STANDARD) == ()
    (told,) = without_effect(GateTenant(tenant="a", purpose="fun", **own), STANDARD)
    assert told == "purpose: 'fun' is not the tenant's; accepted: ['care', 'support']"


def test_ids_of_the_gate_itself_are_no_rule_ids() -> None:
    """What is closed by the gate and what a rule denies cannot be confused."""
    assert all(name.startswith("gate-") for name in CLOSED)
    assert not {rule.id for rule in STANDARD.rules} & CLOSED.keys()
