"""`ratchet bench` and `ratchet demo`: handed to their own packages."""

from collections.abc import Sequence

from tools.cli.screen import Screen


def bench(screen: Screen, name: str, options: Sequence[str]) -> int:
    """Run the benchmark `name`; what is left of the command line is its own."""
    from tools.bench import main

    return main(name, list(options), as_json=screen.as_json)


def demo(screen: Screen, *, useless: bool, chaos: bool, rollback: bool, keep: bool) -> int:
    """Run the demonstration."""
    from tools.demo import Shown, main

    return main(shown=Shown(useless=useless, chaos=chaos, rollback=rollback), keep=keep, as_json=screen.as_json)
