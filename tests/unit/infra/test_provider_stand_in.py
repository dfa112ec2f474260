"""The stand-in: the same for the same prompt, faults by their share, named in results, absent from production."""

import asyncio
import logging
from collections import Counter
from dataclasses import replace

import pytest

from infra.clock import ManualClock, SystemClock
from infra.engine import ArmSpec, Blameless
from infra.provider import Fault
from infra.provider_stand_in import NoStandIn, StandIn
from schemas.errors import Refused, Unavailable

SPEC = ArmSpec("route/fake", "", provider="stand_in", url="stand-in:?seed=7&answers=yes|no|it may be")


async def test_the_same_prompt_has_the_same_answer() -> None:
    """On any machine; another seed or model answers otherwise; every result names the engine `stand_in`."""
    one, two = StandIn(SystemClock()), StandIn(SystemClock())
    texts = [f"question {number}" for number in range(40)]
    first = [await one.complete(SPEC, text, "a", 5) for text in texts]
    again = [await two.complete(SPEC, text, "b", 5) for text in texts]
    other = [await one.complete(replace(SPEC, model="m2"), text, "a", 5) for text in texts]
    assert first == again
    assert [row.text for row in first] != [row.text for row in other]
    assert {row.text for row in first} == {"yes", "no", "it may be"}
    assert {(row.engine, row.adapter_digest) for row in first} == {("stand_in", None)}
    assert all(row.tokens_out == len(row.logprobs) == len(row.text.split()) for row in first)
    assert first[0].text == "it may be"  # pinned: a change of the hash would be a change of every replay
    cut = await one.complete(replace(SPEC, max_tokens=1, url="stand-in:?answers=it may be"), "x", "a", 5)
    assert (cut.text, cut.finish_reason) == ("it", "length")


async def test_faults_come_by_their_share_and_stay() -> None:
    """About as many prompts of each kind as were asked for, and the same ones each time."""
    told = replace(SPEC, url="stand-in:?unavailable=100&limited=100&refused=100")

    async def fate(text: str) -> str:
        try:
            await StandIn(SystemClock()).complete(told, text, "r", 5)
        except (Fault, Blameless, Refused) as fault:
            return type(fault).__name__
        return "answer"

    fates = [await fate(f"q{number}") for number in range(1000)]
    found = Counter(fates)
    assert all(70 < found[kind] < 130 for kind in ("Fault", "Blameless", "Refused"))
    assert [await fate(f"q{number}") for number in range(50)] == fates[:50]


async def test_delays_are_within_their_bounds_and_the_deadline() -> None:
    """The clock is waited on for as long as it says; a deadline before that is a fault at the deadline."""
    clock = ManualClock()
    stand_in, slow = StandIn(clock), replace(SPEC, url="stand-in:?least_ms=200&most_ms=300")
    call = asyncio.create_task(stand_in.complete(slow, "x", "r", 5))
    await asyncio.sleep(0)
    await clock.advance(0.19)
    assert not call.done()
    await clock.advance(0.12)
    assert 200 <= (await call).latency_ms <= 300
    for told, timeout_s in ((slow, 0.1), (replace(SPEC, url="stand-in:?hanging=1000"), 0.1)):
        call = asyncio.create_task(stand_in.complete(told, "x", "r", timeout_s))
        await asyncio.sleep(0)
        await clock.advance(0.1)
        with pytest.raises(Fault, match=r"within 0\.100 s"):
            await call


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("https://example.com", "url"),
        ("stand-in:?sneed=1&most_ms=-1", "most_ms, an unknown name"),
        ("stand-in:?seed=x&unavailable=1001", "seed, unavailable"),
        ("stand-in:?unavailable=600&limited=600", "the sum of the shares"),
    ],
)
async def test_manners_that_are_none_are_refused(url: str, named: str) -> None:
    """Every bad key at once, with what is accepted."""
    with pytest.raises(Refused) as refused:
        await StandIn(SystemClock()).complete(replace(SPEC, url=url), "x", "r", 5)
    assert named in str(refused.value)
    assert "least_ms" in refused.value.accepted


async def test_a_probe_says_what_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """Live, with a warning, each time; but where it always fails."""
    await StandIn(SystemClock()).probe(replace(SPEC, url="stand-in:?unavailable=900"), 5)
    assert "answers come from a hash" in caplog.text
    with pytest.raises(Unavailable):
        await StandIn(SystemClock()).probe(replace(SPEC, url="stand-in:?unavailable=1000"), 5)


async def test_none_in_production(caplog: pytest.LogCaptureFixture) -> None:
    """Neither a probe nor a call: refused with the reason, and an error in the log."""
    for call in (NoStandIn().probe(SPEC, 5), NoStandIn().complete(SPEC, "x", "r", 5)):
        with pytest.raises(Refused, match="never answers in production") as refused:
            await call
        assert refused.value.kind == "provider_settings"
    assert [row.levelno for row in caplog.records] == [logging.ERROR]
