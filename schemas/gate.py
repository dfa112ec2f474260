"""What the gate decides by: rules, a tenant's configuration, and what detectors found. Data only; `agents.rules.gate` decides.

1. A rule is data: control id, version, the time in which it is in force, parameters. A set has one digest (JCS), whatever its order.
2. A tenant's configuration holds permissions, each with an end where it has one. Without one nothing is permitted.
"""

import re
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, Self, get_args

from pydantic import AfterValidator, Field, model_validator

from schemas import canonical
from schemas.findings import Finding
from schemas.ids import digest
from schemas.payload import ID_PATTERN, Strict
from schemas.value import value

Action = Literal["allow", "mask", "confine", "deny"]
ACTIONS: Final[tuple[Action, ...]] = get_args(Action)
"""Weakest first: of several the last one counts."""
Where = Literal["request", "answer", "curation"]
Family = Literal["purpose", "basis", "residency", "transfer", "special", "identifier", "secret", "size"]
FAMILIES: Final[tuple[Family, ...]] = get_args(Family)

_SET_VERSION: Final = 1  # of what the digest is taken of
FIRST_KEY: Final = 0
"""The id of the first of the gate's keys; of any other it is the time from which it seals and marks, in epoch milliseconds."""
KEY_GONE: Final = "gate-key"
"""The kind of refusal of what was sealed under a key that is not held."""
# No digit: these stand in evidence as they are, and nobody's number fits in.
PURPOSE_PATTERN: Final = r"^[a-z][a-z_-]{0,47}$"

Token = Annotated[str, Field(pattern=ID_PATTERN)]
Label = Annotated[str, Field(pattern=PURPOSE_PATTERN)]
Ms = Annotated[int, Field(ge=0, lt=1 << 53)]


