"""The engine port's contract on the scripted engine, what is its own, and the clock that drives it."""

import asyncio
from pathlib import Path

import pytest

from infra.adapters import AdapterVerifier
from infra.artifacts import DirectoryStore
from infra.clock import ManualClock
from infra.engine import ArmSpec
from infra.engine_scripted import Script, ScriptedEngine
from schemas.errors import Refused, Unavailable

ONE = ArmSpec("route/one", "base", max_tokens=8, template="Customer: {text}\nIntent:")
TWO = ArmSpec("route/two", "base", max_tokens=8)


async def test_ensure_is_idempotent_and_exact() -> None:
    """Arms named answer, arms no longer named do not; repeating changes nothing."""
    engine = ScriptedEngine()
    first = await engine.ensure([ONE, TWO])
    assert [(o.arm, o.live, o.reason) for o in first] == [("route/one", True, ""), ("route/two", True, "")]
    assert await engine.ensure([ONE, TWO]) == first
    await engine.ensure([TWO])
    await engine.generate("route/two", "hello", "r1", 1)
    with pytest.raises(Refused) as refused:
        await engine.generate("route/one", "hello", "r1", 1)
    assert refused.value.kind == "unknown_arm"
    assert "route/two" in refused.value.accepted


async def test_generations_are_deterministic_and_depend_on_arm_and_text() -> None:
    """The same arm and text give the same generation on every instance, another arm or text another one."""
    one, other = ScriptedEngine(), ScriptedEngine()
    await one.ensure([ONE, TWO])
    await other.ensure([ONE, TWO])
    a = await one.generate("route/one", "hello", "r1", 1)
    assert a == await other.generate("route/one", "hello", "r2", 1)
    assert a.tokens_out == len(a.logprobs) == len(a.text.split())
    assert all(p < 0 for p in a.logprobs)
    assert a.engine == "scripted"
    texts = {
        (await one.generate(arm, f"text {i}", "r", 1)).text for arm in ("route/one", "route/two") for i in range(9)
    }
    assert len(texts) > 12


async def test_a_table_of_answers_comes_first() -> None:
    """An answer told for the arm, else for all arms, else a hashed one; `max_tokens` cuts."""
    script = Script(answers={"route/one": {"a": "x y"}, "*": {"a": "z", "b": " ".join("w" * 9)}})
    engine = ScriptedEngine(script)
    await engine.ensure([ONE, TWO])
    assert (await engine.generate("route/one", "a", "r", 1)).text == "x y"
    assert (await engine.generate("route/two", "a", "r", 1)).text == "z"
    cut = await engine.generate("route/two", "b", "r", 1)
    assert (cut.tokens_out, cut.finish_reason) == (8, "length")


async def test_limits_failures_and_deadlines_are_the_ports_errors() -> None:
    """Too long is refused with the limit; a scripted failure and a passed deadline are Unavailable."""
    clock = ManualClock()
    engine = ScriptedEngine(Script(max_chars=30, fail_pattern="boom", hang_pattern="hang"), clock=clock)
    await engine.ensure([TWO])
    with pytest.raises(Refused) as refused:
        await engine.generate("route/two", "x" * 31, "r", 1)
    assert "30" in refused.value.accepted
    with pytest.raises(Unavailable):
        await engine.generate("route/two", "boom", "r", 1)
    call = asyncio.create_task(engine.generate("route/two", "hang", "r", 5))
    await asyncio.sleep(0)
    await clock.advance(4.9)
    assert not call.done()
    await clock.advance(0.2)
    with pytest.raises(Unavailable, match="within 5 s"):
        await call


async def test_latency_is_drawn_within_its_bounds() -> None:
    """The clock moves by the drawn latency, and the generation reports it."""
    clock = ManualClock()
    engine = ScriptedEngine(Script(latency_ms=(10, 20)), clock=clock)
    await engine.ensure([TWO])
    call = asyncio.create_task(engine.generate("route/two", "hello", "r", 1))
    await asyncio.sleep(0)
    await clock.advance(0.0099)
    assert not call.done()
    await clock.advance(0.0102)
    assert 10 <= (await call).latency_ms <= 20


async def test_an_adapter_that_does_not_verify_is_not_live(tmp_path: Path) -> None:
    """With a verifier an unknown adapter gives an outcome that says why, and harms no other arm."""
    engine = ScriptedEngine(verifier=AdapterVerifier(DirectoryStore(tmp_path), {}))
    bad = ArmSpec("route/bad", "base", adapter="sha256:" + "0" * 64)
    outcomes = await engine.ensure([bad, TWO])
    assert [o.live for o in outcomes] == [False, True]
    assert "not in the store" in outcomes[0].reason
    with pytest.raises(Refused):
        await engine.generate("route/bad", "hello", "r", 1)
