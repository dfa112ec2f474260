"""`ratchet trust show`: the ladder of a route, rung by rung, and what it proves. Reads only."""

from pathlib import Path
from typing import Any

from agents.rules.detector import ALARM
from agents.rules.eprocess import risk_wealth
from agents.rules.wealth import at_least, log_of
from agents.trust import protocol
from agents.trust.fold import Ladder
from agents.trust.ladder import RUNGS, Rungs, level_of
from agents.trust.state import RouteTrust, Standing, Version
from tools.cli.bus import Bus
from tools.cli.place import an_id, open_bus
from tools.cli.risk_picture import draw, plot
from tools.cli.screen import Exit, Screen, clean
from tools.cli.states import state_of

_HALVINGS = 30


async def standing_of(bus: Bus, route: str) -> Standing | None:
    """The ladder's own state of the route, rebuilt from its changelog: what it would start from after a crash. None: unknown."""
    held = (await state_of(bus, Ladder(), route)).view(route)
    return Standing.of(held, held.record) if isinstance(held.record, RouteTrust) else None


def proven_below(bad: int, n: int, delta: float) -> float | None:
    """The least risk that these labels prove a rung to be below, 1-δ sure at all times; None where they prove none below 1.

    The end of the confidence sequence {r : E against "risk ≥ r" < 1/δ}, by bisection, to the safe side. For display.
    """
    low, high = bad / n if n else 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if 0.0 < middle < 1.0 and at_least(risk_wealth(bad, n, middle), 1.0 / delta):
            high = middle
        else:
            low = middle
    return high if high < 1.0 else None


def rung_rows(rungs: Rungs, released: int) -> list[dict[str, Any]]:
    """Every rung with its numbers."""
    held = rungs.certified()
    return [
        {
            "coverage": 10 * (rung + 1),
            "tau": rungs.tau[rung] if rung < RUNGS - 1 else None,
            "labels": rungs.n[rung],
            "rejected": rungs.bad[rung],
            "log_e": rungs.log_e(rung) if rungs.n[rung] else 0.0,
            "needed": log_of((level_of(rung, rungs.delta), 0)),
            "ever_crossed": rungs.crossed[rung],
            "certified": held[rung],
            "released": 10 * (rung + 1) <= released,
            "risk_below": proven_below(rungs.bad[rung], rungs.n[rung], rungs.delta),
            "laplace_approval": (rungs.n[rung] - rungs.bad[rung] + 1) / (rungs.n[rung] + 2),
        }
        for rung in range(RUNGS)
    ]


def account(standing: Standing) -> dict[str, Any]:
    """All that `--json` says."""
    record, running, candidate = standing.record, standing.running, standing.candidate
    rungs = running.rungs
    return {
        "route": standing.route,
        "known": True,
        "stands": protocol.words(standing),
        "mode": record.mode,
        "rung": record.rung,
        "certified": running.covers(),
        "gate": record.gate,
        "withdrawn": record.withdrawn,
        "drilled_at_ms": record.drilled_ms,
        "granted_by": record.granted_by,
        "enforce": record.settings.enforce,
        "lacks": list(protocol.lacks(standing)),
        "policy_version": record.version,
        "arm": record.arm,
        "risk": record.settings.risk if rungs is None else rungs.risk,
        "delta": record.settings.delta if rungs is None else rungs.delta,
        "audit_share": record.settings.audit_share,
        "scorer": _version(running, record),
        "candidate": None if candidate is None else _version(candidate, record),
        "rungs": [] if rungs is None else rung_rows(rungs, record.rung),
        "detector": None
        if record.detector is None
        else {"level": record.detector.level(), "alarm_at": ALARM, "labels": record.detector.n},
        "waiting": record.waiting,
        "left_out": record.left_out,
        "kappa": record.agreement.kappa(),
        "double_labels": record.agreement.n,
    }


