"""The composition root: what a process is given, and what it is not."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from agents.wiring import TRANSFORMS, Process, TenantKeys, open_engine, open_providers
from infra.clock import SystemClock
from infra.engine import ArmSpec
from infra.sealing import GATE_SECRET
from infra.secrets import LocalSecrets
from infra.settings import Settings
from schemas.errors import Refused
from schemas.routing import Provider
from streams.memory import MemoryBroker
from streams.runner import Runner

FAKE = ArmSpec("route/fake", "", provider="stand_in")


def process(tmp_path: Path, stack: AsyncExitStack, **settings: object) -> Process:
    """What is there before a broker is: the rest is not asked for."""
    made = Settings(state_dir=tmp_path, engine="scripted", **settings)
    secrets = LocalSecrets.open(tmp_path / "secrets.json")
    return Process(made, SystemClock(), None, secrets, None, None, stack)


async def test_every_provider_of_the_schema_is_there(tmp_path: Path) -> None:
    """By the names that a route's arm may give; our own engines are none of them."""
    async with AsyncExitStack() as stack:
        assert {"ray_vllm", *open_providers(process(tmp_path, stack))} == set(Provider.__args__)


async def test_no_stand_in_in_production(tmp_path: Path) -> None:
    """Where secrets come from Vault it refuses; for a first look it answers."""
    async with AsyncExitStack() as stack:
        earnest = process(tmp_path, stack, secrets="vault", vault_addr="http://127.0.0.1:9")
        with pytest.raises(Refused, match="never answers in production"):
            await open_providers(earnest)["stand_in"].probe(FAKE, 5)
        (outcome,) = await (await open_engine(earnest)).ensure([FAKE])
        assert not outcome.live
        engine = await open_engine(process(tmp_path, stack))
        assert [row.live for row in await engine.ensure([FAKE])] == [True]
        assert (await engine.generate("route/fake", "hello", "r", 5)).engine == "stand_in"
        await engine.close()


async def test_the_scripted_engine_is_opened_when_it_is_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And says that it is no model then, not before."""
    async with AsyncExitStack() as stack:
        engine = await open_engine(process(tmp_path, stack))
        assert "scripted" not in caplog.text
        assert [row.live for row in await engine.ensure([ArmSpec("route/own", "base")])] == [True]
        assert "the engine is scripted" in caplog.text
        await engine.close()


class Noting(LocalSecrets):
    """Notes what is read of it."""

    read: set[str]

    async def get(self, path: str) -> Mapping[str, str]:
        self.read.add(path)
        return await super().get(path)


@pytest.mark.parametrize(
    ("agent", "reads"), [("router", True), ("trust", True), ("inference", False), ("grader", False)]
)
async def test_router_and_trust_alone_hold_the_gates_keys(tmp_path: Path, agent: str, reads: bool) -> None:
    """Who computes and who judges cannot open what placeholders stand for; and without the key neither router nor trust begins."""
    clock, broker = SystemClock(), MemoryBroker(1)
    secrets = Noting.open(tmp_path / "secrets.json")
    assert isinstance(secrets, Noting)
    secrets.read = set()
    settings = Settings(state_dir=tmp_path, engine="scripted", redis_url="redis://127.0.0.1:1")
    async with AsyncExitStack() as stack:
        made = Process(settings, clock, None, secrets, TenantKeys(b"k"), broker, stack)
        await TRANSFORMS[agent](made, Runner(broker, clock))
        assert (GATE_SECRET in secrets.read) == reads
        if reads:
            assert made.companions == [(await made.gate_keys()).follow]
            await secrets.put(GATE_SECRET, {})
            made = Process(settings, clock, None, secrets, TenantKeys(b"k"), broker, stack)
            with pytest.raises(Refused, match="64 hex digits"):
                await TRANSFORMS[agent](made, Runner(broker, clock))
