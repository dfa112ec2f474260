"""`ratchet dlq` and `ratchet offsets` on the broker in memory: what is said, what is refused, with which exit code."""

import itertools
import json
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from infra import keys
from infra.clock import SystemClock
from infra.secrets import LocalSecrets
from schemas.errors import Refused
from schemas.events import Message, RequestSubmitted
from schemas.principal import Ring, verify
from streams.crashes import Crashes
from streams.letters import Letter
from streams.memory import MemoryBroker
from streams.shapes import Place, Record
from streams.wire import decode, letter
from tools.cli import letters, offsets
from tools.cli.bus import Bus
from tools.cli.repairs import By, agent_of, place_of, speaking, vouching
from tools.cli.screen import Screen

ANN = By("ann", "why")
JSON = Screen(as_json=True)


class Ticking(SystemClock):
    """A millisecond later each time it is asked: no two records have one time."""

    def __init__(self) -> None:
        self.times = itertools.count(super().now_ms())

    def now_ms(self) -> int:
        return next(self.times)


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker(2, clock=SystemClock())


@pytest.fixture
async def bus(broker: MemoryBroker) -> AsyncGenerator[Bus, None]:
    async with Bus(broker, "memory") as made:
        yield made


def bury(
    broker: MemoryBroker, name: str, agent: str = "router", kind: str = "invalid", value: bytes | None = None
) -> str:
    """A dead request; the place of its letter."""
    sent = RequestSubmitted(
        at_ms=1, route="r", request_id=name, tenant="acme", messages=(Message(role="user", content="x"),)
    )
    record = broker.publish(sent)
    if value is not None:
        record = broker.put(record.topic, record.key, value, record.headers)
    row = letter(record, agent=agent, kind=kind, message=f"{name} is no good", attempts=2, at_ms=1_700_000_000_000)
    return str(broker.append((row.topic, row.partition), row.record, None).place)


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


async def sent_back(broker: MemoryBroker, bus: Bus, place: str, **how: Any) -> int:
    found = await letters.find(bus, place_of(place))
    return await letters.send(JSON, broker, bus, found, ANN, None, edit=how.get("edit"), again=how.get("again", False))


async def test_open_letters_are_listed_newest_first(
    broker: MemoryBroker, bus: Bus, capsys: pytest.CaptureFixture[str]
) -> None:
    """By agent, kind and topic; settled ones only with --all, and then how; what is no letter of ours is left out."""
    broker.clock = Ticking()
    places = [bury(broker, "a"), bury(broker, "b", agent="cases"), bury(broker, "c", kind="poison")]
    broker.put("ratchet.requests.dlq", b"x", b"no letter")
    assert await sent_back(broker, bus, places[0]) == 0
    capsys.readouterr()
    for asked, expected in (
        (letters.Asked(), ["c", "b"]),
        (letters.Asked(agent="cases"), ["b"]),
        (letters.Asked(kind="poison", topic="requests"), ["c"]),
        (letters.Asked(topic="verdicts.dlq"), []),
        (letters.Asked(every=True, limit=2), ["c", "b"]),
    ):
        assert await letters.listed(JSON, bus, asked) == 0
        *rows, last = said(capsys)
        assert [row["key"] for row in rows] == expected
        assert last["summary"]["shown"] == len(expected)
    await letters.listed(JSON, bus, letters.Asked(every=True))
    settled = next(row for row in said(capsys) if row.get("key") == "a")
    assert (settled["state"], settled["settled"]["by"], settled["agent"]) == ("sent back", "ann", "router")
    with pytest.raises(Refused, match=r"accepted: requests\.dlq"):
        await letters.listed(JSON, bus, letters.Asked(topic="nosuch"))


async def test_a_letter_is_shown_safely_and_saved_whole(
    broker: MemoryBroker, bus: Bus, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """No control character reaches the terminal; the saved value is the very bytes, and nothing is overwritten."""
    value = b'{"text": "\x1b[2J [red]x[/]"}'
    place = place_of(bury(broker, "a", value=value))
    file = tmp_path / "value"
    assert await letters.show(Screen(as_json=False), bus, place, file) == 0
    shown = capsys.readouterr().out
    assert "\x1b[2J" not in shown
    assert "[red]x[/]" in shown
    assert "a is no good" in shown
    assert file.read_bytes() == value
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(Refused, match="not there yet"):
        await letters.show(JSON, bus, place, file)
    await letters.show(JSON, bus, place, None)
    (row,) = said(capsys)
    assert (row["form"], row["state"], dict(row["headers"])["ce_source"]) == ("text", "open", "test")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ("none", "")),
        (b"\xff", ("base64", "/w==")),
        (b"{", ("text", "{")),
        (b'{"a":1}', ("json", '{\n  "a": 1\n}')),
    ],
)
def test_any_payload_has_a_form(value: bytes | None, expected: tuple[str, str]) -> None:
    """JSON indented, text as it is, other bytes as base64, none as none."""
    assert letters.rendered(value) == expected


