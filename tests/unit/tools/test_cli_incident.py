"""`ratchet incident` and `ratchet tenant`: what they show and say; the whole way is tried on a real broker."""

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable
from pathlib import Path
from typing import Any

import pytest
from complying import HOUR, NOW, WHOLE, assess, complying, configured, said, step, violation
from folding import Folding
from living import living
from streams_contract import FAST

from agents.evidence.compliance import Compliance
from infra.clock import SystemClock
from schemas import codec, ids
from schemas.compliance import Notice, PolicyGate
from schemas.errors import Refused
from schemas.payload import Payload
from schemas.topics import plans
from streams.admin import ensure_groups
from streams.memory import MemoryBroker
from streams.port import TopicSpec
from streams.runner import Runner
from streams.shapes import Record
from tools.cli import incidents as incidents_cli
from tools.cli import tenants as tenants_cli
from tools.cli.bus import Bus
from tools.cli.events import as_row
from tools.cli.incidents import Asked, Found, clock_words, listed, open_rows, say_open, show, shown, take, told
from tools.cli.screen import Exit, Screen
from tools.cli.tenants import apply
from tools.cli.tenants import show as tenant_show
from tools.cli.tenants import shown as tenant_shown

PARTITIONS = 2
STEPS = (step("detect", NOW - 10 * HOUR), assess(risk=True))


def found(fold: Folding, name: str = "breach") -> Found:
    return Found("bank", name, fold.cells["bank"].entries[name])


def row_of(payload: Payload) -> dict[str, Any]:
    event_id = ids.derive("effect", "test", 0)
    row = codec.encode(payload, event_id=event_id, source="test", traceparent=ids.trace_parent(None, event_id))
    return as_row(Record("ratchet." + payload.TOPIC, 0, 0, row.key, row.value, row.headers, payload.at_ms))


@pytest.mark.parametrize(
    ("steps", "at_ms", "words"),
    [
        (STEPS, NOW, "[green]62.0 h left to notify[/]"),
        (STEPS, NOW + 50 * HOUR, "[yellow]12.0 h left"),
        (STEPS, NOW + 65 * HOUR, "[red]overdue for 3.0 h[/]"),
        ((*STEPS, step("notify", notice=WHOLE)), NOW, "[dim]no clock runs[/]"),
        ((*STEPS, step("notify", NOW + 70 * HOUR)), NOW, "[red]notified late[/]"),
    ],
)  # fmt: skip
def test_how_long_is_left(steps: tuple[Payload, ...], at_ms: int, words: str) -> None:
    """In hours; red once it is overdue, or was late."""
    fold = complying()
    said(fold, *steps)
    assert clock_words(found(fold).incident, at_ms).startswith(words)


def test_an_incident_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """For people its notice item by item and what may be done next; for scripts the same as a row."""
    fold = complying()
    said(fold, *STEPS, step("notify", notice=Notice(nature=True)))
    history = [row_of(event) for event in fold.emitted]
    history[0]["reason"] = "a lost [file]"
    shown(Screen(as_json=False), found(fold), history, NOW)
    page = capsys.readouterr().out
    for words in (
        "breach  bank  notified", "personal data, high risk", "were not told", "no   who can be asked",
        "yes  what happened", "next         assess, notify, tell, contain", "detected by ana “a lost [file]”",
    ):  # fmt: skip
        assert words in page
    shown(Screen(as_json=True), found(fold), history, NOW)
    row = json.loads(capsys.readouterr().out)
    assert (row["incident"], row["state"], row["left_h"]) == ("breach", "notified", None)
    assert row["missing"] == ["contact", "consequences", "measures"]
    assert len(row["history"]) == 3


def test_a_violation_is_shown_with_its_entry_and_what_joined_it(capsys: pytest.CaptureFixture[str]) -> None:
    """And the controls that it violates."""
    fold = complying()
    said(fold, violation(7), violation(9))
    shown(Screen(as_json=False), found(fold, "v-7"), [], NOW)
    page = capsys.readouterr().out
    assert "offset-gap, entry 7 of the evidence log, and 1 more, the last at 9" in page
    assert "hipaa-164.312.b" in page


