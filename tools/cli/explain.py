"""`ratchet explain`: why a request got the answer that it got, in plain words, from entries of the log and nothing else.

What the log does not hold is said to be unknown. Texts are not in it: neither are they here.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.evidence.snapshot import Say, Snapshot, name_of, parsed, silent
from agents.router.masks import WORDS
from schemas.tlog.strict import encode_base64
from schemas.topics import BY_NAME, PREFIX
from tools.cli import erased, gate_words
from tools.cli.evidence import open_log
from tools.cli.reasons import WHOLE, WHYS
from tools.cli.screen import Exit, Screen, clean

Value = Mapping[str, Any]
Entry = tuple[int, Value]

_NAMED = re.compile(rb'"(?:request|key)":"([^"\\]{1,128})"')
_BY_REQUEST = frozenset(
    name for topic in BY_NAME.values() if topic.key == "request id" for name in (topic.full, topic.dlq)
)
_WITHHELD = {
    "rejected": "a person rejected the answer",
    "failed": "no arm gave an answer",
    "window_ended": "nobody decided before its time was over",
    "gate": "the gate stopped the answer",
}
_ACTIONS = {
    "release": "it goes out",
    "hold": "it waits for a person, or for the end of its time",
    "escalate": "a stronger arm is asked",
}
_OUTCOMES = ("answer.released", "answer.withheld", "answer.refused")


def run(screen: Screen, request: str, folder: Path | None, tenant: str | None) -> int:
    """The command. Exit 1 where the log knows nothing of the request, or several tenants have one of this name."""
    log = open_log(folder)
    with screen.progress(f"looking for {request} among {log.size:,} entries") as progress:
        found = [
            (index, value)
            for index, value in about(log, {request}, progress.say)
            if tenant in (None, value.get("tenant"))
        ]
    if not found:
        words = (
            f"the log knows no request {request!r} among its {log.size:,} entries; an id is taken case and all, and one that "
            "could be a telephone or card number stands in it as a commitment only"
        )
        screen.line({"refused": words, "kind": "unknown-request"}, f"[red]no[/]: {clean(words)}")
        return Exit.NO
    tenants = sorted({str(value.get("tenant")) for _, value in found})
    if len(tenants) > 1:
        words = f"several tenants have a request {request!r}: {', '.join(tenants)}; give --tenant"
        screen.line({"refused": words, "kind": "ambiguous-request"}, f"[red]no[/]: {clean(words)}")
        return Exit.NO
    said = explanation(log, request, found, erasures(log, found))
    if screen.as_json:
        screen.json(said)
        return Exit.DONE
    screen.say(f"[bold]{clean(request)}[/] of {clean(tenants[0])} in {clean(log.checkpoint.origin)}")
    for name, lines in said["sections"].items():
        for number, line in enumerate(lines):
            screen.say(f"{name if not number else '':<9}{clean(line)}")
    return Exit.DONE


def about(log: Snapshot, requests: Collection[str], say: Say = silent) -> Iterator[Entry]:
    """Every entry about one of these requests: by its name, else by its record's key."""
    wanted = {name.encode() for name in requests}
    for index, entry in log.entries(say=say):
        if wanted.isdisjoint(_NAMED.findall(entry)):
            continue
        value = parsed(entry)
        if request_of(value) in requests:
            yield index, value


def request_of(value: Value) -> str | None:
    """Which request an entry is about: the record's key stands for it where the payload could not be read."""
    if "request" in value:
        return str(value["request"])
    return str(value["key"]) if "key" in value and value.get("src", {}).get("topic") in _BY_REQUEST else None


def explanation(
    log: Snapshot, request: str, found: Sequence[Entry], receipts: Sequence[erased.Receipt] = ()
) -> dict[str, Any]:
    """What is known of a request, in sections of plain words, with the entries that say it. `receipts`: of its person's erasures."""
    sections = {
        "purpose": [*_purpose(found)],
        "data": [*_data(found, receipts)],
        "rules": [*_rules(found)],
        "route": [*_route(found)],
        "arms": [*_arms(found)],
        "score": [*_score(found)],
        "person": [*_person(found)],
        "outcome": [*_outcome(found)],
        "contest": [*_contest(log, request, found)],
    }
    return {
        "request": request,
        "tenant": found[0][1].get("tenant"),
        "origin": log.checkpoint.origin,
        "size": log.size,
        "root": encode_base64(log.checkpoint.root),
        "sections": sections,
        "decisions": [_decision(index, value) for index, value in _of(found, "decision.routed")],
        "gate": [
            {"entry": index, "type": value["type"], **value["facts"]["gate"]}
            for index, value in found
            if value.get("facts", {}).get("gate")
        ],
        "entries": [
            {"index": index, "name": name_of(index, value), "type": value.get("type"), "time": value.get("time")}
            for index, value in found
        ],
    }


