"""Words that many commands share: options that mean the same in each, and how a command ends. Imports nothing heavy."""

from collections.abc import Coroutine
from typing import Annotated, Any, NoReturn

import typer

Json = Annotated[bool, typer.Option("--json", help="Answer in JSON, one object a line.")]
By = Annotated[
    str | None,
    typer.Option(
        "--as",
        "--operator",
        help="The principal who acts. Default: operator; your login name where no key is set.",
        show_default=False,
    ),
]
MOST_REASON = 2000  # what a command takes


def _a_reason(text: str) -> str:
    if len(text) > MOST_REASON:
        raise typer.BadParameter(f"{len(text)} characters; accepted: {MOST_REASON}")
    return text


Reason = Annotated[
    str, typer.Option("--reason", help="Why; kept with the command.", show_default=False, callback=_a_reason)
]


def done(code: int) -> NoReturn:
    """End with the exit code."""
    raise typer.Exit(int(code))


def run(work: Coroutine[Any, Any, int]) -> NoReturn:
    """Do the work and end with its exit code."""
    import asyncio

    done(asyncio.run(work))


def screen(as_json: bool) -> Any:
    """Where a command speaks."""
    from tools.cli.screen import Screen

    return Screen(as_json=as_json)
