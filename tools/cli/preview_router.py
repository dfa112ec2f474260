"""`ratchet preview ROUTE --router FILE`: what the log says of another routing policy, before any traffic is risked on it. Reads only."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from agents.router import model
from agents.router.hindsight import Hindsight, Today, look_back
from agents.router.ope import Verdict, judge
from agents.router.ope_interval import Compared, Estimate
from infra.artifacts import DirectoryStore
from schemas import codec
from schemas.errors import Refused
from schemas.events import CaseAmended, CaseAnswered, CaseClosed
from schemas.policies import Policy, PolicyFleet, PolicyRoute, PolicyRouter
from schemas.routes import Route
from schemas.routing import RoutingSettings
from schemas.topics import BY_NAME
from tools.cli.bus import Bus, now_ms
from tools.cli.place import an_id, open_bus, settings
from tools.cli.replay import instant_ms
from tools.cli.screen import Exit, Screen, clean
from tools.routes import read_routing, table

POLICIES, CASES = BY_NAME["policies"], BY_NAME["cases"]
Predictions = Literal["logged", "today"]
KINDS = {kind.ce_type().encode(): kind for kind in (CaseClosed, CaseAmended, CaseAnswered)}
STEPS = (0.2, 0.5, 0.8)
MICRO = 1_000_000
One = TypeVar("One", bound=Policy)


@dataclass(frozen=True, slots=True)
class Log:
    """What the cases topic says of a route from a time on. `open`: answered, and not closed yet. `unread`: records that are no cases."""

    told: tuple[CaseClosed, ...]
    open: int
    unread: int


@dataclass(frozen=True, slots=True)
class Looked:
    """The whole answer."""

    new: RoutingSettings
    today: Today
    log: Log
    seen: Hindsight
    verdict: Verdict
    notes: tuple[str, ...]

    @property
    def holds(self) -> tuple[str, ...]:
        return (*self.seen.holds, *self.verdict.holds)

    @property
    def passes(self) -> bool:
        return not self.holds


def predictions_of(text: str) -> Predictions:
    """Raises `Refused`."""
    if text not in ("logged", "today"):
        raise Refused(f"--predictions {text!r}: accepted: logged, today", kind="usage", field="--predictions")
    return text


async def run(screen: Screen, route: str, file: Path, since: str | None, predictions: Predictions = "logged") -> int:
    """The command. 0: the policy may be rolled out; 1: it is worse, the log cannot tell, or the route is unknown."""
    an_id("route", route)
    read_routing(file)  # what is wrong with the file alone is said without a stack
    since_ms = 0 if since is None else instant_ms("--since", since)
    with screen.progress("reading the log"):
        async with open_bus() as bus:
            today = await read_today(bus, route)
            if today is None:
                row = {"route": route, "known": False}
                screen.line(row, f"no routing of route {clean(route)} is known: `ratchet apply` it")
                return Exit.NO
            new = read_routing(file, today.route)
            log = await read_log(bus, route, since_ms)
        if predictions == "today":
            today = with_model(today, DirectoryStore(settings().state_dir / "artifacts"))
        found = look(new, today, log, since_ms)
    return show(screen, found, file)


async def read_today(bus: Bus, route: str) -> Today | None:
    """The route's running policy; None where the judge published none."""
    kinds = (PolicyRoute, PolicyFleet, PolicyRouter)
    held = await bus.newest(POLICIES.full, [f"{kind.KIND}/{route}" for kind in kinds])

    def one(kind: type[One]) -> One | None:
        record = held.get(f"{kind.KIND}/{route}")
        return None if record is None or record.value is None else kind.model_validate_json(record.value)

    applied, fleet = one(PolicyRoute), one(PolicyFleet)
    if applied is None or fleet is None:
        return None
    return Today(applied.settings, fleet, one(PolicyRouter), now_ms())


async def read_log(bus: Bus, route: str, since_ms: int) -> Log:
    """The route's cases that were assigned from then on, partition by partition, in the log's order."""
    told: list[CaseClosed] = []
    answered, closed, unread = set[str](), set[str](), 0
    for at, offset in (await bus.starts([CASES.full], since_ms or None)).items():
        for record in sorted(await bus.read({at: offset}), key=lambda row: row.offset):
            kind = KINDS.get(dict(record.headers).get("ce_type", b""))
            if kind is None or record.value is None:
                continue
            try:
                case = codec.decode_payload(kind, record.value)
            except Refused:
                unread += 1
                continue
            if not isinstance(case, CaseClosed | CaseAnswered) or case.route != route or case.assigned_at_ms < since_ms:
                continue
            if isinstance(case, CaseClosed):
                told.append(case)
                closed.add(case.request_id)
            else:
                answered.add(case.request_id)
    return Log(tuple(told), len(answered - closed), unread)


def with_model(today: Today, store: DirectoryStore) -> Today:
    """With the newest snapshot's predictions. Raises `Refused` where it cannot be used, `Unavailable` without its artefacts."""
    digest = today.route.routing.basis
    basis = model.basis_of(store.get_bytes(digest) if digest else None)
    return replace(today, model=model.unfolded(today.router, digest, basis, store.get_bytes))


def look(new: RoutingSettings, today: Today, log: Log, since_ms: int = 0) -> Looked:
    """Both policies in the log's cases, and the verdict."""
    seen = look_back(log.told, new, today)
    verdict = judge(seen.rows, budget_nano=new.budget.nano_usd)
    return Looked(new, today, log, seen, verdict, (*seen.notes, *_notes(today, log)))