def erasures(log: Snapshot, found: Iterable[Entry], say: Say = silent) -> list[erased.Receipt]:
    """Receipts of the persons that a request's entries name."""
    named = {(str(value.get("tenant")), str(value["subject"])) for _, value in found if "subject" in value}
    return [receipt for tenant, subject in sorted(named) for receipt in erased.receipts(log, tenant, subject, say)]


def _of(found: Iterable[Entry], *kinds: str) -> Iterator[Entry]:
    return ((index, value) for index, value in found if value.get("type") in kinds)


def _facts(found: Iterable[Entry], *kinds: str) -> Iterator[dict[str, Any]]:
    return (value.get("facts", {}) for _, value in _of(found, *kinds))


def _gates(found: Sequence[Entry]) -> list[dict[str, Any]]:
    """What the gate said of the request itself."""
    return [facts["gate"] for facts in _facts(found, "decision.routed", "answer.refused") if facts.get("gate")]


def _purpose(found: Sequence[Entry]) -> Iterator[str]:
    gates = _gates(found)
    named = [row for row in gates if row.get("purpose")]
    for row in named[:1]:
        yield f"{row['purpose']}, on the legal basis {row.get('legal_basis') or 'that is not recorded'}"
    if not named:
        yield "not recorded: the gate took none that the tenant's configuration names"
    for gate in gates[:1]:
        yield f"the tenant's register of processing {'names' if gate.get('registered') else 'does not name'} this"


def _data(found: Sequence[Entry], receipts: Sequence[erased.Receipt]) -> Iterator[str]:
    submitted = [*_facts(found, "request.submitted")]
    for facts in submitted[:1]:
        count = facts.get("messages_count")
        counted = f"{count} message{'' if count == 1 else 's'}, " if count is not None else ""
        yield f"{counted}{facts.get('bytes', 'unknown')} bytes as a record; the texts are not in the log, it commits to them"
        if facts.get("sensitivity"):
            yield f"{facts['sensitivity']}, as who sent it says"
    if not submitted:
        yield "the request itself is not in the log"
    for routing in {str(facts["routing"]["sensitivity"]) for facts in _facts(found, "decision.routed") if _read(facts)}:
        yield f"{routing}, as the router took it"
    subjects = {str(value["subject"]) for _, value in found if "subject" in value}
    yield f"about the person {', '.join(sorted(subjects))} (a pseudonym)" if subjects else "about nobody who is named"
    for receipt in receipts:
        if any(receipt.covers(value) for _, value in found):
            yield erased.words(receipt)


def _read(facts: Value) -> bool:
    return "sensitivity" in facts.get("routing", {})


def _rules(found: Sequence[Entry]) -> Iterator[str]:
    gates = _gates(found)
    for gate in gates:
        yield from gate_words.told(gate)
    if not gates:
        yield "no gate: nothing is recorded of rules on purpose, identifiers or special categories"
    for facts in _facts(found, "decision.routed"):
        relaxed = facts.get("routing", {}).get("relaxed")
        if relaxed:
            yield f"taken back, because no arm was left: {', '.join(map(_mask, relaxed))}"


def _route(found: Sequence[Entry]) -> Iterator[str]:
    routes = sorted({str(value["route"]) for _, value in found if "route" in value})
    yield ", ".join(routes) or "not recorded"
    refs = {
        f"{ref['kind']} version {ref['version']}"
        for _, value in _of(found, "decision.routed")
        for ref in _policies(value)
    }
    if refs:
        yield f"decided under {', '.join(sorted(refs))}"


def _policies(value: Value) -> Iterator[dict[str, Any]]:
    return (ref for ref in value.get("policy", ()) if "kind" in ref and "version" in ref)


def _decision(index: int, value: Value) -> dict[str, Any]:
    facts = value.get("facts", {})
    return {
        "entry": index,
        "arm": facts.get("arm"),
        "strategy": facts.get("strategy"),
        "draw": facts.get("draw"),
        "attempt": facts.get("attempt", 1),
        "arms": [
            {"arm": row.get("arm"), "chance": row.get("propensity", 0) / WHOLE, "masks": row.get("masks", [])}
            for row in facts.get("arms", ())
        ],
    }


def _arms(found: Sequence[Entry]) -> Iterator[str]:
    decisions = [_decision(index, value) for index, value in _of(found, "decision.routed")]
    if not decisions:
        yield "none was chosen: no decision is in the log"
    for decision, facts in zip(decisions, _facts(found, "decision.routed"), strict=True):
        word = str(decision["strategy"])
        chance = next((row["chance"] for row in decision["arms"] if row["arm"] == decision["arm"]), None)
        explored = ", chosen to learn of it" if facts.get("routing", {}).get("explored") else ""
        again = f"attempt {decision['attempt']}: " if decision["attempt"] != 1 else ""
        drawn = "" if chance is None else f"; it had a chance of {chance:.1%} (draw {decision['draw']} of {WHOLE})"
        yield f"{again}{decision['arm']}: {WHYS.get(word, word)}{explored}{drawn}"
        for row in decision["arms"]:
            masked = "; ".join(map(_mask, row["masks"]))
            yield f"  {row['arm']}: {row['chance']:.1%}{f', not allowed: {masked}' if masked else ''}"
        for name, words in (("chain", "if that fails"), ("shadows", "answer too, unseen")):
            if facts.get(name):
                yield f"  {words}: {', '.join(map(str, facts[name]))}"


