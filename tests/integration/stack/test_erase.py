"""`ratchet erase` on a whole stack, over TLS, with Vault: a person's key is made, held, erased, and the receipt is in the log."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from infra.settings import Settings
from schemas.compliance import KeyWrapped
from streams.kafka import KafkaBroker
from tools.cli import commands, submit, tenants
from tools.cli.bus import Bus
from tools.cli.erase import erase
from tools.cli.evidence import open_log
from tools.cli.place import open_bus
from tools.cli.screen import Exit, Screen
from tools.stack import up
from tools.stack.secure import administration

ROUTE = Path(__file__).parents[3] / "docs" / "examples" / "banking.toml"
AGENTS = (("router", "trust"), ("cases", "judge", "ladder", "compliance"), ("inference",), ("evidence",), ("shredder",))
TENANT = """tenant = "default"
purpose = "support"
basis = "contract"
notice = "n-1"
origin = "eu"
notices = ["n-1"]

[purposes]
support = ["contract"]
"""
HOLD = """
[[holds]]
id = "court-7"
"""


def test_from_a_request_to_a_receipt_in_the_log(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not done where nobody said what is held; held while a hold is in force; erased once; a new key after the cut; all of it evidence."""
    up(settings=settings, secure=True, vault=True, agents=AGENTS, ray=False)

    def ran(command: Callable[[Screen], Coroutine[Any, Any, int]]) -> tuple[int, list[dict[str, Any]]]:
        capsys.readouterr()
        code = asyncio.run(command(Screen(as_json=True)))
        return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    def configure(more: str) -> None:
        file = tmp_path / "tenant.toml"
        file.write_text(TENANT + more, encoding="utf-8")
        assert ran(lambda screen: tenants.apply(screen, file, by=None, reason="", wait_s=30))[0] == Exit.DONE

    def ask() -> None:
        told: dict[str, Any] = {"session": None, "tenant": None, "wait_s": 30, "by": None}
        code, _ = ran(
            lambda screen: submit.run(screen, "where is my card", None, route="banking.intent", subject="alice", **told)
        )
        assert code == Exit.DONE

    def erased() -> tuple[int, dict[str, Any]]:
        how: dict[str, Any] = {"by": None, "reason": "asked", "yes": True, "wait_s": 30}
        code, rows = ran(lambda screen: erase(screen, subject, "default", **how))
        return code, rows[-1]

    def until_keyed(*epochs: int) -> None:
        deadline = time.monotonic() + 60
        while asyncio.run(keys(settings)) != [(subject, epoch) for epoch in epochs]:
            assert time.monotonic() < deadline, "no key was made"
            time.sleep(0.5)

    assert ran(lambda screen: commands.apply(screen, ROUTE, by=None, reason="", wait_s=30))[0] == Exit.DONE
    ask()
    subject = asyncio.run(pseudonym())
    code, row = erased()
    assert (code, row["reason"], row["settings"]) == (Exit.NO, "settings", ["policy_gate"])
    configure(HOLD)
    code, row = erased()
    assert (code, row["reason"], row["holds"]) == (Exit.NO, "hold", ["court-7"])
    configure("")
    until_keyed(1)
    code, receipt = erased()
    assert (code, receipt["keys"], receipt["epoch"], receipt["hold_checked"]) == (Exit.DONE, 1, 1, True)
    assert receipt["routes"] == ["banking.intent"]
    code, again = erased()
    assert (code, again["changed"], again["receipt"]) == (Exit.DONE, False, receipt["receipt"])
    assert asyncio.run(keys(settings)) == [(subject, 1)]

    ask()  # the person came back; what was said again took the epoch between
    until_keyed(1, 3)
    code, second = erased()
    assert (code, second["keys"], second["epoch"]) == (Exit.DONE, 1, 3)

    wanted = {receipt["receipt"], second["receipt"]}
    deadline = time.monotonic() + 60
    while not wanted <= (found := receipts()).keys() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert {found[one]["keys"] for one in wanted} == {1}
    assert all(found[one]["hold_checked"] for one in wanted)
    assert found[second["receipt"]]["effective_at_ms"] == second["effective_at_ms"]


async def pseudonym() -> str:
    """The subject as decisions name it."""
    async with open_bus() as bus:
        records = await bus.read(await bus.starts(["ratchet.decisions"]))
    (found,) = {json.loads(record.value or b"")["subject"] for record in records}
    return str(found)


async def keys(settings: Settings) -> list[tuple[str, int]]:
    """Subject and epoch of the wrapped keys there were: by the broker's administrator, for the operator may not read the keyring."""
    where = administration(settings.state_dir)
    assert where is not None
    async with Bus(KafkaBroker(*where), where[0]) as bus:
        records = await bus.read(await bus.starts(["ratchet.keyring"]))
    rows = [json.loads(record.value) for record in records if record.value is not None and b"wrapped" in record.value]
    events = [KeyWrapped.model_validate(row) for row in rows]
    return sorted((event.subject, event.epoch) for event in events)


def receipts() -> dict[str, dict[str, Any]]:
    """Facts of the log's entries about erasures, by event id."""
    entries = (json.loads(entry) for _, entry in open_log(None).entries())
    return {entry["id"]: entry["facts"] for entry in entries if entry["type"] == "subject.erased"}
