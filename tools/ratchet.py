"""The `ratchet` command line: what can be said. What it does is in `tools/cli/`, imported when a command is called.

Exit codes: 0 done, 1 the answer is no, 2 used wrongly, 3 something is away, 130 interrupted.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from tools.cli.compliance_words import gate_app, incident_app, tenant_app
from tools.cli.repair_words import dlq_app, offsets
from tools.cli.words import By, Json, Reason, done, run, screen

app = typer.Typer(
    name="ratchet",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    add_completion=False,
    help="Serve language models that improve themselves in production, with evidence for every step.",
    epilog="Every command takes --json. Exit codes: 0 done, 1 the answer is no, 2 used wrongly, 3 something is away.",
)
judge_app = typer.Typer(no_args_is_help=True, help="What the judge saw and decided.")
trust_app = typer.Typer(
    no_args_is_help=True, help="What goes out without a person: show it, grant, withdraw, drill, reset."
)
principal_app = typer.Typer(
    no_args_is_help=True, help="Who may send requests, verdicts and commands, and with which keys."
)
evidence_app = typer.Typer(
    no_args_is_help=True, help="The signed evidence log: prove, sample, assess, export, verify offline."
)
acl_app = typer.Typer(
    no_args_is_help=True, help="Who may do what in Kafka: generated from the code, applied, compared."
)
app.add_typer(acl_app, name="acl", rich_help_panel="Stack")
app.add_typer(judge_app, name="judge", rich_help_panel="Decisions")
app.add_typer(trust_app, name="trust", rich_help_panel="Decisions")
app.add_typer(principal_app, name="principal", rich_help_panel="Stack")
app.add_typer(evidence_app, name="evidence", rich_help_panel="Evidence")
app.add_typer(tenant_app, name="tenant", rich_help_panel="Compliance")
app.add_typer(gate_app, name="gate", rich_help_panel="Compliance")
app.add_typer(incident_app, name="incident", rich_help_panel="Compliance")

INTERRUPTED = 130
STACK, WORK, DECIDE, PROVE = "Stack", "Requests", "Decisions", "Evidence"
RouteArg = Annotated[str, typer.Argument(help="The route's name.", show_default=False)]
RouteOpt = Annotated[str | None, typer.Option("--route", "-r", help="Only this route.", show_default=False)]
Wait = Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for the effect.")]


@app.command(rich_help_panel=STACK)
def up(
    vault: Annotated[bool, typer.Option("--vault", help="With a real Vault for keys and signatures.")] = False,
    secure: Annotated[
        bool, typer.Option("--secure", help="Kafka over TLS, with a user and rights of its own for each process.")
    ] = False,
    partitions: Annotated[int | None, typer.Option(min=1, max=1024, help="Partitions of every topic.")] = None,
    route: Annotated[
        list[Path] | None, typer.Option(help="Apply this route file once all answers. Repeatable.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Start what is missing (Kafka, Redis, Ray, the agents), wait until each answers, say where everything is."""
    from tools.cli import stack

    done(stack.up(screen(as_json), vault=vault, secure=secure, partitions=partitions, routes=route or []))


@app.command(rich_help_panel=STACK)
def down(as_json: Json = False) -> None:
    """Stop exactly what `up` started."""
    from tools.cli import stack

    done(stack.down(screen(as_json)))


@app.command(rich_help_panel=STACK)
def status(as_json: Json = False) -> None:
    """What runs, how each route and arm is doing, what was refused, and how far behind each agent is."""
    from tools.cli import status as work

    done(work.run(screen(as_json)))


@app.command(rich_help_panel=STACK)
def doctor(as_json: Json = False) -> None:
    """Check every dependency, setting and permission, and say what to do about each."""
    from tools.cli import stack

    done(stack.doctor(screen(as_json)))


AclUser = Annotated[list[str] | None, typer.Option("--user", help="Only this user. Repeatable.", show_default=False)]
AclProcess = Annotated[
    list[str] | None,
    typer.Option(
        "--process", help="A process of several agents: router,trust. Repeatable. Default: the local stack's."
    ),
]


