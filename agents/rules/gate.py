"""The gate: whether a text may go on, to which arms, and what of it must be replaced first. Pure; what was found is passed in.

1. deny > confine (private arms only) > mask > allow. Every rule that fired is named, and a stronger action lifts no weaker
   one: a confined text is masked as well.
2. What is not known is not permitted: an unknown tenant, no purpose, no basis, a detector that failed or took too long, a text that is
   too long, a kind that no rule knows, a family without a rule in force, no arm left. Each denies under an id of its own (`CLOSED`).
3. Another finding, or a permission less, never relaxes: the action gets no weaker, no arm is added, and what was
   replaced still is, unless a rule now confines or denies for it.
4. The same function for requests, answers and curation: what differs stands in the rules (`where`, `at`).
5. Nothing that a sender wrote is repeated: explanations are made of words of rules, names in them, and counts.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final, Self

from schemas.gate import (
    ACTIONS,
    FAMILIES,
    Action,
    AnyRule,
    BasisRule,
    GateTenant,
    KindRule,
    PurposeRule,
    ResidencyRule,
    RuleSet,
    Scan,
    SizeRule,
    TransferRule,
    Where,
    severity,
)
from schemas.value import value

CLOSED: Final = {
    "gate-tenant": "Nothing is configured for this tenant.",
    "gate-rules": "A part of the rules is not in force at this time.",
    "gate-detector": "A detector failed, so the text is not known to be clean.",
    "gate-time": "Scanning took longer than it may, so the text is not known to be clean.",
    "gate-kind": "Something was found or named that no rule knows.",
    "gate-purpose": "No purpose is named.",
    "gate-basis": "No legal basis is named.",
    "gate-no-arm": "No arm is left that may compute it.",
    "gate-id": "An id, a notice or a need holds what names a person, an account or a credential.",
    "gate-map": "What placeholders stand for could not be opened.",
}
_HEADS: Final[dict[Action, str]] = {
    "deny": "Denied.",
    "confine": "Goes to private arms only.",
    "mask": "Goes on with values replaced.",
    "allow": "Goes on.",
}
UNKNOWN: Final = "unknown"


@value
class Place:
    """An arm that could compute it, or the job that would train on it, and its region."""

    arm: str
    region: str


@value
class Asked:
    """What is asked, as the sender says. `classes`: data classes that the sender names.

    `places`: the arms of the route; in curation the job.
    """

    where: Where
    tenant: str
    purpose: str | None = None
    basis: str | None = None
    notice: str | None = None
    origin: str | None = None
    classes: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()


@value
class Fired:
    """A rule that had a part. `version` 0: of the gate itself. `kinds`: those it fired for. `exemption`: the one that weakened it."""

    rule: str
    version: int
    action: Action
    why: str
    kinds: tuple[str, ...] = ()
    exemption: str | None = None


@value
class GateDecision:
    """`arms`, `regions`: where it may be computed, sorted; none when denied, and for an answer. `masks`: kinds to replace.

    `found`: kinds and counts, those without a rule as `unknown`. `digest`: of the rules. `tenant_version`: 0 where nothing is configured.
    """

    action: Action
    fired: tuple[Fired, ...]
    digest: str
    tenant_version: int
    masks: tuple[str, ...]
    arms: tuple[str, ...]
    regions: tuple[str, ...]
    found: tuple[tuple[str, int], ...]
    retention_days: int | None
    explanation: str


@value
class InForce:
    """The rules of a time, and what follows from them. `kinds`: a rule's. `whole`: every family has one."""

    rules: tuple[AnyRule, ...]
    kinds: Mapping[str, frozenset[str]]
    named: frozenset[str]
    whole: bool


