"""The first acts: a tenant and its route, requests that go through, are masked, confined or denied, and where the denied ones lie."""

import json
from typing import Any

from rich.markup import escape

from infra.clock import SystemClock
from schemas.errors import Unavailable
from schemas.topics import full
from tools.demo.compliance import story
from tools.demo.compliance.canary import found_in
from tools.demo.compliance.kafka import rows
from tools.demo.compliance.story import ASKED, HOUSE, OUTSIDE, OVERSEAS, Asks
from tools.demo.compliance.telling import Said, Tale
from tools.demo.compliance.toml import written

LIVE_S = 300
TRIES = 4
ANSWERS = ("answer.released", "answer.withheld", "answer.refused")


def opening(tale: Tale, base: str) -> None:
    """The tenant's configuration and the route; both are commands of an operator."""
    tale.claim("the clinic's configuration is in force", apply_tenant(tale, held=True).code == 0)
    for route in (story.route(base, tale.provider.url), story.nobodys_route(tale.provider.url)):
        file = tale.folder / f"{route.tenant}-route.toml"
        file.write_text(written(route), encoding="utf-8")
        tale.claim(f"the route {route.route} is in force", tale.ratchet("apply", str(file)).code == 0)
    tale.say("waiting for all three models (the clinic's own takes a minute or so on a small CPU)")

    def live() -> bool:
        found = rows(tale.stage, "training", "adapter.live", "adapter.refused")
        refused = [row["data"]["reason"] for row in found if row["type"] == "adapter.refused"]
        if refused:
            raise Unavailable(f"a model is not served: {refused[0]}")
        return {OUTSIDE, OVERSEAS, HOUSE} <= {row["data"]["arm"] for row in found}

    tale.until(live, LIVE_S, "not every model is live")


def apply_tenant(tale: Tale, *, held: bool) -> Said:
    """Make the clinic's configuration the one in force."""
    file = tale.folder / "tenant.toml"
    file.write_text(written(story.tenant(SystemClock().now_ms(), held=held)), encoding="utf-8")
    return tale.ratchet("tenant", "apply", str(file))


def request_id(tale: Tale, name: str) -> str:
    """The id under which it was asked last."""
    tries = tale.tries.get(name, 0)
    return f"{tale.nonce}-{name}" + (f"-{tries}" if tries else "")


def submit(tale: Tale, asked: tuple[Asks, ...], name: str) -> dict[str, dict[str, Any]]:
    """Send them as one file; what `submit` says of each, by the request's id.

    Where scanning took longer than it may, as on a machine that is busy with other things, a text is denied; it is asked again.
    """
    told: dict[str, dict[str, Any]] = {}
    left = asked
    for _ in range(TRIES):
        file = tale.folder / f"{name}.jsonl"
        lines = [json.dumps(one.row(request_id(tale, one.name), canary(tale)), ensure_ascii=False) for one in left]
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        said = tale.ratchet("submit", "--file", str(file), "--wait", "60", quiet=True)
        told |= {row["request_id"]: row for row in said.rows if "request_id" in row}
        late = {row["data"]["request_id"] for row in rows(tale.stage, "answers", *ANSWERS) if _late(row["data"])}
        left = tuple(one for one in left if request_id(tale, one.name) in late)
        if not left:
            break
        tale.say(f"[yellow]denied because scanning took too long, as it must be[/]; asked again: {len(left)} of them")
        for one in left:
            tale.tries[one.name] = tale.tries.get(one.name, 0) + 1
    return told


def _late(answer: dict[str, Any]) -> bool:
    gate: dict[str, Any] = answer.get("gate") or {}
    return gate.get("scan") == "late"


def canary(tale: Tale) -> str:
    """A word that stands in every text that must be denied, and nowhere else."""
    return f"canary-{tale.nonce}"


def asking(tale: Tale) -> None:
    """Every request of the story, and what became of it."""
    told = submit(tale, ASKED, "requests")
    answers = {row["data"]["request_id"]: row["data"] for row in rows(tale.stage, "answers", *ANSWERS)}
    decisions = {row["data"]["request_id"]: row["data"] for row in rows(tale.stage, "decisions", "decision.routed")}
    for one in ASKED:
        name = request_id(tale, one.name)
        outcome = told.get(name, {}).get("outcome", "nothing")
        answer, decision = answers.get(name, {}), decisions.get(name, {})
        if one.outcome == "refused":
            _refused(tale, one, outcome, answer, denied=name not in decisions)
        else:
            _released(tale, one, outcome, answer, decision)
    tale.claim("the model overseas was asked nothing", tale.provider.asked(OVERSEAS) == [])
    marked = [row for row in answers.values() if "text" in row]
    tale.claim("every answer carries the mark of a model", bool(marked) and all(row.get("mark") for row in marked))


def _refused(tale: Tale, one: Asks, outcome: str, answer: dict[str, Any], *, denied: bool) -> None:
    gate: dict[str, Any] = answer.get("gate") or {}
    rules = gate.get("rules", ())
    silent = one.text not in str(answer) and canary(tale) not in str(answer)
    held = outcome == "refused" and one.rule in rules and denied and silent
    said = str(answer.get("reason") or outcome)
    line = next((line for line in said.splitlines() if line.startswith(f"{one.rule}:")), f"{outcome}: {said}")
    tale.claim(f"{one.words}: denied", held, line)
    tale.kept.setdefault("denied", []).append({"request": one.name, "rules": list(rules), "said": said})


def _released(tale: Tale, one: Asks, outcome: str, answer: dict[str, Any], decision: dict[str, Any]) -> None:
    saw = tale.provider.asked(OUTSIDE)
    text = str(answer.get("text", ""))
    leaked = [raw for raw in one.raw if any(raw in seen for seen in saw)]
    messages = json.dumps(decision.get("messages", []), ensure_ascii=False)
    if one.arm == OUTSIDE:
        leaked += [raw for raw in one.raw if raw in messages]
    lacking = [back for back in one.back if back not in text]
    held = outcome == "released" and answer.get("arm") == one.arm and not leaked and not lacking
    seen = next((row["content"] for row in decision.get("messages", ())), "")
    tale.claim(f"{one.words}: {_word(one)}", held, f"{outcome} {answer.get('arm', '')}" if not held else "")
    if one.raw and seen and one.arm == OUTSIDE:
        tale.console.print(f"           [dim]the model saw[/]   {escape(seen)}", highlight=False)
        tale.console.print(f"           [dim]the customer got[/] {escape(text)}", highlight=False)
        tale.kept.setdefault("masked", []).append({"request": one.name, "model": seen, "customer": text})


def _word(one: Asks) -> str:
    if one.arm == HOUSE:
        return "confined to the clinic's own model"
    return "masked on the way out, put back in the answer" if one.raw else "answered by the model outside"


def searching(tale: Tale) -> None:
    """Denied texts lie where they came in, and nowhere else; masked values there and in the customer's answer."""
    masked = (story.CARD, story.EMAIL, story.SSN)
    found = found_in(tale.stage, (canary(tale), story.KEY, *masked))
    requests, answers = full("requests"), full("answers")
    for text, words in ((canary(tale), "a word of every denied text"), (story.KEY, "the cloud's key")):
        tale.claim(f"{words} lies in {requests} and nowhere else", found[text] == [requests], ", ".join(found[text]))
    for text in masked:
        held = set(found[text]) == {requests, answers}
        tale.claim(f"a masked value lies in {requests} and {answers} alone", held, ", ".join(found[text]))
    tale.kept["found"] = {"canary": found[canary(tale)]}
