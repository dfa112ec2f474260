"""The gate's key is rotated under a running stack, with a real Vault and a real Kafka: nothing restarts, and no answer is lost."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commanded import Run, commanded, vault_stack

from agents.rules.ai_mark import key_of
from infra.clock import SystemClock
from infra.keys import LEAD_MS
from infra.sealing import GATE_SECRET, gate_keys, map_key
from infra.settings import Settings
from schemas.errors import Refused
from schemas.gate import FIRST_KEY
from streams.kafka import KafkaBroker
from tools.cli.bus import Bus
from tools.cli.marks import checked
from tools.stack.vault import opened

NOW = SystemClock().now_ms
AGENTS = (("router", "trust"), ("cases", "judge", "compliance"), ("inference",))
TEXT = "write to anna.schmidt@example.org, please"
TENANT = """tenant = "shop"
purpose = "service"
basis = "contract"
notice = "n1"
origin = "eu"
notices = ["n1"]
retention_days = 400
[purposes]
service = ["contract"]
[[flows]]
origin = "eu"
region = "eu"
"""
ROUTE = """route = "{name}"
tenant = "shop"
release = "{release}"
champion = "a"
review_share = 0.0
[[arms]]
arm = "a"
base = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
region = "eu"
"""


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    with vault_stack(tmp_path, monkeypatch, AGENTS) as settings:
        yield settings


@pytest.fixture
def ratchet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return commanded(monkeypatch, capsys)


def log_of(settings: Settings, topic: str) -> dict[str, dict[str, Any]]:
    """The newest event of each request."""

    async def read() -> dict[str, dict[str, Any]]:
        bootstrap = settings.kafka_bootstrap or ""
        async with Bus(KafkaBroker(bootstrap), bootstrap) as bus:
            rows = await bus.read(await bus.starts([f"ratchet.{topic}"]))
        return {(row.key or b"").decode(): json.loads(row.value or b"") for row in rows}

    return asyncio.run(read())


def wait_until_ms(at_ms: int) -> None:
    asyncio.run(asyncio.sleep(max(0, at_ms + 50 - NOW()) / 1000))


@pytest.mark.timeout(300)
def test_a_rotation_under_load(stack: Settings, ratchet: Run, tmp_path: Path) -> None:
    """Answered before, across and after; the former key goes when what waited under it is out; the operator's token reads none."""
    (tmp_path / "shop.toml").write_text(TENANT)
    assert ratchet("tenant", "apply", str(tmp_path / "shop.toml"))[0] == 0
    for name, release in (("quick", "immediate"), ("held", "gated")):
        (tmp_path / f"{name}.toml").write_text(ROUTE.format(name=name, release=release))
        assert ratchet("apply", str(tmp_path / f"{name}.toml"))[0] == 0

    def asked(route: str, *more: str) -> tuple[int, dict[str, Any]]:
        code, rows, _ = ratchet("submit", TEXT, "--route", route, "--tenant", "shop", *more)
        return code, rows[0]

    code, before = asked("quick")
    assert (code, before["outcome"]) == (0, "released")
    held = asked("held", "--wait", "0")[1]["request_id"]

    code, (made,), _ = ratchet("gate", "rotate")
    new = made["from_ms"]
    assert (code, made["key"], made["state"]) == (0, f"key-{new}", "not yet")
    assert ratchet("gate", "rotate")[0] == 2
    assert ratchet("gate", "retire", "key")[0] == 2
    wait_until_ms(new + LEAD_MS)
    code, rows, _ = ratchet("gate", "keys")
    assert [(row["key"], row["state"]) for row in rows] == [("key", "opens"), (made["key"], "seals")]

    code, after = asked("quick")
    assert (code, after["outcome"]) == (0, "released")
    decisions = log_of(stack, "decisions")
    assert [map_key(decisions[name]["mask_map"]) for name in (before["request_id"], held, after["request_id"])] == [
        FIRST_KEY, FIRST_KEY, new,
    ]  # fmt: skip

    code, (waits,), _ = ratchet("gate", "retire", "key")
    assert (code, waits["under_way"], waits["requests"]) == (1, 1, [held])
    assert ratchet("review", "--request", held, "--approve", "A")[0] == 0
    until_ms = NOW() + 20_000
    while held not in (answers := log_of(stack, "answers")) and NOW() < until_ms:
        asyncio.run(asyncio.sleep(0.2))
    assert {answer["text"] != "" for answer in answers.values()} == {True}, "nothing was withheld"
    assert [key_of(answers[one]["mark"]["binding"]) for one in (before["request_id"], held)] == [FIRST_KEY, new]

    vault = opened(str(stack.vault_addr), stack.state_dir / "data" / "vault" / "keys.json")
    both = vault.call("GET", f"ratchet/data/{GATE_SECRET}")["data"]["data"]
    token = stack.vault_token.get_secret_value() if stack.vault_token else ""
    with pytest.raises(Refused, match="permission denied"):
        vault.call("GET", f"ratchet/data/{GATE_SECRET}", token=token)
    for answer in answers.values():
        assert checked(answer, gate_keys(both))[0] == "holds"
    code, (gone,), _ = ratchet("gate", "retire", "key")
    assert (code, gone["retired"], gone["state"]) == (0, True, "retired")
    code, (again,), _ = ratchet("gate", "retire", "key")
    assert (code, again["state"]) == (0, "retired")
    asyncio.run(asyncio.sleep(4))  # every process has looked
    assert asked("quick")[1]["outcome"] == "released"
    left = vault.call("GET", f"ratchet/data/{GATE_SECRET}")["data"]["data"]
    assert set(left) == {made["key"], "retired-0"}
    assert checked(answers[before["request_id"]], gate_keys(left)) == (
        "unchecked",
        "A machine wrote this answer. The mark was not checked: its key was retired.",
    )
