"""The words of `ratchet dlq` and `ratchet offsets`. What they do is in `letters.py` and `offsets.py`, imported when called."""

from pathlib import Path
from typing import Annotated

import typer

from tools.cli.words import By, Json, Reason, run, screen

dlq_app = typer.Typer(no_args_is_help=True, help="Dead letters: list, show, send back, discard; free a halted lane.")

PlaceArg = Annotated[
    str, typer.Argument(metavar="PLACE", help="requests.dlq/0/12 or 'requests.dlq[0]@12'.", show_default=False)
]
Again = Annotated[bool, typer.Option("--again", help="Though it was sent back or discarded before.")]


@dlq_app.command("list")
def dlq_list(
    agent: Annotated[str | None, typer.Option(help="Only those that this agent gave up.", show_default=False)] = None,
    kind: Annotated[str | None, typer.Option(help="Only this kind of reason.", show_default=False)] = None,
    topic: Annotated[str | None, typer.Option(help="Only of this topic.", show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", help="Settled ones too.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")] = 50,
    as_json: Json = False,
) -> None:
    """The dead letters that nobody has settled: agent, kind, reason, place."""
    from tools.cli import letters

    run(letters.run_list(screen(as_json), letters.Asked(agent, kind, topic, every, limit)))


@dlq_app.command("show")
def dlq_show(
    place: PlaceArg,
    save: Annotated[
        Path | None,
        typer.Option("--save", help="Write the value, byte for byte, into this new file.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """One dead letter: why, its headers, its payload, what became of it."""
    from tools.cli import letters

    run(letters.run_show(screen(as_json), place, save))


@dlq_app.command("send")
def dlq_send(
    place: PlaceArg,
    value: Annotated[
        Path | None,
        typer.Option("--value", "--edit", help="Send this file's content instead: an edited copy.", show_default=False),
    ] = None,
    type_: Annotated[
        str | None,
        typer.Option("--type", help="The edited copy's event type. Default: the letter's.", show_default=False),
    ] = None,
    sender: Annotated[
        str | None,
        typer.Option(
            "--sender",
            help="Who proves a request, verdict or command that goes back. Default: whom it names, else demo.",
            show_default=False,
        ),
    ] = None,
    again: Again = False,
    operator: By = None,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Send a dead letter back to its topic, as it was or edited. Once: a settled one is refused."""
    from tools.cli import letters

    run(
        letters.run_send(
            screen(as_json), place, by=operator, sender=sender, reason=reason, value=value, type_=type_, again=again
        )
    )


@dlq_app.command("discard")
def dlq_discard(
    place: PlaceArg,
    reason: Annotated[
        str, typer.Option("--reason", help="Why; kept with the event that tells of it.", show_default=False)
    ],
    again: Again = False,
    operator: By = None,
    as_json: Json = False,
) -> None:
    """Settle a dead letter without sending it."""
    from tools.cli import letters

    run(letters.run_discard(screen(as_json), place, by=operator, reason=reason, again=again))


@dlq_app.command("skip")
def dlq_skip(
    place: Annotated[
        str, typer.Argument(metavar="PLACE", help="Where the lane halted: requests/0/12.", show_default=False)
    ],
    agent: Annotated[str, typer.Option("--agent", help="Whose lane.", show_default=False)],
    reason: Annotated[str, typer.Option("--reason", help="Why; kept with the dead letter.", show_default=False)],
    operator: By = None,
    as_json: Json = False,
) -> None:
    """Make a dead letter of the record that halted a lane, so that the lane goes on behind it."""
    from tools.cli import letters

    run(letters.run_skip(screen(as_json), place, agent, by=operator, reason=reason))


def offsets(
    agent: Annotated[str | None, typer.Option(help="Only this agent's group.", show_default=False)] = None,
    move: Annotated[
        list[str] | None,
        typer.Option(
            "--move",
            help="To topic/partition@offset, or topic@offset: a number, start, end, 2h ago. Repeatable.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Really move. Without it only said.")] = False,
    operator: By = None,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Where every agent's group stands and how far it is behind; or, with --move and while the agent is stopped, elsewhere."""
    from tools.cli import offsets as work

    run(work.run(screen(as_json), agent, move or [], by=operator, reason=reason, yes=yes))
