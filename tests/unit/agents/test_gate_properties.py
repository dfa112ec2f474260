"""What holds of every decision of the gate: nothing more, and no permission less, ever relaxes it."""

from dataclasses import replace

from gates import ASIA, BOOK, CLINIC, FAR, LATER, NOW, OUTSIDE, OWN, finding
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.rules.gate import CLOSED, Asked, Book, GateDecision, decide
from agents.rules.gate_standard import STANDARD
from schemas.findings import Finding, Kind
from schemas.gate import Baa, Exemption, Flow, GateTenant, RuleSet, Scan, severity

FINDINGS = st.builds(
    Finding, st.sampled_from(Kind), st.just(0), st.just(5), st.just("test"), st.sampled_from((0.4, 0.8, 1.0))
)
SCANS = st.builds(
    Scan,
    st.lists(FINDINGS, max_size=5).map(lambda found: (tuple(found),)),
    st.sampled_from((500, 50_001)),
    st.sampled_from((90, 20_001)),
    st.sampled_from((False, False, False, True)),
)
TIMES = st.sampled_from((NOW, LATER - 1, LATER))
PLACES = st.lists(st.sampled_from((OWN, OUTSIDE, FAR, ASIA)), max_size=4, unique=True).map(tuple)
ASKED = st.builds(
    Asked,
    st.sampled_from(("request", "answer", "curation")),
    st.sampled_from(("clinic", "clinic", "clinic", "other")),
    st.sampled_from(("care", "care", "training", "marketing", None)),
    st.sampled_from(("consent", "contract", None)),
    st.sampled_from(("notice-2", "notice-1", None)),
    st.sampled_from(("eu", "br", None)),
    st.sampled_from(((), (), ("religion",), ("iris",))),
    PLACES,
)
EXEMPTIONS = st.lists(
    st.builds(
        Exemption,
        id=st.uuids().map(str),
        rule=st.sampled_from([rule.id for rule in STANDARD.rules]),
        then=st.sampled_from(("allow", "mask", "confine", "deny")),
        kinds=st.sampled_from(((), ("health",), ("email", "card"))),
        until_ms=st.sampled_from((LATER, LATER + 1)),
    ),
    max_size=4,
).map(tuple)
TENANTS = st.builds(
    lambda exemptions, hipaa, baa, private, flows: CLINIC.model_copy(
        update={
            "exemptions": exemptions,
            "hipaa": hipaa,
            "baa": baa,
            "private_arms": private,
            "flows": flows,
            "thresholds": {"phone": 500},
        }
    ),
    EXEMPTIONS,
    st.booleans(),
    st.sampled_from((None, CLINIC.baa)),
    st.sampled_from(((), ("own",), ("own", "far"))),
    st.sampled_from((CLINIC.flows, CLINIC.flows[:1], (*CLINIC.flows, Flow(origin="eu", region="ap-south")))),
)


def no_weaker(after: GateDecision, before: GateDecision) -> None:
    """No weaker action, no arm or region more; no kind unmasked unless a rule does more for it than mask."""
    assert severity(after.action) >= severity(before.action)
    assert {*after.arms} <= {*before.arms}
    assert {*after.regions} <= {*before.regions}
    held = {kind for fired in after.fired if severity(fired.action) > severity("mask") for kind in fired.kinds}
    assert {*after.masks} | held >= {*before.masks}


def without_one(tenant: GateTenant) -> list[GateTenant | None]:
    """The configuration with each of its permissions taken away, one at a time."""
    changes: list[dict[str, object]] = [{"baa": None}, {"origin": None}, {"notices": ()}, {"thresholds": {}}]
    for name in ("flows", "private_arms", "exemptions"):
        rows = getattr(tenant, name)
        changes += ({name: rows[:at] + rows[at + 1 :]} for at in range(len(rows)))
    for purpose, bases in tenant.purposes.items():
        changes.append({"purposes": {name: row for name, row in tenant.purposes.items() if name != purpose}})
        changes += (
            {"purposes": {**tenant.purposes, purpose: tuple(one for one in bases if one != basis)}} for basis in bases
        )
    return [None, *(tenant.model_copy(update=change) for change in changes)]


@given(ASKED, SCANS, TENANTS, TIMES, FINDINGS)
def test_another_finding_never_relaxes(asked: Asked, scan: Scan, tenant: GateTenant, at_ms: int, more: Finding) -> None:
    """Whatever was decided, with one finding more it is no weaker; nor when a detector fails, or time or size run over."""
    before = decide(asked, scan, tenant, BOOK, at_ms)
    for worse in (
        replace(scan, findings=(*scan.findings, (more,))),
        replace(scan, failed=True),
        replace(scan, spent_us=10**6),
        replace(scan, characters=10**6),
    ):
        no_weaker(decide(asked, worse, tenant, BOOK, at_ms), before)
    no_weaker(decide(replace(asked, classes=(*asked.classes, "health")), scan, tenant, BOOK, at_ms), before)


