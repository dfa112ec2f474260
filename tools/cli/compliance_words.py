"""The words of `ratchet tenant`, `ratchet gate` and `ratchet incident`. What they do is in `tenants.py`, `gate_keys.py` and
`incidents.py`, imported when called."""

from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from tools.cli.words import By, Json, Reason, run, screen

tenant_app = typer.Typer(no_args_is_help=True, help="What the gate permits a tenant: show it, change it by a file.")
gate_app = typer.Typer(
    no_args_is_help=True, help="The keys that the gate seals masks and marks answers with: list, rotate, retire."
)
incident_app = typer.Typer(
    invoke_without_command=True,
    help="Incidents and their clocks: list, open, assess, notify, close. Nobody outside is told by this: it records that you did.",
)

Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the effect.")]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Whose incident.", show_default=False)]
Name = Annotated[str, typer.Argument(metavar="ID", help="The incident's id.", show_default=False)]


@tenant_app.command("apply")
def tenant_apply(
    file: Annotated[Path, typer.Argument(help="A tenant file (TOML).", show_default=False)],
    operator: By = None,
    reason: Reason = "",
    wait: Wait = 30,
    as_json: Json = False,
) -> None:
    """Check a tenant file whole, say what changes and what has no effect, and make it the tenant's configuration."""
    from tools.cli import tenants

    run(tenants.apply(screen(as_json), file, by=operator, reason=reason, wait_s=wait))


@tenant_app.command("show")
def tenant_show(
    tenant: Annotated[str | None, typer.Argument(help="The tenant. Default: all.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """What a tenant is permitted, in plain words, and when each permission ends."""
    from tools.cli import tenants

    run(tenants.show(screen(as_json), tenant))


@gate_app.command("keys")
def gate_list(as_json: Json = False) -> None:
    """Which key seals, which ones open what is under way, which were retired. The keys themselves are shown nowhere."""
    from tools.cli import gate_keys

    run(gate_keys.listed(screen(as_json)))


@gate_app.command("rotate")
def gate_rotate(as_json: Json = False) -> None:
    """Make a new key, which seals ten seconds later. What the former ones sealed goes on opening; nothing has to be restarted."""
    from tools.cli import gate_keys

    run(gate_keys.rotate(screen(as_json)))


@gate_app.command("retire")
def gate_retire(
    key: Annotated[str, typer.Argument(help="A key of `ratchet gate keys`.", show_default=False)],
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Also where answers are under way under it: they are withheld.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Take away a key that only opens, when every answer under it is out. Exit 1 where some are not: nothing was done then."""
    from tools.cli import gate_keys

    run(gate_keys.retire(screen(as_json), key, anyway=yes))


def _listed(tenant: str | None, every: bool, as_json: bool) -> NoReturn:
    from tools.cli import incidents

    run(incidents.listed(screen(as_json), tenant, every=every))


def _take(step: Any, incident: str, tenant: str | None, operator: str | None, reason: str, **more: Any) -> NoReturn:
    from tools.cli import incidents

    as_json, wait = more.pop("as_json"), more.pop("wait")
    asked = incidents.Asked(step, incident, tenant, operator, reason, wait, **more)
    run(incidents.take(screen(as_json), asked))


@incident_app.callback()
def incident(context: typer.Context, as_json: Json = False) -> None:
    """Without a further word: `list`."""
    if context.invoked_subcommand is None:
        _listed(None, every=False, as_json=as_json)


@incident_app.command("list")
def incident_list(
    tenant: Tenant = None,
    every: Annotated[bool, typer.Option("--all", help="Closed ones too.")] = False,
    as_json: Json = False,
) -> None:
    """The open incidents, and how long is left to notify the authority."""
    _listed(tenant, every, as_json)


@incident_app.command("show")
def incident_show(incident: Name, tenant: Tenant = None, as_json: Json = False) -> None:
    """One incident: its clock, its notice item by item, what may be done next, and its history."""
    from tools.cli import incidents

    run(incidents.show(screen(as_json), incident, tenant))


@incident_app.command("open")
def incident_open(
    incident: Name,
    reason: Annotated[str, typer.Option("--reason", help="What was noticed; kept with the command.")],
    aware: Annotated[
        str | None,
        typer.Option("--aware", help="When somebody came to know: an ISO 8601 time, or 2h ago.", show_default=False),
    ] = None,
    tenant: Tenant = None,
    operator: By = None,
    wait: Wait = 15,
    as_json: Json = False,
) -> None:
    """Open an incident that a person noticed. From when somebody was aware its clock runs."""
    from tools.cli.replay import instant_ms

    aware_ms = None if aware is None else instant_ms("--aware", aware)
    _take("detect", incident, tenant, operator, reason, wait=wait, as_json=as_json, aware_at_ms=aware_ms)


@incident_app.command("assess")
def incident_assess(
    incident: Name,
    personal_data: Annotated[
        bool, typer.Option("--personal-data/--no-personal-data", help="Whether personal data is concerned.")
    ],
    high_risk: Annotated[bool, typer.Option("--high-risk/--no-high-risk", help="Whether people run a high risk.")],
    tenant: Tenant = None,
    operator: By = None,
    reason: Reason = "",
    wait: Wait = 15,
    as_json: Json = False,
) -> None:
    """Say what is concerned. May be said again; it takes a `not-notifiable` back."""
    said = {"personal_data": personal_data, "high_risk": high_risk}
    _take("assess", incident, tenant, operator, reason, wait=wait, as_json=as_json, **said)


@incident_app.command("notify")
def incident_notify(
    incident: Name,
    nature: Annotated[bool, typer.Option("--nature", help="What happened, to how many people and records.")] = False,
    contact: Annotated[bool, typer.Option("--contact", help="Who can be asked.")] = False,
    consequences: Annotated[bool, typer.Option("--consequences", help="What is likely to follow.")] = False,
    measures: Annotated[bool, typer.Option("--measures", help="What was done and is proposed.")] = False,
    delay_reason: Annotated[bool, typer.Option("--delay-reason", help="Why it is late.")] = False,
    tenant: Tenant = None,
    operator: By = None,
    reason: Reason = "",
    wait: Wait = 15,
    as_json: Json = False,
) -> None:
    """Say that the authority was notified, and which items the notice has (GDPR Art. 33(3)). What it lacks may follow."""
    from schemas.compliance import Notice

    notice = Notice(
        nature=nature, contact=contact, consequences=consequences, measures=measures, delay_reason=delay_reason
    )
    _take("notify", incident, tenant, operator, reason, wait=wait, as_json=as_json, notice=notice)


def _plain(word: str, step: str, told: str) -> None:
    """A step that says no more than that it was taken."""

    def taken(
        incident: Name,
        tenant: Tenant = None,
        operator: By = None,
        reason: Reason = "",
        wait: Wait = 15,
        as_json: Json = False,
    ) -> None:
        _take(step, incident, tenant, operator, reason, wait=wait, as_json=as_json)

    incident_app.command(word, help=told)(taken)


_plain(
    "not-notifiable",
    "not_notifiable",
    "Say that nobody has to be notified. Where personal data is concerned: why not, with --reason.",
)
_plain("tell", "tell", "Say that the people concerned were told (GDPR Art. 34). Needs an assessed high risk.")
_plain("contain", "contain", "Say that it spreads no further.")
_plain("close", "close", "End it: once it is contained, and notified or not notifiable.")
