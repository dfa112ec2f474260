"""What the gate said of a request or an answer, in plain words, from the facts of a log entry."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from agents.rules.gate import CLOSED
from agents.rules.gate_standard import STANDARD

Value = Mapping[str, Any]
_HEADS = {
    "allow": "let it go on",
    "mask": "let it go on with values replaced",
    "confine": "let it go to private arms only",
    "deny": "denied it",
}
_SCANS = {
    "failed": "a detector failed, so the text was not known to be clean",
    "late": "scanning took too long, so the text was not known to be clean",
}


@cache
def _rules() -> tuple[str, Mapping[str, str]]:
    """The digest of the rules that we ship, and their words by id."""
    return STANDARD.digest(), {rule.id: rule.words for rule in STANDARD.rules} | CLOSED


def told(gate: Value) -> Iterator[str]:
    """A line that says what it decided, then one for each rule and each thing that was done."""
    action = str(gate.get("action"))
    yield f"the gate {_HEADS.get(action, 'said nothing that is known')}"
    digest, words = _rules()
    for rule in gate.get("rules", ()):
        yield f"  {rule}: {words.get(str(rule), 'a rule that is not among those shipped now')}"
    if not gate.get("rules"):
        yield "  no rule fired"
    if gate.get("exemptions"):
        yield f"  weakened by what the tenant is exempted from: {', '.join(map(str, gate['exemptions']))}"
    found: Value = gate.get("found") or {}
    if found:
        counts = ", ".join(f"{kind} ({count or 'named by the sender'})" for kind, count in sorted(found.items()))
        yield f"  found: {counts}; the values stand nowhere in the log"
    if gate.get("masked"):
        yield f"  replaced by placeholders before it went on: {', '.join(map(str, gate['masked']))}"
    if gate.get("scan") in _SCANS:
        yield f"  {_SCANS[str(gate['scan'])]}"
    version = gate.get("tenant_version")
    configured = (
        f"version {version} of what the tenant is permitted" if version else "nothing configured for the tenant"
    )
    other = (
        ""
        if gate.get("rules_digest") in (None, digest)
        else ", which are not those shipped now: their words may differ"
    )
    yield f"  by the rules {gate.get('rules_digest', 'of no known digest')}{other}, and {configured}"