@acl_app.command("show")
def acl_show(
    user: AclUser = None,
    process: AclProcess = None,
    table: Annotated[bool, typer.Option("--table", help="As the Markdown table of docs/security.md.")] = False,
    as_json: Json = False,
) -> None:
    """The rights that the code declares, a user a block. Asks no server."""
    from tools.cli import acl

    done(acl.show(screen(as_json), users=user or [], processes=process or [], as_table=table))


@acl_app.command("apply")
def acl_apply(
    process: AclProcess = None,
    rotate: Annotated[
        list[str] | None, typer.Option("--rotate", help="A new password for this user. Repeatable.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the users that lack, give their passwords to the cluster, and make its rights the generated ones."""
    from tools.cli import acl

    run(acl.apply(screen(as_json), processes=process or [], rotate=rotate or []))


@acl_app.command("check")
def acl_check(process: AclProcess = None, as_json: Json = False) -> None:
    """Compare the cluster's rights with the generated ones. Exit 1 where they differ."""
    from tools.cli import acl

    run(acl.check(screen(as_json), processes=process or []))


@app.command(rich_help_panel=WORK)
def apply(
    file: Annotated[Path, typer.Argument(help="A route file (TOML).", show_default=False)],
    operator: By = None,
    reason: Reason = "",
    wait: Wait = 30,
    as_json: Json = False,
) -> None:
    """Check a route file whole and make it the route's settings. Running agents follow without a restart."""
    from tools.cli import commands

    run(commands.apply(screen(as_json), file, by=operator, reason=reason, wait_s=wait))


@app.command(rich_help_panel=WORK)
def submit(
    text: Annotated[str | None, typer.Argument(help="One request's text.", show_default=False)] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A JSONL file, a request object a line.", show_default=False)
    ] = None,
    route: Annotated[
        str | None, typer.Option("--route", "-r", help="The route, where a line names none.", show_default=False)
    ] = None,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait for answers; 0: only send.")] = 60,
    session: Annotated[
        str | None, typer.Option(help="Session id: one session keeps its arm.", show_default=False)
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Whose data it is.", show_default=False)] = None,
    tenant: Annotated[
        str | None, typer.Option(help="Whose customer asks. Default: default.", show_default=False)
    ] = None,
    by: Annotated[
        str | None, typer.Option("--as", help="The principal who asks. Default: demo.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Send one request, or every line of a JSONL file, and print what became of each.

    Lines go out as they are (an id, a time and the route are added where missing), so a bad line is refused by name.
    """
    from tools.cli import submit as work

    if text is not None and file is not None:
        raise typer.BadParameter("give TEXT or --file, not both")
    if text is not None and route is None:
        raise typer.BadParameter("TEXT needs --route")
    run(
        work.run(
            screen(as_json),
            text,
            file,
            route=route,
            session=session,
            subject=subject,
            tenant=tenant,
            wait_s=wait,
            by=by,
        )
    )


@app.command(rich_help_panel=WORK)
def tail(
    topics: Annotated[
        list[str] | None,
        typer.Argument(help="Topics (answers, cases, requests.dlq …). Default: all.", show_default=False),
    ] = None,
    route: RouteOpt = None,
    type_: Annotated[str | None, typer.Option("--type", help="Only this event type, or its first word.")] = None,
    request: Annotated[str | None, typer.Option(help="Only this request.", show_default=False)] = None,
    from_beginning: Annotated[bool, typer.Option("--from-beginning", help="From the oldest kept event on.")] = False,
    since: Annotated[
        str | None, typer.Option(help="From this long ago on: 90s, 15m, 2h, 1d.", show_default=False)
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="End after so many.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Follow events as they are committed, one line each. Ctrl-C ends it."""
    from tools.cli import tail as work

    run(
        work.run(
            screen(as_json),
            topics or [],
            route=route,
            kind=type_,
            request=request,
            from_beginning=from_beginning,
            since=since,
            limit=limit,
        )
    )


@app.command(rich_help_panel=WORK)
def trace(
    request: Annotated[str, typer.Argument(help="The request's id.", show_default=False)], as_json: Json = False
) -> None:
    """Everything about one request as a tree: what caused what, when, and where it lies."""
    from tools.cli import trace as work

    run(work.run(screen(as_json), request))


@app.command(rich_help_panel=WORK)
def review(
    route: RouteOpt = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--as",
            "--by",
            help="The principal who judges. Default: reviewer; your login name where no key is set.",
            show_default=False,
        ),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Only list what waits.")] = False,
    request: Annotated[str | None, typer.Option(help="Judge this request.", show_default=False)] = None,
    approve: Annotated[
        list[str] | None, typer.Option(help="The answer with this letter is right.", show_default=False)
    ] = None,
    reject: Annotated[
        list[str] | None, typer.Option(help="The answer with this letter is wrong.", show_default=False)
    ] = None,
    correct: Annotated[str | None, typer.Option(help="The right answer's text.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """List and answer what waits for a person. Which arm answered, and its score, stay hidden."""
    from tools.cli import review as work

    run(
        work.run(
            screen(as_json),
            route=route,
            by=by,
            listed=listed,
            request=request,
            approve=approve or [],
            reject=reject or [],
            correct=correct,
        )
    )


def _act(kind: str, route: str, operator: str | None, reason: str, wait: float, as_json: bool, **more: Any) -> NoReturn:
    from tools.cli import commands

    run(commands.act(screen(as_json), kind, route, by=operator, reason=reason, wait_s=wait, **more))


Challenger = Annotated[str | None, typer.Option(help="The arm meant. Default: the challenger now.", show_default=False)]


@app.command(rich_help_panel=DECIDE)
def promote(
    route: RouteArg,
    challenger: Challenger = None,
    operator: By = None,
    reason: Reason = "",
    wait: Wait = 15,
    as_json: Json = False,
) -> None:
    """Approve the promotion that the judge asks for."""
    _act("promote", route, operator, reason, wait, as_json, challenger=challenger)


@app.command(rich_help_panel=DECIDE)
def reject(
    route: RouteArg,
    challenger: Challenger = None,
    operator: By = None,
    reason: Reason = "",
    wait: Wait = 15,
    as_json: Json = False,
) -> None:
    """Take the challenger out."""
    _act("reject", route, operator, reason, wait, as_json, challenger=challenger)


@app.command(rich_help_panel=DECIDE)
def rollback(route: RouteArg, operator: By = None, reason: Reason = "", wait: Wait = 15, as_json: Json = False) -> None:
    """Let the former champion serve again."""
    _act("rollback", route, operator, reason, wait, as_json)


@app.command(rich_help_panel=DECIDE)
def pause(route: RouteArg, operator: By = None, reason: Reason = "", wait: Wait = 15, as_json: Json = False) -> None:
    """Refuse new requests of a route, by name, until `resume`."""
    _act("pause", route, operator, reason, wait, as_json)


@app.command(rich_help_panel=DECIDE)
def resume(route: RouteArg, operator: By = None, reason: Reason = "", wait: Wait = 15, as_json: Json = False) -> None:
    """Take requests of a paused route again."""
    _act("resume", route, operator, reason, wait, as_json)


@app.command(rich_help_panel=DECIDE)
def train(
    route: RouteArg,
    cancel: Annotated[bool, typer.Option("--cancel", help="Stop the training that is under way.")] = False,
    operator: By = None,
    reason: Reason = "",
    wait: Wait = 15,
    as_json: Json = False,
) -> None:
    """Order the training of an adapter now."""
    _act("cancel" if cancel else "train", route, operator, reason, wait, as_json)


@trust_app.command("show")
def trust_show(
    route: RouteArg,
    png: Annotated[
        Path | None, typer.Option("--png", help="Draw risk and coverage into this file.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """The ladder of a route: mode, rungs and their certificates, detector, kappa, risk and coverage."""
    from tools.cli import trust as work

    run(work.run(screen(as_json), route, png=png))


@trust_app.command("grant")
def trust_grant(
    route: RouteArg,
    threshold: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Release scores from here on, on your own word: uncertified.", show_default=False
        ),
    ] = None,
    operator: By = None,
    reason: Reason = "",
    wait: Wait = 15,
    as_json: Json = False,
) -> None:
    """Release what the ladder has certified. Refused where nothing is, or the kill switch was never tested."""
    _act("trust", route, operator, reason, wait, as_json, action="grant", threshold=threshold)


@trust_app.command("withdraw")
def trust_withdraw(
    route: RouteArg, operator: By = None, reason: Reason = "", wait: Wait = 15, as_json: Json = False
) -> None:
    """The kill switch: a person decides every answer again, at once, on an immediate route too."""
    _act("trust", route, operator, reason, wait, as_json, action="withdraw")


@trust_app.command("drill")
def trust_drill(
    route: RouteArg, operator: By = None, reason: Reason = "", wait: Wait = 15, as_json: Json = False
) -> None:
    """Test the kill switch: the command's way to the policy, and back. Nothing else changes."""
    _act("trust", route, operator, reason, wait, as_json, action="drill")


@trust_app.command("reset")
def trust_reset(
    route: RouteArg, operator: By = None, reason: Reason = "", wait: Wait = 15, as_json: Json = False
) -> None:
    """Begin the ladder anew, in SHADOW: when other people review, or by another rubric."""
    _act("trust", route, operator, reason, wait, as_json, action="reset")


Who = Annotated[str, typer.Argument(help="The principal's name.", show_default=False)]
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", help="Write the key into this file (mode 0600).", show_default=False)
]
Days = Annotated[
    float | None, typer.Option("--days", min=0.001, help="The key ends after so many days.", show_default=False)
]


@principal_app.command("add")
def principal_add(
    name: Who,
    role: Annotated[list[str], typer.Option("--role", help="upstream, reviewer or operator. Repeatable.")],
    tenant: Annotated[
        list[str] | None,
        typer.Option("--tenant", help="Only for this tenant. Repeatable; default: all.", show_default=False),
    ] = None,
    days: Days = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Add a principal with a key. From the first key's start on, everything must be proven."""
    from tools.cli import principals

    run(principals.add(screen(as_json), name, role, tenant or [], valid_days=days, key_file=key_file))


@principal_app.command("list")
def principal_list(as_json: Json = False) -> None:
    """Every principal: roles, tenants, and when each key counts. No key is shown."""
    from tools.cli import principals

    run(principals.listed(screen(as_json)))


@principal_app.command("rotate")
def principal_rotate(
    name: Who,
    overlap: Annotated[float, typer.Option("--overlap", min=0, help="Seconds that former keys still count.")] = 3600,
    days: Days = None,
    key_file: KeyFile = None,
    as_json: Json = False,
) -> None:
    """Give a principal another key; its former keys end after the overlap."""
    from tools.cli import principals

    run(principals.rotate(screen(as_json), name, overlap_s=overlap, valid_days=days, key_file=key_file))


@principal_app.command("revoke")
def principal_revoke(
    name: Who,
    key: Annotated[str | None, typer.Option(help="Only the key of this id.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """End a principal's keys, ten seconds from now. What was written before stays proven."""
    from tools.cli import principals

    run(principals.revoke(screen(as_json), name, kid=key))


@app.command(rich_help_panel=DECIDE)
def preview(
    route: RouteArg,
    router: Annotated[
        Path | None,
        typer.Option("--router", help="A TOML file with another [routing]: judge it from the log.", show_default=False),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            help="Of the log from here on: an ISO 8601 time, epoch ms, or 15m, 2h, 1d ago.",
            show_default=False,
        ),
    ] = None,
    predictions: Annotated[
        str, typer.Option("--predictions", help="As logged, before each outcome; or today's snapshot: logged, today.")
    ] = "logged",
    as_json: Json = False,
) -> None:
    """What the judge would do now and why; with --router, what another routing policy would have done. Nothing is changed."""
    if router is not None:
        from tools.cli import preview_router

        run(preview_router.run(screen(as_json), route, router, since, preview_router.predictions_of(predictions)))
    if since is not None or predictions != "logged":
        raise typer.BadParameter("--since and --predictions are of --router FILE: give one")
    from tools.cli import preview as work

    run(work.run(screen(as_json), route))


@app.command(rich_help_panel=DECIDE)
def capacity(
    route: RouteArg,
    series: Annotated[
        Path | None,
        typer.Option(
            "--series", help="From this file of Prometheus series instead; no stack needed.", show_default=False
        ),
    ] = None,
    slo_ms: Annotated[
        int | None,
        typer.Option("--slo-ms", min=1, help="With --series: latency that is good enough.", show_default=False),
    ] = None,
    as_json: Json = False,
) -> None:
    """What each arm is asked and needs: calls, tokens, latency, replicas, which adapters stay warm, and why."""
    from schemas.errors import Refused
    from tools.cli import capacity as work

    if series is not None:
        done(work.offline(screen(as_json), route, series, slo_ms))
    if slo_ms is not None:
        raise Refused("--slo-ms: accepted with --series; a running route has its own", kind="usage", field="slo-ms")
    run(work.run(screen(as_json), route))


@app.command(rich_help_panel=DECIDE)
def basis(
    route: RouteArg,
    since: Annotated[
        str | None, typer.Option("--since", help="Only cases since then: 7d, 2026-11-21.", show_default=False)
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="From this JSONL file of requests instead; no stack needed.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another seed gives another basis.")] = 1,
    as_json: Json = False,
) -> None:
    """Build the basis in which the router reads a route's texts; prints the digest that its file names."""
    from tools.cli import basis as work

    if file is not None:
        done(work.offline(screen(as_json), route, file, seed))
    run(work.run(screen(as_json), route, since, seed))


@judge_app.command("show")
def judge_show(
    arena: Annotated[
        str, typer.Argument(help="An arena's key or its beginning, or a route: its newest arena.", show_default=False)
    ],
    png: Annotated[Path | None, typer.Option("--png", help="Also draw it into this file.", show_default=False)] = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Make every look again from what it was made of, and compare.")
    ] = False,
    as_json: Json = False,
) -> None:
    """The history of an arena: evidence against pairs, the last look, what was decided when. Nothing is changed."""
    from tools.cli import judge as work

    run(work.run(screen(as_json), arena, png=png, recompute=recompute))


LogOpt = Annotated[
    Path | None, typer.Option("--log", help="An exported bundle instead of the log that runs here.", show_default=False)
]
LogFolder = Annotated[
    Path | None,
    typer.Argument(metavar="[DIR]", help="An exported bundle. Default: the log that runs here.", show_default=False),
]


@evidence_app.command("verify")
def evidence_verify(
    bundle: Annotated[Path, typer.Argument(help="An exported bundle, or a .tlog-proof file.", show_default=False)],
    policy: Annotated[
        Path | None, typer.Option(help="The keys you trust, got by another way.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Verify an exported bundle, or one event's proof, without any server."""
    from tools.cli import evidence

    done(evidence.verify(screen(as_json), bundle, policy))


@evidence_app.command("prove")
def evidence_prove(
    event: Annotated[
        str, typer.Argument(metavar="EVENT_ID", help="An event's id, or entry-INDEX.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="The folder to write into.")] = Path(),
    log: LogOpt = None,
    as_json: Json = False,
) -> None:
    """Write an event's entry and the proof that it is in the log: two files that anyone can verify."""
    from tools.cli import evidence

    done(evidence.prove(screen(as_json), event, out, log))


@evidence_app.command("export")
def evidence_export(
    out: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder to write; must not exist.", show_default=False)
    ],
    tenant: Annotated[
        str | None,
        typer.Option(help="Only this tenant's entries, with the proof that none is left out.", show_default=False),
    ] = None,
    log_only: Annotated[
        bool, typer.Option("--log-only", help="The log alone: needs no Kafka, and holds no manifest.")
    ] = False,
    proof: Annotated[
        list[str] | None, typer.Option("--proof", help="Add this event's proof. Repeatable.", show_default=False)
    ] = None,
    operator: By = None,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait until the log has recorded it.")] = 60,
    as_json: Json = False,
) -> None:
    """Write a bundle that anyone can verify: the signed log, statements, control results, and a manifest that the log vouches for."""
    from tools.cli import evidence

    asked = evidence.Asked(tenant, log_only, proof or (), operator, wait)
    done(evidence.export(screen(as_json), out, asked))


@evidence_app.command("sample")
def evidence_sample(
    count: Annotated[int, typer.Option("-n", min=1, help="How many entries.", show_default=False)],
    seed: Annotated[str, typer.Option("--seed", help="Any text, chosen by the auditor.", show_default=False)],
    folder: LogFolder = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write their entries and proofs into this folder.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Pick entries that neither side could choose: those with the lowest SHA-256 of root, seed and index."""
    from tools.cli import evidence

    done(evidence.sample(screen(as_json), folder, count, seed, out))


@evidence_app.command("findings")
def evidence_findings(folder: LogFolder = None, as_json: Json = False) -> None:
    """List what the collector found wrong with its sources. Exit 1 where there is something."""
    from tools.cli import evidence

    done(evidence.findings(screen(as_json), folder))


@evidence_app.command("controls")
def evidence_controls(
    folder: LogFolder = None,
    statements: Annotated[
        Path | None, typer.Option(help="Signed statements of people on controls.", show_default=False)
    ] = None,
    signer: Annotated[
        list[str] | None,
        typer.Option("--signer", metavar="VKEY", help="A key whose statements count. Repeatable.", show_default=False),
    ] = None,
    oscal: Annotated[Path | None, typer.Option(help="Write OSCAL assessment results.", show_default=False)] = None,
    sheet: Annotated[Path | None, typer.Option("--csv", help="Write a table.", show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """What the log shows of each control: satisfied, not-satisfied, not-applicable, no-evidence. Exit 1 where one is not satisfied."""
    from tools.cli import controls

    asked = controls.Asked(statements, signer or (), oscal, sheet)
    done(controls.run(screen(as_json), folder, asked))


@evidence_app.command("check")
def evidence_check(
    operator: By = None,
    most_days: Annotated[
        int, typer.Option("--max-key-days", min=1, help="A key older than so many days does not pass.")
    ] = 365,
    as_json: Json = False,
) -> None:
    """Try what must not be possible, read settings where they count, and have the log record both. Exit 1 where one did not pass."""
    from tools.cli import check

    run(check.run(screen(as_json), operator, most_days))


@evidence_app.command("drill")
def evidence_drill(operator: By = None, as_json: Json = False) -> None:
    """Restore the log from a copy of its entries, compare the roots, and have the log record it. Exit 1 where they differ."""
    from tools.cli import drill

    run(drill.run(screen(as_json), operator))


@evidence_app.command("sign")
def evidence_sign(
    control: Annotated[str, typer.Argument(help="A control of `ratchet evidence controls`.", show_default=False)],
    result: Annotated[
        Literal["satisfied", "not-applicable"],
        typer.Option(
            help="satisfied: you have reviewed it, where only a person can; not-applicable: there is no such case."
        ),
    ],
    until: Annotated[str, typer.Option(metavar="DAY", help="Its last day, as 2027-06-30.", show_default=False)],
    reason: Annotated[str, typer.Option(help="Why, in a line that auditors read.", show_default=False)],
    operator: Annotated[
        str | None,
        typer.Option("--as", "--operator", help="Whose name signs. Default: your login name.", show_default=False),
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="Your key file; made where it does not exist.", show_default=False)
    ] = None,
    statements: Annotated[Path | None, typer.Option(help="The file to put it into.", show_default=False)] = None,
    log: LogOpt = None,
    as_json: Json = False,
) -> None:
    """Sign a statement on a control that no log can show; `ratchet evidence controls --statements` reads it."""
    from tools.cli import statement

    asked = statement.Asked(control, result, until, reason, operator, key, statements)
    done(statement.sign(screen(as_json), asked, log))


TenantOpt = Annotated[str | None, typer.Option("--tenant", help="Whose request.", show_default=False)]


@app.command(rich_help_panel=PROVE)
def explain(
    request: Annotated[str, typer.Argument(help="The request's id.", show_default=False)],
    tenant: TenantOpt = None,
    log: LogOpt = None,
    as_json: Json = False,
) -> None:
    """Why a request was answered as it was, in plain words, from the evidence log alone."""
    from tools.cli import explain as work

    done(work.run(screen(as_json), request, log, tenant))


@app.command(rich_help_panel=PROVE)
def access(
    subject: Annotated[str, typer.Argument(help="The person's id, as requests name it.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="The folder to write; must not exist.", show_default=False)],
    tenant: Annotated[str, typer.Option("--tenant", help="Whose customer the person is.")] = "default",
    pseudonym: Annotated[
        bool, typer.Option("--pseudonym", help="SUBJECT is the pseudonym in the log: no key is needed.")
    ] = False,
    unrecorded: Annotated[
        bool, typer.Option("--unrecorded", help="Do not have the log record what is handed out; no Kafka is needed.")
    ] = False,
    log: LogOpt = None,
    operator: By = None,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds to wait until the log has recorded it.")] = 60,
    as_json: Json = False,
) -> None:
    """Write all that the log holds about one person, with proofs, explanations and, where keys can be opened, the texts."""
    from tools.cli import subject as work

    asked = work.Asked(subject, tenant, pseudonym, not unrecorded, operator, wait)
    done(work.run(screen(as_json), asked, out, log))


@app.command(rich_help_panel=DECIDE)
def erase(
    subject: Annotated[str, typer.Argument(help="The person's id, as requests name it.", show_default=False)],
    tenant: Annotated[str, typer.Option("--tenant", help="Whose customer the person is.")] = "default",
    pseudonym: Annotated[
        bool, typer.Option("--pseudonym", help="SUBJECT is the pseudonym in the log: no key is needed.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; it cannot be undone.")] = False,
    operator: By = None,
    reason: Reason = "",
    wait: Wait = 30,
    as_json: Json = False,
) -> None:
    """Make what is kept of a person unreadable for good, and print the receipt."""
    from tools.cli import erase as work

    who = work.pseudonym_asked(work.Asked(subject, tenant, pseudonym))
    run(work.erase(screen(as_json), who, tenant, by=operator, reason=reason, yes=yes, wait_s=wait))


@app.command(rich_help_panel=STACK)
def model(
    folder: Annotated[Path, typer.Argument(help="A model's folder, with its config.json.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Put a base model into the artifact store and print its digest: what a route's arm names as `base`."""
    from tools.cli import models

    done(models.add(screen(as_json), folder))


app.add_typer(dlq_app, name="dlq", rich_help_panel="Repair")
app.command(rich_help_panel="Repair")(offsets)


@app.command(rich_help_panel=PROVE)
def replay(
    agent: Annotated[
        list[str] | None,
        typer.Option("--agent", help="Only this agent. Repeatable. Default: all that can be.", show_default=False),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option(
            "--from", help="Compare from here on: an ISO 8601 time, epoch ms, or 15m, 2h, 1d ago.", show_default=False
        ),
    ] = None,
    from_offsets: Annotated[
        list[str] | None,
        typer.Option("--from-offsets", help="Or from topic[partition]@offset on. Repeatable.", show_default=False),
    ] = None,
    to: Annotated[str | None, typer.Option("--to", help="Replay until this time.", show_default=False)] = None,
    log: Annotated[
        Path | None, typer.Option("--log", help="Replay a recorded log instead.", show_default=False)
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option("--record", help="Only record the running stack's log into this new file.", show_default=False),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Differences shown of each agent.")] = 20,
    as_json: Json = False,
) -> None:
    """Make decisions, scores, cases and evaluations again from the log and compare them bit for bit. Calls no model, writes nothing."""
    from tools.cli import replay as work

    asked = work.Asked(agent or (), from_, to, from_offsets or (), log, record, limit)
    run(work.run(screen(as_json), asked))


@app.command(rich_help_panel=PROVE, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            help="Which: judge, trust, loop, streams, router, gateway, evidence, conformance, pii.", show_default=False
        ),
    ],
    as_json: Json = False,
) -> None:
    """Run a benchmark and print its figures with machine, commit and versions. Further options go to the benchmark."""
    from tools.cli import delegate

    done(delegate.bench(screen(as_json), name, context.args))


@app.command(rich_help_panel=PROVE)
def demo(
    useless: Annotated[
        bool, typer.Option("--useless", help="Train on shuffled labels: it must not be promoted.")
    ] = False,
    chaos: Annotated[
        bool, typer.Option("--chaos", help="Kill every agent once and one engine while requests flow.")
    ] = False,
    rollback: Annotated[
        bool,
        typer.Option("--rollback", help="Damage the promoted adapter in production: it must be rolled back."),
    ] = False,
    routing: Annotated[
        bool,
        typer.Option(
            "--routing", help="The router instead: two arms, a budget, a price change, a failure, another policy."
        ),
    ] = False,
    compliance: Annotated[
        bool,
        typer.Option(
            "--compliance", help="The gate instead: a clinic's requests, an incident, an erasure, the evidence."
        ),
    ] = False,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack running afterwards.")] = False,
    as_json: Json = False,
) -> None:
    """Live the whole loop on real data in front of you."""
    from tools.cli import delegate

    shown = {"useless": useless, "chaos": chaos, "rollback": rollback, "routing": routing, "compliance": compliance}
    done(delegate.demo(screen(as_json), **shown, keep=keep))


def main() -> None:
    """The entry point. Faults become one clear line and an exit code; Ctrl-C ends with 130."""
    as_json = "--json" in sys.argv[1:]
    try:
        code = app(standalone_mode=False)
        if code == INTERRUPTED:
            _fault("interrupted", INTERRUPTED, as_json)
    except (KeyboardInterrupt, typer.Abort):
        code = _fault("interrupted", INTERRUPTED, as_json)
    except BrokenPipeError:  # the reader of our output has left: `ratchet tail | head`
        sys.stderr.close()
        code = 0
    except Exception as fault:  # noqa: BLE001  the one boundary: known faults become words, all others are ours and raised
        code = _known(fault, as_json)
    sys.exit(code if isinstance(code, int) else 0)


def _known(fault: Exception, as_json: bool) -> int:
    from schemas.errors import Refused, Unavailable

    misused = getattr(fault, "format_message", None)  # of every error of usage that the command line's parser raises
    if misused is not None:
        if not misused():
            return 2  # `ratchet` alone has printed its help
        return _fault(f"{misused()}{'' if as_json else ' (see --help)'}", 2, as_json)
    if isinstance(fault, Refused):
        return _fault(str(fault), 2, as_json)
    if isinstance(fault, Unavailable):
        return _fault(str(fault), 3, as_json)
    raise fault


def _fault(text: str, code: int, as_json: bool) -> int:
    if as_json:
        sys.stdout.write(json.dumps({"error": text, "exit": code}, ensure_ascii=False) + "\n")
    else:
        sys.stderr.write(f"ratchet: {text}\n")
    return code


if __name__ == "__main__":
    main()
