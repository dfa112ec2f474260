"""Released answers in the store: what an entry says, when trust writes one, and what follows when the store is away."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.rules import answers
from schemas.events import ResultCompleted

T = 1_700_000_000_000


def result(**more: Any) -> ResultCompleted:
    return ResultCompleted.model_validate(
        {
            "at_ms": T, "route": "r", "request_id": "q1", "request_partition": 0, "request_offset": 7, "arm": "a",
            "adapter": "sha256:1", "shadow": False, "final": True, "decision_id": "d", "assigned_at_ms": T,
            "window_end_ms": T + 60_000, "latency_ms": 5, "text": "forty-two", "tokens_in": 3, "tokens_out": 2,
            "ttft_ms": 1, "engine_ms": 4, "finish_reason": "stop", "logprobs": (-0.1, -0.2), "engine": "scripted",
            "cache_key": "answer:1",
        }
        | more
    )  # fmt: skip


def test_an_entry_says_what_the_result_said() -> None:
    """Text, arm, adapter, tokens, logprobs and which result it was come back as they went in."""
    found = answers.decode(answers.encode(result(), "x1"), "answer:1")
    assert found is not None
    assert (found.key, found.kind, found.result_id, found.text) == ("answer:1", "exact", "x1", "forty-two")
    assert (found.arm, found.adapter, found.engine, found.at_ms) == ("a", "sha256:1", "scripted", T)
    assert (found.tokens_in, found.tokens_out, found.finish_reason) == (3, 2, "stop")
    assert found.logprobs == (-0.1, -0.2)


@given(st.data())
def test_a_damaged_entry_is_none(data: st.DataObject) -> None:
    """Whatever byte is another one, missing or too many: nobody is answered from it."""
    entry = bytearray(answers.encode(result(), "x1"))
    at = data.draw(st.integers(0, len(entry) - 1))
    entry[at] ^= data.draw(st.integers(1, 255))
    assert answers.decode(bytes(entry)) is None
    assert answers.decode(bytes(entry[:at])) is None
    assert answers.decode(answers.encode(result(), "x1") + b" ") is None


@given(st.binary(max_size=200))
def test_strange_bytes_are_none(entry: bytes) -> None:
    """Another version's entry, or another program's value, is no answer."""
    assert answers.decode(entry) is None
    assert answers.decode(answers.VERSION + entry) is None


def test_an_entry_under_another_key_is_none() -> None:
    """An entry that was written under one key answers no request of another."""
    entry = answers.encode(result(), "x1")
    assert answers.decode(entry, "answer:2") is None
    assert answers.decode(entry) is not None


@pytest.mark.parametrize("more", [{"cache_key": ""}, {"source": "cache"}, {"source": "kept"}, {"shadow": True}])
def test_only_a_models_own_answer_is_kept(more: dict[str, Any]) -> None:
    """What came from the store is not put there again, nor what no decision named a key for."""
    assert answers.keeps(result())
    assert not answers.keeps(result(**more))
