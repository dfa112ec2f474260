"""`ratchet gate`, on a local secret store and the broker in memory: what is listed, made and taken away, and what is never shown."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from answering import KEYS, VALUES, sealed
from commanded import Run, commanded, never_up
from gatekeeping import Ward

from infra import gate_keys
from infra.clock import SystemClock
from infra.keys import LEAD_MS
from infra.sealing import GATE_SECRET, GateKeys
from infra.secrets import LocalSecrets
from schemas.events import AnswerWithheld, DecisionRouted
from streams.memory import MemoryBroker
from tools.cli import gate_keys as work
from tools.cli.bus import Bus
from tools.cli.screen import Exit, Screen

NOW = SystemClock().now_ms()
MINUTE = 60_000
LATER = NOW - 2 * MINUTE


@pytest.fixture
def ratchet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """`ratchet gate …`. No stack was ever up here."""
    never_up(monkeypatch, tmp_path)
    return commanded(monkeypatch, capsys, "gate")


@pytest.fixture
def store(ratchet: Run, tmp_path: Path) -> LocalSecrets:
    """The store of a stack that was up once."""
    return LocalSecrets.open(tmp_path / "secrets.json")


def rotated(store: LocalSecrets) -> str:
    """A key that seals since two minutes."""
    return asyncio.run(gate_keys.rotate(store, LATER - LEAD_MS)).name


def test_a_rotation_is_told_and_no_key_is(ratchet: Run, store: LocalSecrets) -> None:
    """Which seals, which opens, from when; said again while the new one waits it is refused, and nothing has changed."""
    assert ratchet("keys")[1] == [{"key": "key", "state": "seals", "from_ms": 0, "until_ms": None}]
    code, (made,), first = ratchet("rotate")
    assert (code, made["rotated"], made["state"]) == (0, True, "not yet")
    assert NOW + LEAD_MS <= made["from_ms"] <= SystemClock().now_ms() + LEAD_MS
    held = asyncio.run(store.get(GATE_SECRET))
    code, _, second = ratchet("rotate")
    assert (code, f"{made['key']} is made and does not seal yet" in second) == (2, True)
    assert asyncio.run(store.get(GATE_SECRET)) == held
    code, (former, new), third = ratchet("keys")
    assert (code, former["until_ms"], new["from_ms"], new["state"]) == (0, made["from_ms"], made["from_ms"], "not yet")
    assert not [text for text in held.values() if text in first + second + third]


def test_wrong_uses_say_what_is_accepted(ratchet: Run, store: LocalSecrets, tmp_path: Path) -> None:
    """Before Kafka is asked for anything; and where there is no store yet, what makes one."""
    for words, said in ((("retire", "key"), "key seals now"), (("retire", "k-1"), "the gate has no key 'k-1'")):
        code, _, told = ratchet(*words)
        assert (code, said in told) == (2, True)
    rotated(store)
    code, _, told = ratchet("retire", "key")
    assert (code, "no stack runs here" in told) == (3, True)
    assert set(asyncio.run(store.get(GATE_SECRET))) == {"key", f"key-{LATER}"}
    (tmp_path / "secrets.json").unlink()
    code, _, told = ratchet("rotate")
    assert (code, "`ratchet up` makes one" in told) == (3, True)


def test_with_a_vault_it_says_which_token(ratchet: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that names fields and patches: it need not read a key."""
    monkeypatch.setenv("RATCHET_SECRETS", "vault")
    monkeypatch.setenv("VAULT_ADDR", "http://127.0.0.1:9")
    code, _, told = ratchet("keys")
    assert (code, "read ratchet/subkeys/gate and patch ratchet/data/gate" in told) == (3, True)


class Shop:
    """Decisions and answers on a broker."""

    def __init__(self) -> None:
        self.broker = MemoryBroker(2, clock=SystemClock())

    async def decided(self, request: str, mask_map: str) -> None:
        (made, *_) = await Ward().ask("hello", request_id=request)
        assert isinstance(made, DecisionRouted)
        self.broker.publish(made.model_copy(update={"mask_map": mask_map}))

    def answered(self, request: str) -> None:
        told = {"tenant": "clinic", "at_ms": NOW, "route": "ward", "request_id": request, "reason": "gate"}
        place = {"decision_id": "d", "request_partition": 0, "request_offset": 1}
        self.broker.publish(AnswerWithheld.model_validate(told | place))

    async def retire(self, name: str, **more: Any) -> int:
        return await work.retire(
            Screen(as_json=True), name, **({"anyway": False, "bus": Bus(self.broker, "memory")} | more)
        )


def row(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


async def test_a_key_is_retired_when_every_answer_under_it_is_out(
    store: LocalSecrets, capsys: pytest.CaptureFixture[str]
) -> None:
    """Requests that were masked under it and wait are named, and nothing is done; what another key sealed, or nobody, does not count."""
    await gate_keys.rotate(store, LATER - LEAD_MS)
    shop = Shop()
    newer = GateKeys(bytes(32), {LATER: bytes(32)}).seal_map("clinic", "r3", "x", VALUES, LATER)
    for request, mask_map in (("r1", sealed("r1")), ("r2", sealed("r2")), ("r3", newer), ("r4", "")):
        await shop.decided(request, mask_map)
    shop.answered("r1")
    assert await shop.retire("key") == Exit.NO
    told = row(capsys)
    assert (told["retired"], told["under_way"], told["requests"]) == (False, 1, ["r2"])
    assert "key" in await store.get(GATE_SECRET)
    shop.answered("r2")
    assert await shop.retire("key") == Exit.DONE
    told = row(capsys)
    assert (told["retired"], told["key"], told["state"], told["until_ms"]) == (True, "key", "retired", LATER)
    held = await store.get(GATE_SECRET)
    assert set(held) == {f"key-{LATER}", "retired-0"}
    assert await shop.retire("key") == Exit.DONE
    assert row(capsys)["state"] == "retired"
    assert await store.get(GATE_SECRET) == held


async def test_it_can_be_retired_all_the_same(store: LocalSecrets, capsys: pytest.CaptureFixture[str]) -> None:
    """A stolen key has to go at once: Kafka is not asked."""
    await gate_keys.rotate(store, LATER - LEAD_MS)
    assert await work.retire(Screen(as_json=True), "key", anyway=True) == Exit.DONE
    assert row(capsys)["state"] == "retired"


async def test_in_words(store: LocalSecrets, capsys: pytest.CaptureFixture[str]) -> None:
    """What a person reads: times, what goes on, what is lost."""
    screen = Screen(as_json=False)
    await gate_keys.rotate(store, LATER - LEAD_MS)
    assert await work.rotate(screen) == Exit.DONE
    assert "the former keys go on opening what they sealed" in capsys.readouterr().out
    assert await work.listed(screen) == Exit.DONE
    said = capsys.readouterr().out
    assert all(word in said for word in ("the beginning", "opens", "seals", "not yet", "UTC"))
    shop = Shop()
    await shop.decided("r1", KEYS.seal_map("clinic", "r1", "x", VALUES))
    assert await work.retire(screen, "key", anyway=False, bus=Bus(shop.broker, "memory")) == Exit.NO
    assert "answers under way under key: 1 (r1); nothing was done" in capsys.readouterr().out
    shop.answered("r1")
    assert await work.retire(screen, "key", anyway=False, bus=Bus(shop.broker, "memory")) == Exit.DONE
    assert "marks of answers under it can no longer be checked" in capsys.readouterr().out
