"""`ratchet bench` and `ratchet demo`: handed to their own packages."""

from collections.abc import Sequence

from schemas.errors import Refused
from tools.cli.screen import Screen


def bench(screen: Screen, name: str, options: Sequence[str]) -> int:
    """Run the benchmark `name`; what is left of the command line is its own."""
    from tools.bench import main

    return main(name, list(options), as_json=screen.as_json)


def demo(screen: Screen, *, useless: bool, chaos: bool, rollback: bool, routing: bool, keep: bool) -> int:
    """Run the demonstration: of the loop, or of the router."""
    if routing:
        from tools.demo import routing as of_router

        if useless or chaos or rollback:
            raise Refused("--routing goes alone: it shows the router, and its own failure", kind="usage")
        return of_router.main(keep=keep, as_json=screen.as_json)

    from tools.demo import Shown, main

    return main(shown=Shown(useless=useless, chaos=chaos, rollback=rollback), keep=keep, as_json=screen.as_json)


def compliance(screen: Screen, *, keep: bool) -> int:
    """Run the demonstration of compliance."""
    from tools.demo import compliance as of_compliance

    return of_compliance.main(keep=keep, as_json=screen.as_json)