@pytest.mark.parametrize(
    ("before", "command", "words"),
    [
        (STEPS[:1], step("notify"), "notify breach: its states allow no such step now; accepted now: assess"),
        (STEPS[:1], step("detect"), "open breach: the id is taken"),
        ((STEPS[0], assess()), step("tell"), "no high risk was assessed"),
        (STEPS, step("not_notifiable", reason="x"), "the authority has to be notified"),
        ((STEPS[0], assess()), step("not_notifiable"), "not-notifiable breach: personal data is concerned: say why"),
    ],
)
def test_a_refused_step_says_why_and_what_is_accepted(
    before: tuple[Payload, ...], command: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 1."""
    fold = complying()
    said(fold, *before)
    (event,) = fold.take(command)
    asked = Asked(command.step, "breach")
    assert told(Screen(as_json=False), asked, row_of(event), found(fold)) == Exit.NO
    assert words in capsys.readouterr().out
    assert told(Screen(as_json=True), asked, row_of(event), found(fold)) == Exit.NO
    row = json.loads(capsys.readouterr().out)
    assert (row["refused"], row["why"]) == (command.step, event.model_dump()["why"])
    assert row["now"]["next"]


def test_a_step_that_is_done_says_what_is_next(capsys: pytest.CaptureFixture[str]) -> None:
    """And what a notice lacks. Exit code 0."""
    fold = complying()
    said(fold, *STEPS)
    (event,) = fold.take(step("notify", notice=Notice(nature=True)))
    assert told(Screen(as_json=False), Asked("notify", "breach"), row_of(event), found(fold)) == Exit.DONE
    page = capsys.readouterr().out
    assert "done breach  bank  notified" in page
    assert "the notice does not say who can be asked; what is likely to follow" in page
    assert "next: assess, notify, tell, contain" in page


# the whole way, on the broker in memory


class Desk:
    """The agent at work, and an operator before it. Answers are JSON rows."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.broker = MemoryBroker(PARTITIONS, clock=SystemClock())
        self.screen = Screen(as_json=True)
        self._capsys = capsys

    def bus(self) -> Bus:
        return Bus(self.broker, "memory")

    async def start(self) -> None:
        admin = self.broker.admin()
        await admin.start()
        await admin.create([TopicSpec(row.full, PARTITIONS, 1, row.config) for row in plans()])
        self.runner = Runner(self.broker, self.broker.clock, settings=FAST)
        self.runner.add_fold(Compliance())
        await ensure_groups("memory", self.runner.groups(), admin=admin)
        self.task = asyncio.create_task(self.runner.run())

    async def said(self, work: Awaitable[int]) -> tuple[int, list[dict[str, Any]]]:
        code = await work
        return code, [json.loads(line) for line in self._capsys.readouterr().out.splitlines()]

    async def do(self, name: Any, incident: str = "breach", **more: Any) -> tuple[int, dict[str, Any]]:
        code, rows = await self.said(take(self.screen, Asked(name, incident, by="ann", **more)))
        return code, rows[-1]


@pytest.fixture
async def desk(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> AsyncGenerator[Desk, None]:
    """Where no principal has a key: everybody is who they say."""
    monkeypatch.setenv("RATCHET_STATE_DIR", str(tmp_path))
    monkeypatch.delenv("RATCHET_SECRETS", raising=False)
    made = Desk(capsys)
    for module in (incidents_cli, tenants_cli):
        monkeypatch.setattr(module, "open_bus", made.bus)
    async with living(made):
        yield made


async def test_from_open_to_close(desk: Desk) -> None:
    """Each step with its event and how the incident stands then; what is closed is listed only where it is asked for."""
    code, row = await desk.do("detect", tenant="bank", aware_at_ms=SystemClock().now_ms() - HOUR, reason="a lost file")
    assert (code, row["now"]["state"], 70.9 < row["now"]["left_h"] <= 71) == (0, "detected", True)
    code, row = await desk.do("close")
    assert (code, row["why"], row["now"]["next"]) == (1, "order", ["assess"])
    assert (await desk.do("assess", personal_data=True, high_risk=True))[0] == 0
    code, row = await desk.do("notify", notice=Notice(nature=True, contact=True))
    assert (code, row["now"]["missing"], row["now"]["left_h"]) == (0, ["consequences", "measures"], None)
    assert (await desk.said(listed(desk.screen, None, every=False)))[1][0]["incident"] == "breach"
    for name in ("tell", "contain", "close"):
        assert (await desk.do(name))[0] == 0
    assert (await desk.said(listed(desk.screen, None, every=False))) == (0, [])
    assert len((await desk.said(listed(desk.screen, "bank", every=True)))[1]) == 1
    code, rows = await desk.said(show(desk.screen, "breach", None))
    assert [event["type"] for event in rows[0]["history"]] == [
        f"incident.{state}" for state in ("detected", "refused", "assessed", "notified", "told", "contained", "closed")
    ]
    assert [event["reason"] for event in rows[0]["history"]] == ["a lost file", *[""] * 6]


async def test_an_unknown_incident_and_one_of_two_tenants_are_named(desk: Desk) -> None:
    """The first is a no; for the second the tenant has to be given, and the most urgent comes first."""
    assert (await desk.do("assess", personal_data=True, high_risk=False))[0] == 1
    assert (await desk.said(show(desk.screen, "breach", None)))[0] == 1
    assert (await desk.do("detect", tenant="shop"))[0] == 0
    assert (await desk.do("detect", tenant="bank", aware_at_ms=SystemClock().now_ms() - HOUR))[0] == 0
    with pytest.raises(Refused, match="give --tenant, one of bank, shop"):
        await desk.do("contain")
    assert (await desk.do("detect"))[1]["now"]["tenant"] == "default"
    rows = (await desk.said(listed(desk.screen, None, every=False)))[1]
    assert [row["tenant"] for row in rows] == ["bank", "shop", "default"]
    with pytest.raises(Refused, match="--aware: lies ahead"):
        await desk.do("detect", "new", aware_at_ms=SystemClock().now_ms() + HOUR)
    with pytest.raises(Refused, match="'2026-11-22' is not accepted: a letter, then"):
        await desk.do("detect", "2026-11-22")


async def test_status_names_what_is_open(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    """The most urgent first, and how late it is."""
    await desk.do("detect", tenant="shop")
    await desk.do("detect", "late", tenant="bank", aware_at_ms=SystemClock().now_ms() - 73 * HOUR)
    async with desk.bus() as bus:
        say_open(Screen(as_json=False), await open_rows(bus))
    assert capsys.readouterr().out.splitlines() == [
        "incident late of bank: detected, overdue for 1.0 h; `ratchet incident`",
        "incident breach of shop: detected, to notify within 72.0 h; `ratchet incident`",
    ]


async def test_a_tenant_file_is_applied_and_shown(desk: Desk, tmp_path: Path) -> None:
    """With what changes, and what of it has no effect; the same file again is no command."""
    file = tmp_path / "tenant.toml"
    file.write_text('tenant = "bank"\nnotify_hours = 24\n[purposes]\nsupport = ["vital_interest"]\n')
    assert (await desk.said(tenant_show(desk.screen, "bank")))[0] == 1
    code, (row,) = await desk.said(apply(desk.screen, file, by="ann", reason="", wait_s=10))
    assert (code, row["applied"], row["version"], row["changed"]) == (0, "bank", 1, True)
    assert row["changes"]["notify_hours"] == {"before": None, "after": 24}
    assert "purposes.support: none of ['vital_interest'] fits it" in row["without_effect"][0]
    code, (row,) = await desk.said(apply(desk.screen, file, by="ann", reason="", wait_s=10))
    assert (code, row["version"], row["changed"]) == (0, 1, False)
    file.write_text('tenant = "bank"\nnotify_hours = 48\n')
    code, (row,) = await desk.said(apply(desk.screen, file, by="ann", reason="", wait_s=10))
    assert (code, row["version"], sorted(row["changes"])) == (0, 2, ["notify_hours", "purposes"])
    code, (row,) = await desk.said(tenant_show(desk.screen, None))
    assert (code, row["tenant"], row["author"], row["settings"]["notify_hours"]) == (0, "bank", "ann", 48)


def test_a_configuration_is_shown_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Who applied which version, each permission with its end, and what has no effect."""
    fold = complying()
    settings: dict[str, Any] = {
        "purposes": {"support": ("contract",)},
        "notice": "old",
        "exemptions": ({"id": "e1", "rule": "gdpr-9", "then": "mask", "until_ms": NOW - 1},),
    }
    (policy,) = fold.take(configured(**settings))
    assert isinstance(policy, PolicyGate)
    tenant_shown(Screen(as_json=False), policy, NOW)
    page = capsys.readouterr().out
    for words in (
        "bank  version 1, by ana, 2027-01-15 08:00 UTC",
        "support, on contract",
        "ended 2027-01-15 07:59 UTC",
    ):
        assert words in page
    assert "without effect notice: 'old' is not the tenant's; accepted: []" in page
