"""`ratchet acl show|apply|check`: Kafka's rights as the code declares them, against what the cluster holds."""

from collections.abc import Collection, Sequence

from infra.settings import Settings
from schemas.errors import Refused, Unavailable
from streams.acl import Acl, Difference, compare
from streams.security import Security
from tools.access import agents_work, generated, principals, table
from tools.cli.bus import translated
from tools.cli.place import settings as find_settings
from tools.cli.screen import Exit, Screen, clean


def parse_processes(given: Sequence[str]) -> list[tuple[str, ...]]:
    """`router,trust` as agents' names; the local stack's processes where none is given. Raises `Refused`."""
    from tools.stack.stack import AGENT_GROUPS

    if not given:
        return [tuple(group) for group in AGENT_GROUPS]
    known = agents_work()
    found: list[tuple[str, ...]] = []
    for text in given:
        names = tuple(name.strip() for name in text.split(","))
        if unknown := [name for name in names if name not in known]:
            raise Refused(f"--process {text}: no agent {unknown[0]!r}; known are {', '.join(known)}", kind="usage")
        found.append(names)
    return found


def show(screen: Screen, *, users: Sequence[str], processes: Sequence[str], as_table: bool = False) -> int:
    """What is generated; `as_table`: as docs/security.md has it. Raises `Refused` for a user that there is not."""
    if as_table:
        for line in table(parse_processes(processes) if processes else ()).splitlines():
            screen.line({"row": line}, clean(line))
        return Exit.DONE
    groups = parse_processes(processes)
    known = principals(groups)
    _known(users, known)
    rows = generated(groups, users)
    for user in users or known:
        mine = sorted(acl.right for acl in rows if acl.principal == f"User:{user}")
        screen.say(f"[bold]{clean(user)}[/]")
        for right in mine:
            screen.line(_row(Acl(f"User:{user}", right)), f"  {clean(str(right))}")
    return Exit.DONE


async def apply(screen: Screen, *, processes: Sequence[str], rotate: Sequence[str] = ()) -> int:
    """Users, passwords (new ones for those to `rotate`), rights; safe to repeat. Raises `Refused` for a user that there is not."""
    from tools.stack.secure import establish

    groups = parse_processes(processes)
    _known(rotate, principals(groups))
    settings, where, security = await _place("administrator")
    with translated(where):
        users, changed = await establish(settings, where, security, groups, rotate=rotate)
    renewed = f"; new passwords for {', '.join(rotate)}" if rotate else ""
    screen.line(
        {"users": users, "changed": changed, "rotated": list(rotate)},
        f"{users} users; {changed} rights changed{clean(renewed)}",
    )
    return Exit.DONE


async def check(screen: Screen, *, processes: Sequence[str]) -> int:
    """Exit 1 where a right is missing, or one of our users has one that is not generated."""
    from streams.kafka_acl import KafkaAccess

    groups = parse_processes(processes)
    _, where, security = await _place("operator")
    with translated(where):
        async with KafkaAccess(where, security) as access:
            found = compare(generated(groups), await access.acls())
            peculiar = await access.peculiar()
    _told(screen, found, peculiar)
    return Exit.DONE if found.same and not peculiar else Exit.NO


def _told(screen: Screen, found: Difference, peculiar: Sequence[str]) -> None:
    kinds = {"missing": found.missing, "extra": found.extra, "everyone": found.everyone, "other": found.others}
    for kind, acls in kinds.items():
        for acl in acls:
            screen.line({"is": kind} | _row(acl), f"{kind:<8} {clean(acl.principal)} {clean(str(acl.right))}")
    for text in peculiar:
        screen.line({"is": "peculiar", "acl": text}, f"peculiar {clean(text)}")
    same = found.same and not peculiar
    if same:
        screen.say("the cluster's rights are the generated ones")
    if found.missing or found.extra:
        screen.say("they differ: `ratchet acl apply` gives what is missing and withdraws what is extra")
    if found.everyone or peculiar:
        screen.say("what is everyone's or peculiar is not ours to withdraw: its owner does, with kafka-acls")
    if screen.as_json:
        counts = {kind: len(acls) for kind, acls in kinds.items()}
        screen.json({"same": same} | counts | {"peculiar": len(peculiar)})


def _known(users: Sequence[str], known: Collection[str]) -> None:
    if unknown := [user for user in users if user not in known]:
        raise Refused(f"no Kafka user {unknown[0]!r} is generated; there are {', '.join(known)}", kind="usage")


def _row(acl: Acl) -> dict[str, str]:
    right = acl.right
    return {
        "user": acl.principal.removeprefix("User:"),
        "operation": right.operation,
        "resource": right.resource,
        "name": right.name,
        "pattern": right.pattern,
    }


async def _place(user: str) -> tuple[Settings, str, Security]:
    """Where the cluster is and who asks: of the local stack its administrator, else `user` with the secret store's password."""
    from tools.stack.secure import IN_THE_CLEAR, administration, open_security

    settings = find_settings()
    if settings.kafka_bootstrap is None:
        raise Unavailable("no stack runs here and KAFKA_BOOTSTRAP is not set: `ratchet up --secure` starts one")
    if settings.kafka_security == "plaintext":
        raise Refused(f"there are no rights to look at: {IN_THE_CLEAR}", kind="plaintext")
    ours = administration(settings.state_dir, settings.kafka_bootstrap)
    if ours is not None:
        return settings, *ours
    return settings, settings.kafka_bootstrap, await open_security(settings, user)