@settings(deadline=None)  # many decisions an example
@given(ASKED, SCANS, TENANTS, TIMES)
def test_a_permission_less_never_relaxes(asked: Asked, scan: Scan, tenant: GateTenant, at_ms: int) -> None:
    """Each permission of a tenant, taken away, leaves a decision that is no weaker."""
    before = decide(asked, scan, tenant, BOOK, at_ms)
    for poorer in without_one(tenant):
        no_weaker(decide(asked, scan, poorer, BOOK, at_ms), before)


@settings(deadline=None)  # many decisions an example
@given(ASKED, SCANS, TENANTS, TIMES)
def test_no_permission_widens_another(asked: Asked, scan: Scan, tenant: GateTenant, at_ms: int) -> None:
    """What two permissions of one kind allow together, one of them allows alone: a flow's tool or end is not lent to another flow, nor an
    exemption's kinds, purposes or end to another exemption."""
    together = decide(asked, scan, tenant, BOOK, at_ms)
    by_flow = [decide(asked, scan, tenant.model_copy(update={"flows": (flow,)}), BOOK, at_ms) for flow in tenant.flows]
    assert {*together.regions} <= {region for one in by_flow for region in one.regions}
    alone = [
        decide(asked, scan, tenant.model_copy(update={"exemptions": rows}), BOOK, at_ms)
        for rows in ((), *((row,) for row in tenant.exemptions))
    ]
    for fired in together.fired:
        for kind in fired.kinds:
            assert fired.action in [
                of.action for one in alone for of in one.fired if of.rule == fired.rule and kind in of.kinds
            ]


@given(ASKED, SCANS, TENANTS)
def test_time_alone_only_takes_permissions_away(asked: Asked, scan: Scan, tenant: GateTenant) -> None:
    """Where every permission has begun, a later decision is no weaker than an earlier one."""
    no_weaker(decide(asked, scan, tenant, BOOK, LATER), decide(asked, scan, tenant, BOOK, NOW))


@given(ASKED, SCANS, TENANTS, TIMES)
def test_the_action_is_that_of_the_strongest_rule_named(
    asked: Asked, scan: Scan, tenant: GateTenant, at_ms: int
) -> None:
    """Nothing is stricter than allow without a rule that is named for it, in the explanation too; the same call gives the same."""
    decision = decide(asked, scan, tenant, BOOK, at_ms)
    assert severity(decision.action) == max((severity(fired.action) for fired in decision.fired), default=0)
    known = {rule.id for rule in STANDARD.rules} | CLOSED.keys()
    for fired in decision.fired:
        assert fired.rule in known
        assert f"{fired.rule}: " in decision.explanation
    assert decision == decide(asked, scan, tenant, BOOK, at_ms)
    if decision.action == "confine":
        assert {*decision.arms} <= {*tenant.private_arms}
    if asked.where != "answer" and decision.action != "deny":
        assert decision.arms


@settings(deadline=None)  # many decisions an example
@given(ASKED, SCANS, TENANTS, TIMES, st.sampled_from([rule.id for rule in STANDARD.rules]))
def test_every_rule_that_speaks_is_named(
    asked: Asked, scan: Scan, tenant: GateTenant, at_ms: int, rule_id: str
) -> None:
    """A rule is in the decision exactly when the set without it, all else equal, would not hold it: none hides behind another."""
    full = decide(asked, scan, tenant, BOOK, at_ms)
    quiet = tuple(rule.model_copy(update={"until_ms": 1}) if rule.id == rule_id else rule for rule in STANDARD.rules)
    less = decide(asked, scan, tenant, Book.of(RuleSet(rules=quiet)), at_ms)
    mine = {fired.rule for fired in full.fired} - {"gate-kind", "gate-rules", *CLOSED}
    others = {fired.rule for fired in less.fired} - {*CLOSED}
    assert mine - {rule_id} == others
    assert rule_id not in others


@given(st.text(min_size=1), SCANS, TENANTS)
def test_what_is_said_depends_on_no_text(text: str, scan: Scan, tenant: GateTenant) -> None:
    """Two unknown words in each field of a request give the same decision: none of them can be read from it."""
    one, other = (
        Asked("request", "clinic", word, word, word, word, (word,), (OWN,)) for word in (f"~{text}", "~something")
    )
    assert decide(one, scan, tenant, BOOK, NOW) == decide(other, scan, tenant, BOOK, NOW)


def test_a_permission_that_is_there_does_permit() -> None:
    """The properties above are about something: taking a permission away changes decisions, each of them some."""
    health = Scan(((finding("health"), finding("phone", 9, 12, 0.4)),), 500, 90)
    tenant = CLINIC.model_copy(update={"thresholds": {"phone": 500}, "baa": Baa(id="b", until_ms=LATER)})
    cases = [
        Asked("request", "clinic", purpose, basis, "notice-2", None, (), (OWN, FAR))
        for purpose, basis in (("care", "consent"), ("care", "contract"), ("training", "consent"))
    ]
    for poorer in without_one(tenant):
        assert any(
            decide(asked, scan, poorer, BOOK, NOW) != decide(asked, scan, tenant, BOOK, NOW)
            for asked in cases
            for scan in (health, replace(health, findings=()))
        )