def _mask(code: Any) -> str:
    return f"{code} ({WORDS.get(str(code), 'a rule of the router')})"


def _score(found: Sequence[Entry]) -> Iterator[str]:
    scores = [facts for facts in _facts(found, "score.assigned") if not facts.get("shadow")]
    for facts in scores:
        if facts.get("failed"):
            yield f"{facts.get('arm')} gave no answer to score"
            continue
        certified = ", certified" if facts.get("certified") else ""
        gated = ", on a route where a person decides first" if facts.get("gated") else ""
        action = str(facts.get("action"))
        yield (
            f"{facts.get('arm')}: {_rounded(facts.get('score'))} by {facts.get('scorer', 'an unknown scorer')}, threshold "
            f"{_rounded(facts.get('threshold'))}{certified}{gated}: {_ACTIONS.get(action, action)}"
        )
    if not scores:
        yield "no score is recorded"


def _rounded(said: Any) -> str:
    """A number of the log, which holds them as their shortest decimals."""
    return "unknown" if said is None else f"{float(said):.3f}"


def _person(found: Sequence[Entry]) -> Iterator[str]:
    lines = [*_reviews(found)]
    yield from lines or ["no person had a part in it"]


def _reviews(found: Sequence[Entry]) -> Iterator[str]:
    for facts in _facts(found, "review.requested"):
        yield f"a review was asked for{', before the answer goes out' if facts.get('gated') else ', beside the answer'}"
    for facts in _facts(found, "verdict.given"):
        who = "a person" if facts.get("kind", "person") == "person" else f"a {facts['kind']}"
        spent = f" after {facts['seconds_spent']} s" if "seconds_spent" in facts else ""
        marks = [f"{row.get('label')} {row.get('decision') or row.get('rating')}" for row in facts.get("answers", ())]
        yield f"{who} ({facts.get('by', 'not named')}, a pseudonym) judged{spent}: {', '.join(marks) or 'gave the right answer'}"
    for facts in _facts(found, "review.settled"):
        words = f"to be {facts['outcome']}" if "outcome" in facts else "unknown"
        yield f"the review ended: {words}, {facts.get('reason', 'for a reason that is not recorded')}"


def _outcome(found: Sequence[Entry]) -> Iterator[str]:
    ends = [*_of(found, *_OUTCOMES)]
    for index, value in ends:
        facts, kind = value.get("facts", {}), value["type"]
        if kind == "answer.released":
            how = "after a person's review" if facts.get("reviewed") else "by the machine alone"
            took = f", {facts['latency_ms']} ms after the request" if "latency_ms" in facts else ""
            mark = (
                ""
                if "marked" not in facts
                else ", marked as made by a machine"
                if facts["marked"]
                else ", without a mark"
            )
            words = f"the answer of {facts.get('arm', 'an arm')} was released {how}{took}{mark}"
        elif kind == "answer.withheld":
            words = f"no answer: {_WITHHELD.get(str(facts.get('reason')), 'for a reason that is not recorded')}"
        elif facts.get("kind") == "gate":
            words = "refused by the gate before any model saw it, by the rules above"
        else:
            words = (
                f"refused ({facts.get('kind', 'unknown')}): what was wrong stands in the answer, the log commits to it"
            )
        yield f"{words} (entry {index})"
        if kind != "answer.refused" and facts.get("gate"):
            first, *more = gate_words.told(facts["gate"])
            yield from (f"  of the answer: {first}", *more)
    for index, value in _of(found, "dead-letter"):
        facts = value.get("facts", {})
        topic = str(facts.get("topic", "")).removeprefix(PREFIX)
        yield f"a record about it was refused by {facts.get('agent', 'an agent')}: {facts.get('kind')}, {topic} (entry {index})"
    if not ends:
        yield "still open, as far as the log goes"


def _contest(log: Snapshot, request: str, found: Sequence[Entry]) -> Iterator[str]:
    yield (
        f"whoever is concerned asks the operator of {log.checkpoint.origin} to have a person look at request {request}; a later "
        "verdict amends the case and stands in the log"
    )
    if any(facts.get("gate", {}).get("action") == "deny" for facts in _facts(found, *_OUTCOMES)):
        yield (
            "what the gate denied may be sent again once what its rules name is changed: the text, the purpose or its basis, or what "
            "the tenant is permitted (`ratchet tenant`), which is a command and stands in the log"
        )
    ends = [index for index, _ in _of(found, *_OUTCOMES)] or [found[-1][0]]
    yield f"`ratchet evidence prove entry-{ends[-1]}` gives the proof of what was recorded, which anyone can verify"