def _notes(today: Today, log: Log) -> list[str]:
    found: list[str] = []
    router = today.router
    if router is None or not router.warm or router.guarded or router.frozen:
        found.append(
            "now the champion serves, whatever the policy: too little learnt, the guard shut or trust in alarm"
        )
    if today.model is not None:
        found.append("predictions are the newest snapshot's, which may have learnt from these very cases")
    if today.route.trial is not None and today.route.trial_share:
        found.append("a trial is on its way: the running policy is [routing] without it")
    if log.open:
        found.append(f"{log.open} cases are still open: who is judged late is missing from the end of the log")
    if log.unread:
        found.append(f"{log.unread} records of the cases topic cannot be read")
    return found


# what is said


def show(screen: Screen, found: Looked, file: Path) -> int:
    """For people or as JSON; the exit code."""
    code = Exit.DONE if found.passes else Exit.NO
    if screen.as_json:
        screen.json(answer(found, file))
        return code
    verdict, seen = found.verdict, found.seen
    screen.say(f"[bold]{clean(found.today.route.route)}[/]: {clean(str(file))} against the running policy")
    screen.say(
        f"{seen.cases} cases, {verdict.rows} of {verdict.sessions} sessions used, {verdict.labelled} of them graded by people or references"
    )
    for why, count in left_out(found).items():
        screen.say(f"  left out: {count}, {clean(why)}")
    title = "quality of an answer (0 to 1) and its cost, each with its 95 % interval"
    screen.table(title, ("", "running", "new", "new - running"), _estimates(verdict))
    screen.table("what the log carries", ("", "new", "running"), _support(verdict))
    gaps = [
        (gap.arm, gap.decile, gap.n, _share(gap.predicted), f"{gap.gap / MICRO:+.3f}", "alarm" if gap.alarm else "")
        for gap in seen.calibration.gaps()
    ]
    screen.table("predicted and graded", ("arm", "decile", "grades", "predicted", "graded - predicted", ""), gaps)
    for note in found.notes:
        screen.say(f"[dim]{clean(note)}[/]")
    if found.passes:
        screen.say("[green]it may be rolled out[/]")
        for line in _how(found).splitlines():
            screen.say(clean(line))
        return code
    tells = bool(seen.holds or verdict.tells)
    screen.say("[red]the log cannot tell[/]" if tells else "[red]it may not be rolled out[/]")
    for why in found.holds:
        screen.say(f"  {clean(why)}")
    return code


def answer(found: Looked, file: Path) -> dict[str, Any]:
    """All of it, for `--json`."""
    verdict, seen = found.verdict, found.seen
    return {
        "route": found.today.route.route,
        "known": True,
        "file": str(file),
        "may_roll_out": found.passes,
        "holds": list(found.holds),
        "cannot_tell": bool(seen.holds or verdict.tells),
        "cases": seen.cases,
        "open": found.log.open,
        "left_out": left_out(found),
        "predictions": "logged" if found.today.model is None else "today",
        "verdict": verdict.plain(),
        "calibration": [gap._asdict() for gap in seen.calibration.gaps()],
        "notes": list(found.notes),
        "whole_route": list(found.new.shared_with(found.today.route.routing)),
        "rollout": rollout(found.today.route, found.new) if found.passes else {},
    }


def left_out(found: Looked) -> dict[str, int]:
    """Reason -> cases that are no row, whether hindsight or the judge left them out."""
    return dict(found.seen.left_out) | dict(found.verdict.left_out)


def rollout(route: Route, new: RoutingSettings) -> dict[str, str]:
    """Share in per cent -> the lines to put into the route file; none where the policy cannot serve beside the running one."""
    if new.shared_with(route.routing) or new == route.routing:
        return {}
    return {f"{step:.0%}".rstrip("%"): f"trial_share = {step}\n\n{table('trial', new)}" for step in STEPS}


def _how(found: Looked) -> str:
    shared = found.new.shared_with(found.today.route.routing)
    if shared:
        return f"not on a share of sessions, for it differs in what is the whole route's: {', '.join(shared)}. Put it in as [routing]"
    lines = rollout(found.today.route, found.new)
    if not lines:
        return "it is the running policy"
    first = lines[f"{STEPS[0]:.0%}".rstrip("%")]
    steps = ", then ".join(f"trial_share = {step}" for step in STEPS[1:])
    return f"put into the route file, trial_share above its tables, and `ratchet apply` it:\n\n{first}\nthen {steps}, then as [routing]"


def _estimates(verdict: Verdict) -> list[tuple[str, str, str, str]]:
    rows = (("SNIPS", verdict.snips, 3), ("DR", verdict.dr, 3), ("nano-USD", verdict.cost_nano, 0))
    return [_estimate(name, compared, digits) for name, compared, digits in rows if compared is not None]


def _estimate(name: str, compared: Compared, digits: int) -> tuple[str, str, str, str]:
    def told(one: Estimate) -> str:
        return f"{one.value:.{digits}f} ({one.low:.{digits}f}…{one.high:.{digits}f})"

    gain, fine = compared.difference, digits + 1 if digits else 0
    change = f"{gain.value:+.{fine}f} ({gain.low:+.{fine}f}…{gain.high:+.{fine}f})"
    return name, told(compared.current), told(compared.target), change


def _support(verdict: Verdict) -> list[tuple[str, str, str]]:
    new, running = verdict.target, verdict.current
    if new is None or running is None:
        return []
    return [
        ("worth so many graded rows (ESS)", f"{new.ess:.0f}", f"{running.ess:.0f}"),
        ("greatest weight of a session", f"{new.greatest:.2%}", f"{running.greatest:.2%}"),
        ("choices the log could not draw", f"{new.unsupported:.2%}", f"{running.unsupported:.2%}"),
    ]


def _share(micro: int) -> str:
    return f"{micro / MICRO:.3f}"
