"""Who speaks, on a real Vault and a real Kafka: the command line hands out keys, an outside sender proves, agents refuse the rest."""

import asyncio
import importlib.util
import json
import urllib.request
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from commanded import Run, commanded, vault_stack

from infra import keys
from infra.clock import SystemClock
from infra.settings import Settings
from schemas import codec, ids
from schemas.codec import Encoded
from schemas.events import CommandPause, VerdictGiven
from schemas.payload import Payload
from schemas.principal import Credential
from schemas.topics import PREFIX
from streams.kafka import KafkaBroker
from tools.cli.bus import Bus
from tools.cli.events import as_row
from tools.stack.processes import tagged
from tools.stack.stack import Record
from tools.stack.vault import VaultServer
from tools.voice import open_store

DOCS = Path(__file__).parents[3] / "docs" / "examples"
ROUTE = "banking.intent"
AGENTS = (("router", "trust"), ("cases", "judge"), ("inference",), ("observer",))
NOW = SystemClock().now_ms
OVERLAP_S = 6

spec = importlib.util.spec_from_file_location("upstream", DOCS / "upstream.py")
assert spec is not None
assert spec.loader is not None
upstream = importlib.util.module_from_spec(spec)
spec.loader.exec_module(upstream)


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    with vault_stack(tmp_path, monkeypatch, AGENTS) as settings:
        yield settings