def _as_set(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


def _named(rows: dict[str, Any], pattern: str = ID_PATTERN) -> dict[str, Any]:
    """Keys are tokens: said by hand, for JSON Schema's way to say it cannot be judged for compatibility."""
    if any(re.fullmatch(pattern, name) is None for name in rows):
        raise ValueError(f"names match {pattern}")
    return rows


def _labelled(rows: dict[str, Any]) -> dict[str, Any]:
    return _named(rows, PURPOSE_PATTERN)


Labels = Annotated[tuple[Label, ...], AfterValidator(_as_set)]
Tokens = Annotated[tuple[Token, ...], AfterValidator(_as_set)]
Wheres = Annotated[tuple[Where, ...], AfterValidator(_as_set)]


def severity(action: Action) -> int:
    """Its place in deny > confine > mask > allow."""
    return ACTIONS.index(action)


class Timed(Strict):
    """In force from `from_ms` until before `until_ms`; None: without an end."""

    from_ms: Ms = 0
    until_ms: Ms | None = None

    @model_validator(mode="after")
    def _some_time(self) -> Self:
        if self.until_ms is not None and self.until_ms <= self.from_ms:
            raise ValueError(f"until_ms: {self.until_ms} is not after from_ms {self.from_ms}")
        return self

    def in_force(self, at_ms: int) -> bool:
        """Whether it counts at that time."""
        return self.from_ms <= at_ms and (self.until_ms is None or at_ms < self.until_ms)


class Ending(Timed):
    """A permission that always has an end."""

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.until_ms is None:
            raise ValueError("until_ms: a time is missing at which it ends; accepted: Unix epoch milliseconds")
        return self


class Rule(Timed):
    """`id`: the control that it serves. `words`: what it demands, for whoever is refused."""

    id: Token
    version: int = Field(default=1, ge=1, lt=1 << 31)
    words: str = Field(min_length=1, max_length=400)


class PlacedRule(Rule):
    """A rule that denies, at the places that it names."""

    where: Wheres = ("curation", "request")


class PurposeRule(PlacedRule):
    """The purpose is one of the tenant's, and the person was shown a notice that the tenant names, where `notice` asks for it."""

    family: Literal["purpose"] = "purpose"
    notice: bool = True


class BasisRule(PlacedRule):
    """A purpose goes with the legal bases that `matrix` names for it, of which the tenant relies on some."""

    family: Literal["basis"] = "basis"
    matrix: dict[Token, Tokens]


class ResidencyRule(PlacedRule):
    """Computed only where a flow of the tenant leads from the data's origin."""

    family: Literal["residency"] = "residency"


class TransferRule(PlacedRule):
    """A flow out of the origin's area stands on a tool. Between the regions of one area none is needed."""

    family: Literal["transfer"] = "transfer"
    tools: Tokens
    areas: dict[Token, Tokens]

    def needs_tool(self, origin: str, region: str) -> bool:
        """Whether data leaves its area on that way."""
        return origin != region and not any(origin in area and region in area for area in self.areas.values())


class KindRule(Rule):
    """What happens to findings of some kinds, and to data classes that the sender names, by place; a place left out: nothing.

    `only_hipaa`: for tenants under HIPAA alone. `under_baa`: instead, while the tenant has a BAA. `exemptible`: whether a tenant's
    exemption may weaken it. An answer cannot be confined: no arm follows it.
    """

    family: Literal["special", "identifier", "secret"]
    kinds: Tokens
    at: dict[Where, Action]
    under_baa: dict[Where, Action] = Field(default={})
    only_hipaa: bool = False
    exemptible: bool = True

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if "confine" in (self.at.get("answer"), self.under_baa.get("answer")):
            raise ValueError(f"rule {self.id}: an answer cannot be confined; accepted: allow, mask, deny")
        return self


class SizeRule(Rule):
    """The longest text that is scanned, all of a request's texts together, and the time that scanning may take."""

    family: Literal["size"] = "size"
    characters: int = Field(ge=1, lt=1 << 31)
    scan_us: int = Field(default=20_000, ge=1, lt=1 << 31)


AnyRule = Annotated[
    PurposeRule | BasisRule | ResidencyRule | TransferRule | KindRule | SizeRule, Field(discriminator="family")
]


class RuleSet(Strict):
    """All families, at least one rule each; of one id at most one version at any time."""

    rules: tuple[AnyRule, ...]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        lacking = [family for family in FAMILIES if all(rule.family != family for rule in self.rules)]
        if lacking:
            raise ValueError(f"rules: none of the families {lacking}; accepted: at least one of each")
        for one, next_one in pairwise(sorted(self.rules, key=lambda rule: (rule.id, rule.from_ms, rule.version))):
            if one.id == next_one.id and (one.until_ms is None or one.until_ms > next_one.from_ms):
                raise ValueError(
                    f"rules: versions {one.version} and {next_one.version} of {one.id} are in force at one time"
                )
        return self

    def digest(self) -> str:
        """`sha256:` of the set's JCS bytes. The order of the rules, and of names within one, does not count."""
        rows = sorted(canonical.encode(rule.model_dump(mode="json")) for rule in self.rules)
        return digest(canonical.encode({"v": _SET_VERSION, "rules": [canonical.decode(row) for row in rows]}))


class Flow(Timed):
    """Data from `origin` may be computed in `region`; out of its area it stands on `tool` (such as `scc`)."""

    origin: Token
    region: Token
    tool: Token | None = None


class Exemption(Ending):
    """What a tenant may do though `rule` says more: at most `then` happens. It always ends.

    Empty `kinds`, `purposes`, `where`: all of the rule.
    """

    id: Token
    rule: Token
    then: Action
    kinds: Tokens = ()
    purposes: Tokens = ()
    where: Wheres = ()

    def covers(self, rule: str, kind: str, purpose: str | None, where: Where, at_ms: int) -> bool:
        """Whether it speaks of this."""
        return (
            self.rule == rule
            and self.in_force(at_ms)
            and (not self.kinds or kind in self.kinds)
            and (not self.purposes or purpose in self.purposes)
            and (not self.where or where in self.where)
        )


class Baa(Ending):
    """A business associate agreement."""

    id: Token


class Hold(Timed):
    """A legal hold: what is kept of a subject (a pseudonym) must not be erased; without one: of all subjects."""

    id: Token
    subject: str | None = Field(default=None, pattern=r"^[0-9a-f]{32}$")


class GateTenant(Strict):
    """What one tenant is permitted. `thresholds`: kind -> thousandths of a score below which a finding does not count.

    `purpose`, `basis`, `notice`, `origin`: of requests that do not say. `private_arms`: to which confined texts may go. `notify_hours`:
    from when somebody is aware of a breach until the authority must be notified.
    """

    tenant: Token
    version: int = Field(default=1, ge=1, lt=1 << 31)
    purposes: Annotated[dict[str, Labels], AfterValidator(_labelled)] = Field(
        default={}, description="Purpose -> the legal bases that it rests on."
    )
    notices: Tokens = ()
    flows: tuple[Flow, ...] = ()
    purpose: Label | None = None
    basis: Label | None = None
    notice: Token | None = None
    origin: Token | None = None
    private_arms: Tokens = ()
    hipaa: bool = False
    baa: Baa | None = None
    exemptions: tuple[Exemption, ...] = ()
    thresholds: Annotated[dict[str, Annotated[int, Field(ge=0, le=1000)]], AfterValidator(_named)] = Field(default={})
    retention_days: int = Field(default=183, ge=1, le=36_500)
    notify_hours: int = Field(default=72, ge=1, le=8784)
    holds: tuple[Hold, ...] = ()

    @model_validator(mode="after")
    def _ids_differ(self) -> Self:
        for field, rows in (("exemptions", self.exemptions), ("holds", self.holds)):
            names = [row.id for row in rows]
            if len(set(names)) != len(names):
                raise ValueError(f"{field}: ids must differ, got {names}")
        return self


@value
class Scan:
    """What the detectors did: the findings of each text, in the order of the texts. `failed`: one raised or did not end."""

    findings: tuple[tuple[Finding, ...], ...]
    characters: int
    spent_us: int
    failed: bool = False
