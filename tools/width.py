"""How wide what is printed may be."""

from typing import Any

from rich.console import Console

UNBROKEN = 100_000  # characters


def console(**options: Any) -> Console:
    """As wide as its terminal; a file or a pipe has no width, and no line in it is broken."""
    made = Console(**options)
    if not made.is_terminal:
        made.width = UNBROKEN
    return made
