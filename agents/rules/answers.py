"""A released answer as the store keeps it: written by trust, read by the router. Pure.

An entry that is damaged, of another version or under another key is none: the request is then answered by a model.
"""

import hashlib
from typing import Final, Literal

from pydantic import ValidationError

from schemas.events import CachedAnswer, ResultCompleted

VERSION: Final = b"ra1\n"
MOST_BYTES: Final = 262_144  # of an entry; a longer answer is not kept
_DIGEST: Final = 16


def keeps(result: ResultCompleted) -> bool:
    """Whether a released result may be kept: a model made it for this request, and its decision named a key."""
    return result.source == "model" and result.cache_key != "" and not result.shadow


def answer_of(result: ResultCompleted, result_id: str, kind: Literal["exact", "kept"], key: str = "") -> CachedAnswer:
    """A result as an answer that can be given again. `result_id`: its event's id."""
    return CachedAnswer(
        key=key,
        kind=kind,
        result_id=result_id,
        text=result.text,
        arm=result.arm,
        adapter=result.adapter,
        tokens_in=result.tokens_in,
        tokens_out=result.tokens_out,
        finish_reason=result.finish_reason,
        logprobs=result.logprobs,
        engine=result.engine,
        at_ms=result.at_ms,
    )


def encode(result: ResultCompleted, result_id: str) -> bytes:
    """The entry of a result: version, the first half of the body's SHA-256, JSON. `result_id`: its event's id."""
    body = answer_of(result, result_id, "exact", result.cache_key).model_dump_json().encode()
    return VERSION + _digest(body) + body


def decode(entry: bytes, key: str | None = None) -> CachedAnswer | None:
    """The answer of an entry, None where it cannot be used. `key`: under which it was found; an entry says its own."""
    head = len(VERSION) + _DIGEST
    body = entry[head:]
    if len(entry) > MOST_BYTES or entry[:head] != VERSION + _digest(body):
        return None
    try:
        answer = CachedAnswer.model_validate_json(body)
    except ValidationError:
        return None
    return answer if key is None or answer.key == key else None


def trial_keys(key: str) -> tuple[str, str]:
    """The counters of an entry's trials, or of a partition's checks: same, other."""
    return f"{key}:same", f"{key}:other"


def _digest(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()[:_DIGEST]
