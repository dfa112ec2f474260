"""`ratchet erase`: one command, then the receipt, or why nothing was erased.

The person's id goes nowhere: the command names the pseudonym, and the shredder knows no other name.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Any

from schemas.compliance import CommandErase, SubjectErased, SubjectKept
from schemas.errors import Refused
from schemas.ids import derive
from tools.cli.bus import Bus, now_ms
from tools.cli.commands import not_done, send_and_wait
from tools.cli.gating import policy_of
from tools.cli.place import an_id, open_bus
from tools.cli.place import voice as voice_of
from tools.cli.screen import Exit, Screen, clean
from tools.cli.subject import Asked, pseudonym_asked
from tools.tenants import instant

__all__ = ["Asked", "erase", "pseudonym_asked"]

ANSWERS = (SubjectErased.TYPE, SubjectKept.TYPE)
_UNTIL = {
    "payload_ms": "texts in topics",
    "compaction_ms": "the wrapped key in the keyring",
    "cache_ms": "caches",
    "backup_ms": "backups",
}
UNTOLD = "policy_gate"
"""Among the settings that stand against an erasure: the tenant has no configuration."""
Ask = Callable[[str], bool]


def asked_on_a_terminal(words: str) -> bool:
    """Whether the person who types says yes. Nobody there is no."""
    if not sys.stdin.isatty():
        raise Refused("erasing cannot be undone: --yes says so where nobody can be asked", kind="usage")
    sys.stderr.write(f"{words} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


async def erase(
    screen: Screen,
    subject: str,
    tenant: str,
    *,
    by: str | None,
    reason: str,
    yes: bool,
    wait_s: float,
    ask: Ask = asked_on_a_terminal,
    bus: Bus | None = None,
) -> int:
    """The command about a pseudonym. Exit 0: erased, now or before; 1: held, unknown or refused; 3: nobody answered."""
    an_id("tenant", tenant)
    if not yes and not ask(f"Erase subject {subject} of tenant {tenant}? It cannot be undone."):
        screen.line({"refused": "erase", "kind": "not-confirmed"}, "nothing was erased")
        return Exit.NO
    voice = await voice_of("operator", by)
    command = CommandErase(tenant=tenant, at_ms=now_ms(), operator=voice.name, reason=reason, subject=subject)

    def told(row: dict[str, Any], caused: bool) -> bool:
        return caused and row["type"] in ANSWERS

    async with bus or open_bus() as opened:
        # Asked before anything is sent: the log would keep a failed erasure of a mistyped tenant for ever.
        if await policy_of(opened, tenant) is None:
            row = {"refused": "erase", "tenant": tenant, "subject": subject, "reason": "settings", "settings": [UNTOLD]}
            screen.line(row, f"[red]no[/]: {_untold(tenant)}")
            return Exit.NO
        with screen.progress(f"erasing {subject}") as progress:
            done, rows = await send_and_wait(opened, command, told, wait_s=wait_s, progress=progress, prove=voice.prove)
    if not done:
        return not_done(screen, rows, f"erase {subject}", wait_s)
    row = rows[-1]
    if row["type"] == SubjectErased.TYPE:
        return _erased(screen, row["id"], SubjectErased.model_validate(row["data"]))
    return _kept(screen, SubjectKept.model_validate(row["data"]))


def _erased(screen: Screen, receipt: str, data: SubjectErased) -> int:
    until = {name: at for name, at in data.horizons.model_dump().items() if at}
    row = data.model_dump(mode="json", exclude={"at_ms"}) | {
        "erased": data.subject,
        "receipt": receipt,
        "effective_at": moment(data.effective_at_ms),
        "prove": f"ratchet evidence prove {receipt}",
    }
    if screen.as_json:
        screen.json(row)
        return Exit.DONE
    cut = ", ".join(f"requests[{one.partition}] below {one.offset}" for one in data.cut)
    told = ", ".join(map(clean, data.routes)) or "no route: the tenant has none"
    screen.say(
        f"[green]erased[/]    {data.keys} {'key' if data.keys == 1 else 'keys'} of {data.subject} of tenant {clean(data.tenant)}; "
        f"no legal hold stood against it\n"
        f"cut       {clean(cut)}\n"
        f"holds     from {moment(data.effective_at_ms)}, when the last copy is gone\n{_horizons(until)}"
        f"trainers  told to forget: {told}\n"
        f"receipt   {clean(receipt)}, proven by: ratchet evidence prove {clean(receipt)}"
    )
    return Exit.DONE


def _horizons(until: Mapping[str, int]) -> str:
    return "".join(
        f"          {words}: until {moment(until[name])}\n" for name, words in _UNTIL.items() if name in until
    )


def _kept(screen: Screen, data: SubjectKept) -> int:
    row = data.model_dump(mode="json", include={"tenant", "subject", "erasure", "reason", "holds", "settings"})
    if data.reason == "erased":
        receipt = derive(data.earlier, "shredder", "receipt")
        screen.line(
            row | {"erased": data.subject, "earlier": data.earlier, "changed": False, "receipt": receipt},
            f"{data.subject} of tenant {clean(data.tenant)} was erased before, and has no key since; receipt {receipt}, proven by: "
            f"ratchet evidence prove {receipt}",
        )
        return Exit.DONE
    screen.line({"refused": "erase"} | row, f"[red]no[/]: {_why(data)}")
    return Exit.NO


def _why(data: SubjectKept) -> str:
    """Why there is no receipt, and what to do."""
    whose = f"tenant {clean(data.tenant)}"
    if data.reason == "hold":
        return (
            f"a legal hold of {whose} stands against it: {', '.join(map(clean, data.holds))} "
            f"(`ratchet tenant show {whose.split()[1]}`); nothing was erased"
        )
    if data.reason == "unknown":
        return (
            f"there is no key of {data.subject} of {whose}, so nothing was found to erase; a request that came until now and that the "
            "evidence log has not read yet will not be kept readable there"
        )
    if data.settings == (UNTOLD,):
        return _untold(data.tenant)
    names = ", ".join(name.replace("_", ".") for name in data.settings)
    return f"the topic ratchet.keyring would keep what it must lose: {names} (`ratchet doctor` says what they must be); nothing was erased"


def _untold(tenant: str) -> str:
    words = "`ratchet tenant apply FILE.toml` first, or --tenant for another one; nothing was erased"
    return f"nobody said what tenant {clean(tenant)} holds: {words}"


def moment(at_ms: int) -> str:
    """A time in UTC, to the minute above: never earlier than it is."""
    return instant(
        min(-(-at_ms // 60_000) * 60_000, 253_402_300_740_000)
    )  # the last minute that has four digits of a year
