"""The index of like questions over both stores, and the whole way of a like question's answer through one of them."""

import asyncio
import time

import numpy as np

from agents.router import cache
from agents.router.cache import Nominee, Scope
from agents.router.likeness import HashedGrams
from agents.router.trials import Counts
from agents.rules import answers
from agents.rules.answers import trial_keys
from infra.semantic import Near, SemanticIndex
from infra.store import Store
from schemas.events import Message, ResultCompleted
from schemas.routes import Arm

ARM = Arm(arm="small", base="sha256:aa")
TEXT = HashedGrams()


def kept(key: str) -> bytes:
    """What trust puts under the key once the answer is released."""
    return answers.encode(
        ResultCompleted(
            route="faq", request_id="r", request_partition=0, request_offset=0, request_at_ms=0, at_ms=0, arm="small",
            shadow=False, final=True, decision_id="d", assigned_at_ms=0, window_end_ms=1, latency_ms=1.0, text="So.",
            tokens_in=1, tokens_out=1, ttft_ms=1.0, engine_ms=1.0, finish_reason="stop", logprobs=(), engine="e",
            cache_key=key,
        ),
        "result",
    )  # fmt: skip


def index(store: Store) -> SemanticIndex:
    """An index that reads anew with every question."""
    return SemanticIndex(store, time.monotonic, dims=TEXT.dims, most=300, refresh_s=0.0)


def asked(text: str) -> list[Message]:
    """One question."""
    return [Message(role="user", content=text)]


async def test_rows_of_one_process_are_found_by_another(store: Store) -> None:
    """Everything that the store kept is found, the latest 300 of 320, over several pages."""
    one, other = index(store), index(store)
    rows = {f"{number:03}": TEXT.embed(f"question number {number} of this kind") for number in range(320)}
    for name, vector in rows.items():
        await one.add("p", name, f"q{name}", vector)
    found = [await other.nearest("p", rows["319"], least_milli=990) for _ in range(6)][-1]
    assert found[0] == Near("319", "q319", 1000)
    gone = await other.nearest("p", rows["000"], least_milli=1000)
    assert gone == ()


async def test_a_log_that_began_anew_is_found(store: Store) -> None:
    """After the store lost a partition, what is added then is seen by who had read the former one."""
    made, vector = SemanticIndex(store, time.monotonic, dims=4, ttl_s=0.05, refresh_s=0.0), np.ones(4, dtype=np.int8)
    await made.add("p", "old", "q", vector)
    await made.nearest("p", vector, least_milli=950)
    await asyncio.sleep(0.15)
    await made.add("p", "new", "q", vector)
    assert "new" in [near.identity for near in await made.nearest("p", vector, least_milli=950)]


async def _choice(store: Store, made: SemanticIndex, scope: Scope, text: str) -> cache.Choice:
    """What a router's shell does of a question."""
    messages, partition = asked(text), cache.partition_of(scope, asked(text))
    near = await made.nearest(partition, TEXT.embed(cache.question_of(messages)), least_milli=cache.LIKE_MILLI)
    keys = [cache.key_of(scope, ARM, one.identity) for one in near]
    values = await store.mget(keys)
    counts = await store.counts([name for key in (partition, *keys) for name in trial_keys(key)])
    pairs = [Counts(*counts[at : at + 2]) for at in range(0, len(counts), 2)]
    nominees = [
        Nominee(one.question, one.likeness_milli, answer, trials)
        for one, key, value, trials in zip(near, keys, values, pairs[1:], strict=True)
        if value is not None and (answer := answers.decode(value, key)) is not None
    ]
    return cache.choose(cache.question_of(messages), nominees, pairs[0])


async def test_a_like_answer_from_asked_to_switched_off(store: Store) -> None:
    """Not before it is released, not before it is proven, not to another tenant, not after a promotion, not once it was false."""
    made, scope = index(store), Scope("acme", "faq", "r", "g", 1)
    first, like = "How do I reset my password?", "how do i reset my password"
    body, partition = cache.body_of(asked(first)), cache.partition_of(scope, asked(first))
    key = cache.key_of(scope, ARM, body)
    await made.add(partition, body, cache.question_of(asked(first)), TEXT.embed(first))
    assert (await _choice(store, made, scope, like)).action == "miss"
    await store.put(key, kept(key), 10)
    assert (await _choice(store, made, scope, like)).action == "try"
    await store.add(trial_keys(key)[0], 148, 10)
    assert (await _choice(store, made, scope, like)).action == "serve"
    assert (await _choice(store, made, scope, "How do I not reset my password?")).action == "miss"
    assert (await _choice(store, made, Scope("other", "faq", "r", "g", 1), like)).action == "miss"
    assert (await _choice(store, made, Scope("acme", "faq", "r", "g", 2), like)).action == "miss"
    await store.add(trial_keys(partition)[1], 1, 10, once="checked-request")
    assert (await _choice(store, made, scope, like)).action == "miss"
