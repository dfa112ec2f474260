"""How each check of the catalogue assesses: a rule over the facts of one entry, or a fold. Pure.

Facts of events that nobody emits yet are read as these rules say:

|event|facts|
|---|---|
|access.checked|`check`: role, transport or principal; `passed`|
|config.observed, drill.completed|`passed`|
|deid.applied|`classes`, a number; `unsupported`, a list of names|
|subject.erased|`hold_checked`, `keys` (how many), `effective_at_ms`|
|incident.STATE|`incident`, its id; `aware_at_ms`; `high_risk`|
|decision.routed, answer.refused|`gate`: `action`, `rules` (fired), `purpose`, `basis`, `registered`|
|answer.released|`marked`|
|export.made of the kind `subject`|`entries`; `expected`, how many the log had|
"""

from collections.abc import Callable, Iterable, Mapping

from agents.evidence.folds import (
    Accurate,
    Check,
    End,
    Grounded,
    Incidents,
    Intact,
    Judged,
    Marked,
    Overseen,
    Requests,
    Signed,
    Unbroken,
    Value,
    Watched,
    part,
)


class Each(Check):
    """Each entry of a type is a case by itself: `rule` says whether it holds, None that it is no case."""

    def __init__(self, types: tuple[str, ...], rule: Callable[[Value], bool | None]) -> None:
        super().__init__()
        self.types = types
        self._rule = rule

    def take(self, index: int, value: Value) -> None:
        holds = self._rule(part(value, "facts"))
        if holds is not None:
            self.case(index, holds=holds)


_PRIVATE = frozenset({"privacy", "residency"})
_STRICT = frozenset({"personal", "secret"})


def confined(facts: Value) -> bool | None:
    """Of a decision: whether the text goes to no arm that may not have it, shadows and fallbacks included."""
    routing, action = part(facts, "routing"), part(facts, "gate").get("action")
    if routing.get("sensitivity") not in _STRICT and action not in ("deny", "confine", "mask"):
        return None
    asked = {facts.get("arm"), facts.get("second_arm")}
    for name in ("chain", "shadows", "hedges"):
        asked.update(facts.get(name, ()))
    masked = {
        row["arm"] for row in facts.get("arms", ()) if "arm" in row and _PRIVATE.intersection(row.get("masks", ()))
    }
    return action != "deny" and not asked & masked and not _PRIVATE.intersection(routing.get("relaxed", ()))


def gated(holds: Callable[[Value], bool | None]) -> Callable[[Value], bool | None]:
    """A rule over what the gate said; a record that it did not see is no case."""

    def rule(facts: Value) -> bool | None:
        gate = part(facts, "gate")
        return holds(gate) if gate else None

    return rule


def purposed(gate: Value) -> bool:
    return gate.get("action") == "deny" or bool(gate.get("purpose") and gate.get("basis"))


def registered(gate: Value) -> bool:
    return gate.get("action") == "deny" or gate.get("registered") is True


def fired(*words: str) -> Callable[[Value], bool | None]:
    """A rule whose id holds one of the words fired: it must have had an effect."""

    def rule(gate: Value) -> bool | None:
        if not any(word in str(name) for name in gate.get("rules", ()) for word in words):
            return None
        return gate.get("action") in ("deny", "confine", "mask")

    return rule


def checked(word: str) -> Callable[[Value], bool | None]:
    """A check of our own, of one kind."""
    return lambda facts: facts.get("passed") is True if facts.get("check") == word else None


def erased(facts: Value) -> bool:
    effective = facts.get("effective_at_ms")
    return facts.get("hold_checked") is True and facts.get("keys", 0) > 0 and isinstance(effective, int)


def accessed(facts: Value) -> bool | None:
    return facts.get("entries") == facts.get("expected") if facts.get("kind") == "subject" else None


def deidentified(facts: Value) -> bool:
    return facts.get("classes", 0) + len(facts.get("unsupported", ())) == 18


def passed(facts: Value) -> bool:
    return facts.get("passed") is True


Judge = Callable[[End], Judged]


def all_checks() -> tuple[Iterable[Check], Mapping[str, Judge]]:
    """Fresh folds, and by the catalogue's name of a check how it is judged."""
    requests, overseen, incidents = Requests(), Overseen(), Incidents()
    gate = ("decision.routed", "answer.refused")
    alone: dict[str, Check] = {
        "unbroken": Unbroken(),
        "unaltered": Intact("source-reset"),
        "kept": Intact("range-lost"),
        "watched": Watched(),
        "grounded": Grounded(),
        "signed": Signed(),
        "confined": Each(("decision.routed",), confined),
        "purposed": Each(gate, gated(purposed)),
        "registered": Each(gate, gated(registered)),
        "special": Each(gate, gated(fired("special", "health", "gdpr-9"))),
        "transfer": Each(gate, gated(fired("transfer", "residency", "gdpr-4"))),
        "accurate": Accurate(),
        "marked": Marked(),
        "roles": Each(("access.checked",), checked("role")),
        "transport": Each(("access.checked",), checked("transport")),
        "principals": Each(("access.checked",), checked("principal")),
        "configured": Each(("config.observed",), passed),
        "restored": Each(("drill.completed",), passed),
        "erased": Each(("subject.erased",), erased),
        "accessed": Each(("export.made",), accessed),
        "deidentified": Each(("deid.applied",), deidentified),
    }
    judges: dict[str, Judge] = {name: check.judged for name, check in alone.items()}
    judges |= {
        "rebuilt": requests.rebuilt,
        "accounted": requests.accounted,
        "overseen": overseen.judged,
        "attentive": overseen.attentive,
        "handled": incidents.judged,
        "notified": incidents.notified,
        "told": incidents.told,
    }
    return (*alone.values(), requests, overseen, incidents), judges
