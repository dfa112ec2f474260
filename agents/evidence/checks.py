"""How each check of the catalogue assesses: a rule over the facts of one entry, or a fold. Pure.

Facts are those that `table` lets stand in an entry. A rule says of facts whether they hold, or None where they are no case.
"""

from collections.abc import Callable, Iterable, Mapping

from agents.evidence.folds import (
    Accurate,
    Check,
    End,
    Grounded,
    Intact,
    Judged,
    Marked,
    Overseen,
    Requests,
    Signed,
    Unbroken,
    Value,
    part,
)
from agents.evidence.incidents import Incidents, Watched


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


NEVER_MS = 253_402_300_800_000
"""The end of the year 9999: an erasure that would take effect later does not."""
_LEFT_OUT = frozenset({"privacy", "residency", "gate"})
_STRICT = frozenset({"personal", "secret"})
_SPECIAL = frozenset({"gdpr-9", "hipaa-164.312.e"})
_TRANSFER = frozenset({"gdpr-44", "gdpr-46"})


def _sent_as_ruled(facts: Value) -> bool:
    """Of a decision: whether the text goes to no arm that may not have it, shadows, fallbacks and hedges included."""
    asked = {facts.get("arm"), facts.get("second_arm")}
    for name in ("chain", "shadows", "hedges"):
        asked.update(facts.get(name, ()))
    masked = {
        row["arm"] for row in facts.get("arms", ()) if "arm" in row and _LEFT_OUT.intersection(row.get("masks", ()))
    }
    return not asked & masked and not _LEFT_OUT.intersection(part(facts, "routing").get("relaxed", ()))


def _denied(facts: Value) -> bool:
    """Denied, and indeed refused: a decision has an arm."""
    return part(facts, "gate").get("action") == "deny" and "arm" not in facts


def confined(facts: Value) -> bool | None:
    """Of a decision, or of an answer that the gate has looked at."""
    routing, action = part(facts, "routing"), part(facts, "gate").get("action")
    if routing.get("sensitivity") not in _STRICT and action not in ("deny", "confine", "mask"):
        return None
    return action != "deny" and _sent_as_ruled(facts)


def purposed(facts: Value) -> bool | None:
    gate = part(facts, "gate")
    return _denied(facts) or bool(gate.get("purpose") and gate.get("legal_basis")) if gate else None


def registered(facts: Value) -> bool | None:
    gate = part(facts, "gate")
    return _denied(facts) or gate.get("registered") is True if gate else None


def special(facts: Value) -> bool | None:
    gate = part(facts, "gate")
    if _SPECIAL.isdisjoint(gate.get("rules", ())):
        return None
    weaker = gate.get("action") in ("confine", "mask") or bool(gate.get("exemptions"))
    return _denied(facts) or (weaker and _sent_as_ruled(facts))


def transfer(facts: Value) -> bool | None:
    """These rules take arms away, and deny where none is left: it is the arms that show whether they were heeded."""
    gate = part(facts, "gate")
    if _TRANSFER.isdisjoint(gate.get("rules", ())):
        return None
    left_out = any("gate" in row.get("masks", ()) for row in facts.get("arms", ()))
    return _denied(facts) or (left_out and _sent_as_ruled(facts))


def checked(word: str) -> Callable[[Value], bool | None]:
    """A check of our own, of one kind."""
    return lambda facts: facts.get("passed") is True if facts.get("check") == word else None


def erased(facts: Value) -> bool | None:
    """A receipt; of one that was not given only that settings stood against it: a legal hold may, and without a key there is nothing."""
    if "reason" in facts:
        return False if facts["reason"] == "settings" else None
    return (
        facts.get("hold_checked") is True
        and facts.get("keys", 0) > 0
        and facts.get("effective_at_ms", NEVER_MS) < NEVER_MS
    )


def accessed(facts: Value) -> bool | None:
    return facts.get("entries") == facts.get("expected") if facts.get("kind") == "subject" else None


def deidentified(facts: Value) -> bool:
    return facts.get("classes", 0) + len(facts.get("unsupported", ())) == 18


def restored(facts: Value) -> bool:
    return passed(facts) and "root" in facts and facts["root"] == facts.get("restored")


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
        "confined": Each(("decision.routed", "answer.released"), confined),
        "purposed": Each(gate, purposed),
        "registered": Each(gate, registered),
        "special": Each(gate, special),
        "transfer": Each(gate, transfer),
        "accurate": Accurate(),
        "marked": Marked(),
        "roles": Each(("access.checked",), checked("role")),
        "transport": Each(("access.checked",), checked("transport")),
        "principals": Each(("access.checked",), checked("principal")),
        "configured": Each(("config.observed",), passed),
        "restored": Each(("drill.completed",), restored),
        "erased": Each(("subject.erased", "subject.kept"), erased),
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