def test_a_long_payload_is_cut_with_a_sign() -> None:
    """And says where the rest is."""
    assert letters.rendered(b"x" * 30_000)[1].endswith("(cut at 20,000 of 30,000 characters; --save)")


async def test_send_back_and_discard_are_told(
    broker: MemoryBroker, bus: Bus, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """The event names operator, reason, tenant and both places; an edited copy comes from a file."""
    one, two = bury(broker, "a"), bury(broker, "b")
    file = tmp_path / "edited"
    file.write_bytes((await letters.find(bus, place_of(one))).record.value or b"")
    edit = letters.edit_of(await letters.find(bus, place_of(one)), file, None)
    assert await sent_back(broker, bus, one, edit=edit) == 0
    found = await letters.find(bus, place_of(two))
    assert await letters.discard(JSON, broker, bus, found, ANN, again=False) == 0
    with pytest.raises(Refused, match="was discarded by ann"):
        await sent_back(broker, bus, two)
    rows = said(capsys)
    assert (rows[0]["sent"], rows[0]["edited"], rows[1]["discarded"]) == (one, True, two)
    resend, discard = (row.data for row in broker.events("commands"))
    assert (resend.TYPE, discard.TYPE) == ("command.resend", "command.discard")
    for command, place in ((resend, one), (discard, two)):
        where = command.model_dump()
        assert f"{where['letter_topic']}[{where['letter_partition']}]@{where['letter_offset']}" == place
        assert (where["operator"], where["reason"], where["tenant"], where["agent"]) == ("ann", "why", "acme", "router")


async def test_what_is_no_letter_is_refused(broker: MemoryBroker, bus: Bus) -> None:
    """Another topic, no such partition, no such record, an unknown type, a file that is not there."""
    place = bury(broker, "a")
    for text, match in (
        ("requests/0/0", "no dead-letter topic"),
        ("requests.dlq/7/0", "partitions 0 to 1"),
        ("requests.dlq/0/99", "no committed record"),
        ("requests.dlq", "topic/partition/offset"),
    ):
        with pytest.raises(Refused, match=match):
            await letters.find(bus, place_of(text))
    found = await letters.find(bus, place_of(place))
    with pytest.raises(Refused, match="unknown event type"):
        letters.edit_of(found, None, "no.such")
    with pytest.raises(Refused, match="No such file"):
        letters.edit_of(found, Path("nosuch"), None)


def test_places_are_read_in_both_forms() -> None:
    """With brackets or with slashes, with or without prefix."""
    expected = Place("ratchet.requests.dlq", 0, 12)
    assert [place_of(text) for text in ("requests.dlq[0]@12", "ratchet.requests.dlq/0/12")] == [expected, expected]


async def test_offsets_are_shown_with_lag_and_halt(
    broker: MemoryBroker, bus: Bus, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each group on each partition; a lane that halts is named as long as its group has not passed the place."""
    monkeypatch.setenv("RATCHET_STATE_DIR", str(tmp_path))
    bury(broker, "a")
    (record,) = broker.records("requests")
    for _ in range(3):
        Crashes(tmp_path / "runner", "router", record.partition).count(record.place)
    assert await offsets.show(JSON, bus, "router") == 0
    mine = {(row["topic"], row["partition"]): row for row in said(capsys)}
    row = mine["ratchet.requests", record.partition]
    assert (row["lag"], row["halted_at"], row["lost"]) == (1, str(record.place), False)
    assert mine["ratchet.requests", 1 - record.partition]["halted_at"] is None
    broker.committed["ratchet.router", ("ratchet.requests", record.partition)] = 1
    await offsets.show(JSON, bus, None)
    rows = said(capsys)
    assert {row["group"] for row in rows} > {"ratchet.router", "ratchet.cases"}
    assert not any(row["halted_at"] for row in rows)


async def test_offsets_move_only_with_yes(broker: MemoryBroker, bus: Bus, capsys: pytest.CaptureFixture[str]) -> None:
    """Without it the plan is said and the exit code is 1; with it each partition is moved and told."""
    for name in ("a", "b", "c", "d"):
        bury(broker, name)
    router = agent_of("router")
    assert await offsets.shift(JSON, broker, bus, router, ["requests@end"], ANN, yes=False) == 1
    assert {row["moved"] for row in said(capsys)} == {False}
    assert broker.committed == {}
    assert await offsets.shift(JSON, broker, bus, router, ["requests@end"], ANN, yes=True) == 0
    rows = said(capsys)
    assert sum(row["to"] - row["from"] for row in rows) == 4
    assert [row.data.TYPE for row in broker.events("commands")] == ["command.offsets"] * len(rows)
    assert await offsets.shift(JSON, broker, bus, router, ["requests@end"], ANN, yes=True) == 0
    assert said(capsys)[0]["changed"] is False
    assert await offsets.shift(JSON, broker, bus, router, ["requests[0]@0", "requests/1@start"], ANN, yes=True) == 0
    for text, match in (("requests", "accepted"), ("cases@0", "does not read"), ("requests[9]@0", "partitions 0 to 1")):
        with pytest.raises(Refused, match=match):
            await offsets.shift(JSON, broker, bus, router, [text], ANN, yes=True)


async def test_a_halted_record_is_skipped_and_told(
    broker: MemoryBroker, bus: Bus, capsys: pytest.CaptureFixture[str]
) -> None:
    """A dead letter with operator and reason, which is then listed like any other."""
    record = broker.publish(
        RequestSubmitted(at_ms=1, route="r", request_id="q", messages=(Message(role="user", content="x"),))
    )
    assert await letters.skip(JSON, broker, bus, record.place, "router", ANN) == 0
    (dead,) = broker.records("requests.dlq")
    assert (Letter.of(dead).message, Letter.of(dead).kind) == ("by ann: why", "skipped")
    assert [row.data.TYPE for row in broker.events("commands")] == ["command.skip"]
    with pytest.raises(Refused, match="accepted: router"):
        await letters.skip(JSON, broker, bus, record.place, "nosuch", ANN)


@pytest.fixture
async def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ring:
    """A secret store as a local stack has it, and an operator for one tenant only."""
    monkeypatch.setenv("RATCHET_STATE_DIR", str(tmp_path))
    store = LocalSecrets.open(tmp_path / "secrets.json")
    now = SystemClock().now_ms()
    await keys.ensure(store, keys.LOCAL, now_ms=now)
    await keys.add(store, "bounded", ["operator"], ["globex"], now_ms=now, lead_ms=0)
    return await keys.load_ring(store)


def heard(ring: Ring, row: Record) -> str:
    """Who is heard in a record."""
    speaker = verify(
        ring, topic=row.topic, headers=row.headers, key=row.key, value=row.value, at_ms=SystemClock().now_ms()
    )
    assert speaker is not None
    speaker.admits(decode(row, 2).data)
    return speaker.name


async def test_command_and_record_are_proven(broker: MemoryBroker, bus: Bus, ring: Ring) -> None:
    """The operator proves the command; what goes back is proven by whoever may speak there."""
    found = await letters.find(bus, place_of(bury(broker, "a")))
    by = await speaking(None, "why")
    vouch = await vouching(found, found.record.value, None)
    await letters.send(JSON, broker, bus, found, by, vouch, edit=None, again=False)
    assert heard(ring, broker.records("commands")[-1]) == "operator"
    assert heard(ring, broker.records("requests")[-1]) == "demo"


async def test_nobody_vouches_unasked_for_what_was_not_proven(broker: MemoryBroker, bus: Bus, ring: Ring) -> None:
    """A record whose proof did not hold goes back only under a name that was given, of one who may speak there."""
    found = await letters.find(bus, place_of(bury(broker, "a", kind="forged")))
    with pytest.raises(Refused, match="--sender NAME"):
        await vouching(found, found.record.value, None)
    with pytest.raises(Refused, match="has not the role upstream"):
        await vouching(found, found.record.value, "operator")
    assert await vouching(found, found.record.value, "demo") is not None
    row = letter(
        Record("ratchet.cases", 0, 0, b"r", b"{}", (), 0), agent="judge", kind="x", message="", attempts=1, at_ms=1
    )
    other = Letter.of(broker.append((row.topic, row.partition), row.record, None))
    assert await vouching(other, b"{}", None) is None
    with pytest.raises(Refused, match=r"nobody proves what lies on ratchet\.cases"):
        await vouching(other, b"{}", "demo")


async def test_an_operator_of_one_tenant_leaves_others_alone(broker: MemoryBroker, bus: Bus, ring: Ring) -> None:
    """Agents would refuse the command, so nothing is sent: another tenant's letter, a lane, offsets."""
    by = await speaking("bounded", "why")
    place = bury(broker, "a")
    found, tried = await letters.find(bus, place_of(place)), agent_of("router")
    for work in (
        letters.send(JSON, broker, bus, found, by, None, edit=None, again=False),
        letters.discard(JSON, broker, bus, found, by, again=False),
        letters.skip(JSON, broker, bus, found.record.place, "router", by),
        offsets.shift(JSON, broker, bus, tried, ["requests@end"], by, yes=True),
    ):
        with pytest.raises(Refused, match="does not speak for"):
            await work
    assert broker.records("commands") == []


def ratchet(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "tools.ratchet", *words], capture_output=True, text=True, check=False)


def test_exit_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 with what would be accepted, 3 with what is away, both also as JSON."""
    monkeypatch.setenv("RATCHET_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("KAFKA_BOOTSTRAP", "127.0.0.1:1")
    wrong = ratchet("dlq", "send", "nonsense", "--json")
    assert (wrong.returncode, "accepted" in json.loads(wrong.stdout)["error"]) == (2, True)
    away = ratchet("offsets", "--agent", "router", "--json")
    assert (away.returncode, "127.0.0.1:1" in json.loads(away.stdout)["error"]) == (3, True)
