"""`ratchet erase` on a whole stack, over TLS, with Vault: a person's key is made, held, erased, and the receipt is in the log.

Then everything is searched for what the person wrote, is called and was answered: it is where docs/erasure.md says, and nowhere else.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import searching

from infra.settings import Settings
from schemas.compliance import KeyWrapped
from schemas.topics import plans, with_snapshots, with_texts
from streams import snapshot
from streams.kafka import KafkaBroker
from streams.order import Position
from streams.shapes import Record
from tools.cli import commands, place, submit, tenants
from tools.cli import subject as access
from tools.cli.bus import Bus
from tools.cli.erase import erase
from tools.cli.evidence import open_log
from tools.cli.place import open_bus
from tools.cli.screen import Exit, Screen
from tools.stack import up
from tools.stack.secure import administration
from tools.stack.vault import opened

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
TEXT = "canary7q9z has moved house"
PERSON = "alice-4w2x8k6n"
HOLD = """
[[holds]]
id = "court-7"
"""


def test_from_a_request_to_a_receipt_in_the_log(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not done where nobody said what is held; held while a hold is in force; erased once; a new key after the cut; all of it evidence;
    access opens the texts before, and none after; and nothing of the person is anywhere but in the topics that the receipt's day is for."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    old = settings.state_dir / "artifacts" / "blobs" / "00" / ("00" * 32)  # a snapshot that no topic names any more
    old.parent.mkdir(parents=True)
    old.write_bytes(snapshot.head("cases", 0, Position({}, 0)) + TEXT.encode())
    os.utime(old, (1, 1))
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
        code, _ = ran(lambda screen: submit.run(screen, TEXT, None, route="banking.intent", subject=PERSON, **told))
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

    def accessed(name: str) -> dict[str, Any]:
        capsys.readouterr()
        asked = access.Asked(PERSON, record=name == "after")
        assert access.run(Screen(as_json=True), asked, tmp_path / name, None) == Exit.DONE
        return json.loads(capsys.readouterr().out)["texts"]

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
    assert accessed("before")["opened"] > 0
    assert searching.files(tmp_path / "before", searching.needles(TEXT))
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

    texts = accessed("after")
    assert (texts["opened"], texts["erased"] > 0, texts["why"]) == (0, True, "")
    asyncio.run(search(settings, tmp_path))


async def search(settings: Settings, tmp_path: Path) -> None:
    """What may still be there, and where: docs/erasure.md, "From when it holds"."""
    records, said = await everything(settings), place.settings()
    (answer,) = {json.loads(row.value or b"{}")["text"] for row in records["ratchet.results"]}
    assert len(answer.split()) > 1  # long enough to be found by itself
    written, called, answered = (searching.needles(one) for one in (TEXT, PERSON, answer))

    def topics(wanted: tuple[bytes, ...]) -> set[str]:
        return {
            name for name, rows in records.items() if any(searching.holds(repr(row).encode(), wanted) for row in rows)
        }

    texts = set(with_texts()) - set(with_snapshots())
    assert {"ratchet.requests", "ratchet.decisions"} <= topics(written) <= texts
    assert topics(called) == {"ratchet.requests"}
    assert topics(answered) <= texts

    state, logs = settings.state_dir, "data/kafka/logs/"
    for wanted, where in ((written, topics(written)), (called, topics(called)), (answered, topics(answered))):
        found = searching.files(state, wanted)
        assert {name.removeprefix(logs).rsplit("-", 1)[0] for name in found} == where, found
        assert searching.files(tmp_path / "tmp", wanted) == searching.files(tmp_path / "after", wanted) == []
        seen, processes = searching.in_processes(state, wanted)
        assert (seen >= len(AGENTS), processes) == (True, [])
        assert said.vault_addr is not None
        secrets, held = searching.in_vault(opened(said.vault_addr, state / "data" / "vault" / "keys.json"), wanted)
        assert (secrets > 20, held) == (True, [])
        ports = json.loads((state / "stack.json").read_bytes())["metrics"]
        assert (len(ports) >= len(AGENTS), searching.in_metrics(ports, wanted)) == (True, [])
        keys, dumped = searching.in_redis(str(said.redis_url), tmp_path, wanted)
        assert dumped is bool(keys)
        assert all(key.startswith("ratchet:result:") and 0 < ttl <= 3600 for key, ttl in keys.items()), keys
        assert bool(keys) is (wanted == answered)


async def everything(settings: Settings) -> dict[str, list[Record]]:
    """Every record of every topic."""
    where = administration(settings.state_dir)
    assert where is not None
    found: dict[str, list[Record]] = {}
    async with Bus(KafkaBroker(*where), where[0]) as bus:
        for plan in plans():
            found[plan.full] = await bus.read(await bus.starts([plan.full]))
    return found


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