@pytest.fixture
def ratchet(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return commanded(monkeypatch, capsys)


async def held(settings: Settings, name: str, role: Any) -> Credential:
    async with open_store(settings) as source:
        assert source is not None
        return await keys.credential(source, name, role, NOW())


def asked(file: Path) -> Encoded:
    """A request as the documented example makes it."""
    key, value, headers = upstream.request(upstream.read_key(file), ROUTE, "where is my card", NOW())
    return Encoded(key, value, tuple(headers))


def plain(payload: Payload) -> Encoded:
    event_id = ids.derive(f"{payload.event_key()}/{payload.at_ms}", "played", payload.TYPE)
    return codec.encode(payload, event_id=event_id, source="played", traceparent="")


async def told(settings: Settings, rows: dict[str, tuple[str, Encoded]]) -> dict[str, str]:
    """Publish by name; what became of each: `answered`, or the kind of its refusal or dead letter."""
    found: dict[str, str] = {}
    bootstrap = settings.kafka_bootstrap or ""
    ends = ("answers", "verdicts.dlq", "commands.dlq")
    async with asyncio.timeout(20), Bus(KafkaBroker(bootstrap), bootstrap) as bus, AsyncExitStack() as left:
        followed = bus.follow(await bus.ends([PREFIX + name for name in ends]))
        left.push_async_callback(followed.aclose)
        await bus.publish([(PREFIX + topic, row) for topic, row in rows.values()])
        names = {dict(row.headers)["ce_id"]: name for name, (_, row) in rows.items()} | {
            row.key: name for name, (topic, row) in rows.items() if topic == "requests"
        }
        async for record in followed:
            headers = dict(record.headers) if record is not None else {}
            if (
                record is None
                or (name := names.get(headers["ce_id"] if record.topic.endswith(".dlq") else record.key)) is None
            ):
                continue
            letter = headers.get("ratchet-dlq-kind", b"").decode()
            row = as_row(record)
            found[name] = letter or ("answered" if row["type"] == "answer.released" else row["data"]["kind"])
            if len(found) == len(rows):
                return found
    return found


def bad(settings: Settings) -> dict[str, tuple[str, Encoded]]:
    """One of each that nobody may be heard in, and a proven one beside them."""
    demo, operator, reviewer = (
        asyncio.run(held(settings, name, role))
        for name, role in (("demo", "upstream"), ("operator", "operator"), ("reviewer", "reviewer"))
    )
    at = NOW()

    made: list[str] = []

    def fresh() -> Encoded:
        """Another request, unproven."""
        made.append(ids.derive(f"{at}", "played", len(made)))
        said = {"at_ms": at, "route": ROUTE, "request_id": made[-1], "messages": [{"role": "user", "content": "hi"}]}
        named = (("ce_id", made[-1].encode()), ("ce_type", b"ratchet.request.submitted.v1"))
        return Encoded(made[-1].encode(), json.dumps(said).encode(), named)

    other = fresh()
    moved = Encoded(other.key, other.value, (*other.headers[:2], *demo.prove(fresh(), at_ms=at).headers[-5:]))
    proven = demo.prove(fresh(), at_ms=at)
    verdict = VerdictGiven(at_ms=at, route=ROUTE, request_id="a", by=reviewer.name, corrected="x")
    pause = CommandPause(at_ms=at, route=ROUTE, operator=operator.name)
    return {
        "unproven": ("requests", fresh()),
        "replayed with other content": ("requests", replace(proven, value=proven.value.replace(b"hi", b"ho"))),
        "another's proof": ("requests", moved),
        "made up": ("requests", replace(demo, key=b"x" * 32).prove(fresh(), at_ms=at)),
        "expired": ("requests", demo.prove(fresh(), at_ms=at - 20 * 60_000)),
        "not yet made": ("requests", demo.prove(fresh(), at_ms=at + 20 * 60_000)),
        "unknown key": ("requests", replace(demo, kid="k-none").prove(fresh(), at_ms=at)),
        "unknown principal": ("requests", replace(demo, name="nobody").prove(fresh(), at_ms=at)),
        "an operator asks": ("requests", operator.prove(fresh(), at_ms=at)),
        "a verdict for another": ("verdicts", reviewer.prove(plain(verdict.model_copy(update={"by": "eve"})), at_ms=at)),
        "a verdict unproven": ("verdicts", plain(verdict.model_copy(update={"request_id": "b"}))),
        "a reviewer commands": ("commands", reviewer.prove(plain(pause), at_ms=at)),
        "a changed command": (
            "commands",
            replace(row := operator.prove(plain(pause.model_copy(update={"at_ms": at + 1})), at_ms=at), value=row.value + b" "),
        ),
    }  # fmt: skip


KINDS = {
    "unproven": "unproven",
    "replayed with other content": "forged",
    "another's proof": "forged",
    "made up": "forged",
    "expired": "proof-expired",
    "not yet made": "proof-expired",
    "unknown key": "unknown-key",
    "unknown principal": "unknown-key",
    "an operator asks": "wrong-role",
    "a verdict for another": "wrong-principal",
    "a verdict unproven": "unproven",
    "a reviewer commands": "wrong-role",
    "a changed command": "forged",
}


def wait_until_ms(at_ms: int) -> None:
    asyncio.run(asyncio.sleep(max(0, at_ms + 50 - NOW()) / 1000))


def test_principals_from_add_to_revoke(stack: Settings, ratchet: Run, tmp_path: Path) -> None:
    """Good answered; forged, replayed, expired, unknown refused and counted; a rotated key until its end; sealed is exit 3."""
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    code, (added,), _ = ratchet("principal", "add", "shop", "--role", "upstream", "--key-file", str(first))
    assert (code, first.stat().st_mode & 0o777) == (0, 0o600)
    assert ratchet("apply", str(DOCS / "banking.toml"))[0] == 0
    code, rows, _ = ratchet("submit", "where is my card", "--route", ROUTE)
    assert (code, rows[0]["outcome"]) == (0, "released")

    assert asyncio.run(told(stack, bad(stack))) == KINDS
    code, (rotated,), _ = ratchet("principal", "rotate", "shop", "--overlap", str(OVERLAP_S), "--key-file", str(second))
    assert code == 0
    starts = rotated["keys"][0]["not_before_ms"]
    ends = starts + OVERLAP_S * 1000
    wait_until_ms(starts - keys.LEAD_MS // 2)  # every process has looked
    assert asyncio.run(told(stack, {"early": ("requests", asked(second))})) == {"early": "key-not-valid"}
    assert added["keys"][0]["not_before_ms"] <= starts
    wait_until_ms(starts)
    both = {"old": ("requests", asked(first)), "new": ("requests", asked(second))}
    assert asyncio.run(told(stack, both)) == {"old": "answered", "new": "answered"}
    assert ends > NOW(), "the machine was too slow to see both keys count"
    code, _, said = ratchet("submit", "hello", "--route", ROUTE, "--as", "nobody")
    assert code == 2
    assert "principal 'nobody' is not known; accepted: demo, shop (--as NAME)" in said
    code, _, said = ratchet("submit", "hello", "--route", ROUTE, "--as", "reviewer")
    assert code == 2
    assert "has not the role upstream" in said
    wait_until_ms(ends)
    both = {"old": ("requests", asked(first)), "new": ("requests", asked(second))}
    assert asyncio.run(told(stack, both)) == {"old": "key-not-valid", "new": "answered"}

    counted(stack, ratchet)
    hidden(stack, [json.loads(file.read_text())["key"] for file in (first, second)])
    sealed(stack, ratchet)


def counted(stack: Settings, ratchet: Run) -> None:
    """Every refusal, in `ratchet status` and as a metric of the agent that refused."""
    for _ in range(40):
        _, (status,), _ = ratchet("status")
        if sum(status["proof"]["refused"].values()) >= len(KINDS) + 2:
            break
    assert status["proof"]["on"] is True
    assert status["proof"]["refused"] == {
        "forged": 4, "key-not-valid": 2, "proof-expired": 2, "unknown-key": 2, "unproven": 2, "wrong-principal": 1, "wrong-role": 2,
    }  # fmt: skip
    record = Record.model_validate_json((stack.state_dir / "stack.json").read_bytes())
    figures = ""
    for port in record.metrics.values():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            figures += answer.read().decode()
    for row in (
        'ratchet_records_refused_total{agent="router",reason="forged"} 3.0',
        'ratchet_records_refused_total{agent="router",reason="key-not-valid"} 2.0',
        'ratchet_dead_letters_total{agent="cases",reason="wrong-principal"} 1.0',
        'ratchet_dead_letters_total{agent="judge",reason="forged"} 1.0',
    ):
        assert row in figures


def hidden(stack: Settings, own: list[str]) -> None:
    """No key in any file of the stack's (logs among them), nor in the arguments or environment of its processes."""
    record = Record.model_validate_json((stack.state_dir / "stack.json").read_bytes())
    secret = [*own, *(asyncio.run(held(stack, name, role)).key.hex() for name, role in
                      (("demo", "upstream"), ("operator", "operator")))]  # fmt: skip
    for file in stack.state_dir.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [word for word in secret if word.encode() in content], file
    for process in map(psutil.Process, (row.pid for row in tagged(record.tag))):
        said = " ".join([*process.cmdline(), *process.environ().values()])
        assert not [word for word in secret if word in said], process


def sealed(stack: Settings, ratchet: Run) -> None:
    """Vault away: who would prove or look is told so, exit 3; status says that it does not know; nothing is sent unproven."""
    made = json.loads((stack.state_dir / "data" / "vault" / "keys.json").read_bytes())
    VaultServer(addr=stack.vault_addr or "", root_token=made["root_token"]).seal()
    for words in (
        ("principal", "list"),
        ("principal", "rotate", "shop"),
        ("submit", "hello", "--route", ROUTE),
        ("pause", ROUTE),
    ):
        code, _, said = ratchet(*words)
        assert (code, "Vault does not serve: it is sealed" in said) == (3, True), words
    _, (status,), _ = ratchet("status")
    assert status["proof"]["on"] is None