def _version(version: Version, record: RouteTrust) -> dict[str, Any]:
    return {
        "name": version.scorer.name,
        "certified": version.covers(),
        "counted": version.counted,
        "scores": version.collected,
        "scores_needed": record.settings.min_scores,
        "shown_probability": {"a": version.platt.a, "b": version.platt.b},
    }


async def run(screen: Screen, route: str, *, png: Path | None = None) -> int:
    """The command. Exit 1 where the route is unknown or nothing is certified."""
    an_id("route", route)
    async with open_bus() as bus:
        standing = await standing_of(bus, route)
    return shown(screen, route, standing, png)


def shown(screen: Screen, route: str, standing: Standing | None, png: Path | None = None) -> int:
    """What is known of the route, for people or as JSON; the picture where it was asked for."""
    if standing is None:
        screen.line({"route": route, "known": False}, f"the ladder knows no route {clean(route)}: `ratchet apply` it")
        return Exit.NO
    told = account(standing)
    if png is not None:
        draw(told, png)
        told["picture"] = str(png)
    if screen.as_json:
        screen.json(told)
    else:
        explain(screen, told)
    return Exit.DONE if told["certified"] else Exit.NO


def explain(screen: Screen, told: dict[str, Any]) -> None:
    """Where the route stands, every rung, and the picture."""
    scorer, detector, kappa = told["scorer"], told["detector"], told["kappa"]
    screen.say(
        f"[bold]{clean(told['route'])}[/]: [bold]{clean(told['stands'])}[/], of what {clean(told['arm'])} answers"
    )
    screen.say(
        f"promised: of what is released, at most {told['risk']:.0%} would be rejected, {1 - told['delta']:.0%} sure at all times"
    )
    screen.say(f"scorer {clean(scorer['name'])}, {scorer['counted']} labels counted" + _beside(told["candidate"]))
    if told["waiting"] or told["left_out"]:
        screen.say(
            f"{told['waiting']} cases wait until all from before them are closed; {told['left_out']} came too late"
        )
    if not told["rungs"]:
        screen.say(f"the rungs are cut once {scorer['scores_needed']} scores are in: {scorer['scores']} so far")
    screen.table(
        "rungs",
        ("covers", "z from", "labels", "rejects", "log E", "needed", "", "risk <", "Laplace"),
        [_row(rung) for rung in told["rungs"]],
    )
    if told["rungs"]:
        screen.say(clean_lines(plot(told)))
    if detector is not None:
        level, alarm = detector["level"], detector["alarm_at"]
        screen.say(f"detector: {level:.1f} of {alarm:.0f} after {detector['labels']} audited labels")
    pairs = told["double_labels"]
    screen.say(f"two people's labels of {pairs} answers: kappa {'?' if kappa is None else format(kappa, '.2f')}")
    platt = scorer["shown_probability"]
    screen.say(f"shown probability: 1/(1+exp(-({platt['a']:.3f}·z {platt['b']:+.3f})))")
    for missing in told["lacks"]:
        screen.say(f"[yellow]lacks[/] {clean(missing)}")
    if "picture" in told:
        screen.say(f"picture: {clean(told['picture'])}")


def clean_lines(text: str) -> str:
    """Several lines, each made safe."""
    return "\n".join(clean(line) for line in text.splitlines())


def _beside(candidate: dict[str, Any] | None) -> str:
    if candidate is None:
        return ""
    return f"; beside it {clean(candidate['name'])}: covers {candidate['certified']} %, {candidate['counted']} labels"


def _row(rung: dict[str, Any]) -> tuple[object, ...]:
    certified = "released" if rung["released"] else "certified"
    word = certified if rung["certified"] else "crossed" if rung["ever_crossed"] else "not yet"
    below, tau = rung["risk_below"], rung["tau"]
    return (
        f"{rung['coverage']} %",
        "any" if tau is None else f"{tau:.3f}",
        rung["labels"],
        rung["rejected"],
        f"{rung['log_e']:.2f}",
        f"{rung['needed']:.2f}",
        word,
        "?" if below is None else f"{below:.1%}",
        f"{rung['laplace_approval']:.3f}",
    )
