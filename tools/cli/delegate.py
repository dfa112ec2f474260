"""`ratchet bench` and `ratchet demo`: handed to their own packages."""

from collections.abc import Sequence

from schemas.errors import Refused
from tools.cli.screen import Screen


def bench(screen: Screen, name: str, options: Sequence[str]) -> int:
    """Run the benchmark `name`; what is left of the command line is its own."""
    from tools.bench import main

    return main(name, list(options), as_json=screen.as_json)


def demo(
    screen: Screen, *, useless: bool, chaos: bool, rollback: bool, routing: bool, compliance: bool, keep: bool
) -> int:
    """Run the demonstration: of the loop, of the router, or of compliance."""
    of_loop = useless or chaos or rollback
    if compliance:
        from tools.demo import compliance as of_compliance

        if of_loop or routing:
            raise Refused("--compliance goes alone: it shows the gate, an incident and an erasure", kind="usage")
        return of_compliance.main(keep=keep, as_json=screen.as_json)
    if routing:
        from tools.demo import routing as of_router

        if of_loop:
            raise Refused("--routing goes alone: it shows the router, and its own failure", kind="usage")
        return of_router.main(keep=keep, as_json=screen.as_json)

    from tools.demo import Shown, main

    return main(shown=Shown(useless=useless, chaos=chaos, rollback=rollback), keep=keep, as_json=screen.as_json)
