"""`ratchet capacity ROUTE`: what each arm of a route needs, as the estimator says, or as a file of Prometheus series does."""

from collections.abc import Sequence
from pathlib import Path

from schemas.policies import CapacityArm, PolicyCapacity
from schemas.topics import BY_NAME
from tools.cli.bus import Bus
from tools.cli.place import an_id, open_bus
from tools.cli.screen import Exit, Screen, clean

POLICIES = BY_NAME["policies"]


async def read(bus: Bus, route: str) -> PolicyCapacity | None:
    """The newest `policy.capacity` of the route."""
    key = PolicyCapacity.KIND + "/" + route
    record = (await bus.newest(POLICIES.full, [key])).get(key)
    return None if record is None or record.value is None else PolicyCapacity.model_validate_json(record.value)


async def run(screen: Screen, route: str) -> int:
    """The command. Exit 1 where nothing was estimated yet."""
    an_id("route", route)
    async with open_bus() as bus:
        policy = await read(bus, route)
    return shown(screen, route, policy)


def offline(screen: Screen, route: str, file: Path, limit_ms: int | None) -> int:
    """The same from a file of series; asks no server."""
    from agents.router.series import estimate
    from infra.series import read as points

    an_id("route", route)
    arms = estimate(points(file), limit_ms)
    if screen.as_json:
        screen.json({"route": route, "known": True, "series": str(file), "arms": [arm.model_dump() for arm in arms]})
    else:
        screen.say(f"[bold]{clean(route)}[/]: as {clean(str(file))} says, at its end")
        _table(screen, arms)
    return Exit.DONE


def shown(screen: Screen, route: str, policy: PolicyCapacity | None) -> int:
    """The policy, for people or as JSON."""
    if policy is None:
        said = f"no capacity of route {clean(route)} is known: `ratchet apply` it, and the estimator says what it needs"
        screen.line({"route": route, "known": False}, said)
        return Exit.NO
    if screen.as_json:
        screen.json({"known": True} | policy.model_dump(mode="json"))
        return Exit.DONE
    screen.say(f"[bold]{clean(route)}[/]: version {policy.version}, of the last {policy.window_s} s")
    _table(screen, policy.arms)
    return Exit.DONE


def _table(screen: Screen, arms: Sequence[CapacityArm]) -> None:
    screen.table(
        "arms",
        ("arm", "replicas", "warm", "calls/s", "tokens/s", "at work", "p95 ms"),
        [
            (
                arm.arm,
                arm.replicas,
                "yes" if arm.warm else "",
                f"{arm.rate_milli / 1000:.2f}",
                arm.tokens_s,
                f"{arm.busy_milli / 1000:.2f}",
                arm.p95_ms,
            )
            for arm in arms
        ],
    )
    for arm in arms:
        screen.say(f"{clean(arm.arm)}: {clean(arm.why)}")