@dataclass(frozen=True, slots=True)
class Book:
    """A set of rules, made ready once: `decide` is called per text."""

    rules: tuple[AnyRule, ...]
    digest: str
    _edges: tuple[int, ...] = field(default=(), init=False, repr=False, compare=False)
    _ready: dict[int, InForce] = field(default_factory=dict[int, InForce], init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ends = (rule.until_ms for rule in self.rules if rule.until_ms is not None)
        object.__setattr__(self, "_edges", tuple(sorted({*(rule.from_ms for rule in self.rules), *ends})))

    @classmethod
    def of(cls, rules: RuleSet) -> Self:
        """The set in the order of ids, with its digest."""
        return cls(tuple(sorted(rules.rules, key=lambda rule: (rule.id, rule.from_ms))), rules.digest())

    def at(self, at_ms: int) -> InForce:
        """What is in force then: the same from one beginning or end of a rule to the next, so made once for each."""
        period = bisect_right(self._edges, at_ms)
        found = self._ready.get(period)
        if found is None:
            rules = tuple(rule for rule in self.rules if rule.in_force(at_ms))
            kinds = {rule.id: frozenset(rule.kinds) for rule in rules if isinstance(rule, KindRule)}
            named = frozenset(chain.from_iterable(kinds.values()))
            found = InForce(rules, kinds, named, {rule.family for rule in rules} >= {*FAMILIES})
            self._ready[period] = found
        return found


def decide(asked: Asked, scan: Scan, tenant: GateTenant | None, book: Book, at_ms: int) -> GateDecision:
    """The decision. The same arguments give the same one; `at_ms` is the event's time."""
    known = tenant if tenant is not None and tenant.tenant == asked.tenant else None
    now, least, counts = book.at(at_ms), _least(known), _counts(scan, asked, {})
    case = _Case(asked, scan, known, at_ms, counts, _counts(scan, asked, least) if least else counts)
    case.close("gate-tenant", known is None)
    case.close("gate-rules", not now.whole)
    case.close("gate-detector", scan.failed)
    case.close("gate-kind", not counts.keys() <= now.named)
    for rule in now.rules:
        match rule:
            case KindRule():
                if not now.kinds[rule.id].isdisjoint(counts):
                    case.kinds(rule)
            case SizeRule():
                case.size(rule)
            case PurposeRule() | BasisRule() | ResidencyRule() | TransferRule():
                if asked.where in rule.where:
                    case.placed(rule)
    return case.decision(book.digest, now.named)


def closed(decision: GateDecision, rule: str) -> GateDecision:
    """The decision, denied under one more id of `CLOSED`."""
    fired = (*decision.fired, Fired(rule, 0, "deny", CLOSED[rule]))
    return replace(decision, action="deny", fired=fired, arms=(), regions=(), explanation=_explained("deny", fired))


@dataclass(slots=True)
class _Case:
    """One decision in the making. `left`: the places that no rule has taken away so far.

    `certain`: of `counts` those that reach the tenant's thresholds. A rule without exemptions counts all: a threshold is one too.
    """

    asked: Asked
    scan: Scan
    tenant: GateTenant | None
    at_ms: int
    counts: Counter[str]
    certain: Counter[str]
    fired: list[Fired] = field(default_factory=list[Fired])
    masks: set[str] = field(default_factory=set[str])
    left: list[Place] = field(default_factory=list[Place])

    def __post_init__(self) -> None:
        self.left = list(self.asked.places)

    def close(self, rule: str, when: bool) -> None:
        """Denies under an id of the gate's own, once."""
        if when and all(fired.rule != rule for fired in self.fired):
            self.fired.append(Fired(rule, 0, "deny", CLOSED[rule]))

    def fire(self, rule: AnyRule, action: Action, detail: str) -> None:
        self.fired.append(Fired(rule.id, rule.version, action, f"{rule.words} {detail}"))

    def kinds(self, rule: KindRule) -> None:
        if rule.only_hipaa and self.tenant is not None and not self.tenant.hipaa:
            return
        base = self._base(rule)
        if base is None:
            return
        by_action: dict[tuple[Action, str | None], list[str]] = {}
        counts = self.certain if rule.exemptible else self.counts
        for kind in sorted(counts):
            if kind in rule.kinds:
                by_action.setdefault(self._weakened(rule, kind, base), []).append(kind)
        for (action, exemption), kinds in sorted(by_action.items(), key=lambda row: (-severity(row[0][0]), row[1])):
            if action == "mask":
                self.masks.update(kinds)
            told = ", ".join(f"{kind} ({counts[kind] or 'named'})" for kind in kinds)
            why = f"{rule.words} Found: {told}."
            self.fired.append(Fired(rule.id, rule.version, action, why, tuple(kinds), exemption))

    def _base(self, rule: KindRule) -> Action | None:
        """What the rule says here before exemptions; a BAA never makes it stricter."""
        base = rule.at.get(self.asked.where)
        baa = self.tenant.baa if self.tenant is not None else None
        if base is None or baa is None or not baa.in_force(self.at_ms):
            return base
        return min(base, rule.under_baa.get(self.asked.where, base), key=severity)

    def _weakened(self, rule: KindRule, kind: str, base: Action) -> tuple[Action, str | None]:
        best: tuple[Action, str | None] = (base, None)
        if self.tenant is None or not rule.exemptible:
            return best
        for exemption in self.tenant.exemptions:
            if exemption.then == "confine" and self.asked.where == "answer":
                continue  # no arm follows an answer: confined, it would simply go out
            weaker = severity(exemption.then) < severity(best[0])
            if weaker and exemption.covers(rule.id, kind, self.asked.purpose, self.asked.where, self.at_ms):
                best = (exemption.then, exemption.id)
        return best

    def size(self, rule: SizeRule) -> None:
        self.close("gate-time", self.scan.spent_us > rule.scan_us)
        if self.scan.characters > rule.characters:
            self.fire(rule, "deny", f"{self.scan.characters} characters; accepted: at most {rule.characters}.")

    def placed(self, rule: PurposeRule | BasisRule | ResidencyRule | TransferRule) -> None:
        self.close("gate-purpose", isinstance(rule, PurposeRule) and self.asked.purpose is None)
        self.close("gate-basis", isinstance(rule, BasisRule) and self.asked.basis is None)
        if self.tenant is None:
            return
        match rule:
            case PurposeRule():
                self._purpose(rule, self.tenant)
            case BasisRule():
                self._basis(rule, self.tenant)
            case ResidencyRule():
                self._narrow(rule, self._regions(self.tenant, None))
            case TransferRule():
                self._narrow(rule, self._regions(self.tenant, rule), self._regions(self.tenant, None))

    def _purpose(self, rule: PurposeRule, tenant: GateTenant) -> None:
        if self.asked.purpose is not None and self.asked.purpose not in tenant.purposes:
            self.fire(rule, "deny", f"The purpose is none of the tenant's: {_listed(tenant.purposes)}.")
        if rule.notice and self.asked.notice not in tenant.notices:
            self.fire(rule, "deny", f"The notice is none of those in use: {_listed(tenant.notices)}.")

    def _basis(self, rule: BasisRule, tenant: GateTenant) -> None:
        purpose, basis = self.asked.purpose, self.asked.basis
        if purpose is None or basis is None:
            return  # denied already, under an id of its own
        fitting = {*rule.matrix.get(purpose, ())} & {*tenant.purposes.get(purpose, ())}
        if basis not in fitting:
            self.fire(rule, "deny", f"Accepted for this purpose: {_listed(fitting)}.")

    def _regions(self, tenant: GateTenant, transfer: TransferRule | None) -> set[str]:
        """Where flows of the tenant lead; of those out of the area, with `transfer`, the ones on a tool that it knows."""
        origin = self.asked.origin or tenant.origin
        return {
            flow.region
            for flow in tenant.flows
            if flow.origin == origin
            and flow.in_force(self.at_ms)
            and (transfer is None or not transfer.needs_tool(flow.origin, flow.region) or flow.tool in transfer.tools)
        }

    def _narrow(self, rule: AnyRule, regions: set[str], of: set[str] | None = None) -> None:
        """Takes the places outside `regions` away. Denies where it leaves none of those in `of` (None: of all)."""
        before = [place for place in self.asked.places if of is None or place.region in of]
        away = sum(place.region not in regions for place in before)
        self.left = [place for place in self.left if place.region in regions]
        if away:
            detail = f"Accepted regions: {_listed(regions)}; arms left out: {away} of {len(before)}."
            self.fire(rule, "deny" if away == len(before) else "allow", detail)

    def decision(self, digest: str, named: frozenset[str]) -> GateDecision:
        asked, tenant = self.asked, self.tenant
        action = self._strongest()
        if action == "confine":
            private = tenant.private_arms if tenant is not None else ()
            self.left = [place for place in self.left if place.arm in private]
        if asked.where != "answer":
            self.close("gate-no-arm", not self.left)
        action = self._strongest()
        left = self.left if action != "deny" else []
        fired = tuple(self.fired)
        found = Counter[str]()
        for kind, count in self.counts.items():
            found[kind if kind in named else UNKNOWN] += count
        return GateDecision(
            action=action,
            fired=fired,
            digest=digest,
            tenant_version=0 if tenant is None else tenant.version,
            masks=tuple(sorted(self.masks)),
            arms=tuple(sorted({place.arm for place in left})),
            regions=tuple(sorted({place.region for place in left})),
            found=tuple(sorted(found.items())),
            retention_days=None if tenant is None else tenant.retention_days,
            explanation=_explained(action, fired),
        )

    def _strongest(self) -> Action:
        return ACTIONS[max((severity(fired.action) for fired in self.fired), default=0)]


def _explained(action: Action, fired: Iterable[Fired]) -> str:
    """What was decided and why, strongest rule first, a line each."""
    rows = sorted(fired, key=lambda one: (-severity(one.action), one.rule))
    return "\n".join(
        [
            _HEADS[action],
            *(
                f"{one.rule}: {one.why}" + (f" Weakened by exemption {one.exemption}." if one.exemption else "")
                for one in rows
            ),
        ]
    )


def _least(tenant: GateTenant | None) -> Mapping[str, int]:
    return {} if tenant is None else tenant.thresholds


def _counts(scan: Scan, asked: Asked, least: Mapping[str, int]) -> Counter[str]:
    """Findings by kind that score no less than `least`, and named data classes, with 0 where nothing was found."""
    counts = Counter[str]()
    for one in chain.from_iterable(scan.findings):
        if round(one.score * 1000) >= least.get(one.kind, 0):
            counts[one.kind.value] += 1
    for name in asked.classes:
        counts.setdefault(name, 0)
    return counts


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
