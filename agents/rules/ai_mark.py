"""The mark on an answer: a machine made it, which one, and whether a person decided on it (AI Act, Art. 50). Pure.

It stands beside the text, never in it: answers are often read by programs. Who copies the text alone leaves the mark behind.
`binding` ties it to the text under a key, so the mark may stand in the log without being a dictionary of its texts. It names the
key: `KEY:` and 64 hex digits; the digits alone are the first key's.
"""

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final, Literal, cast, get_args

from schemas import canonical
from schemas.gate import FIRST_KEY
from schemas.value import value

VERSION: Final = 1
Origin = Literal["model", "person"]
Review = Literal["none", "approved"]
_LEAST_KEY: Final = 16
_MOST_DIGITS: Final = 16
_WORDS: Final = {
    "tenant": "tenant",
    "request_id": "request",
    "result_id": "result",
    "arm": "arm",
    "adapter": "adapter",
    "by": "by",
    "review": "review",
}


@value
class Origins:
    """Who made an answer. `by` person: a person wrote what went out instead of the model's text."""

    tenant: str
    request_id: str
    result_id: str
    arm: str
    adapter: str | None
    by: Origin
    review: Review


@value
class Mark:
    """The statement in canonical JSON, and what binds it to the text."""

    statement: str
    binding: str


def mark(origins: Origins, text: str, key: bytes, key_id: int = FIRST_KEY) -> Mark:
    """The mark of an answer's text. The same arguments give the same mark. Raises ValueError for a key below 16 bytes."""
    if len(key) < _LEAST_KEY:
        raise ValueError(f"a key of {len(key)} bytes; accepted: at least {_LEAST_KEY}")
    statement = canonical.encode(
        {
            "v": VERSION,
            "ai": origins.by == "model",
            "tenant": origins.tenant,
            "request": origins.request_id,
            "result": origins.result_id,
            "arm": origins.arm,
            "adapter": origins.adapter,
            "by": origins.by,
            "review": origins.review,
        }
    )
    named = "" if key_id == FIRST_KEY else f"{key_id}:"
    return Mark(statement.decode(), named + _bound(statement, text, key))


def key_of(binding: str) -> int:
    """Which key a binding says that it is under. Raises ValueError where it names something else."""
    name, colon, _ = binding.partition(":")
    if not colon:
        return FIRST_KEY
    if not (name.isascii() and name.isdecimal() and name[0] != "0" and len(name) <= _MOST_DIGITS):
        raise ValueError("the mark's binding names no key")
    return int(name)


def holds(found: Mark, origins: Origins, text: str, key: bytes) -> bool:
    """Whether this is the mark of exactly this answer. `key`: the one that the binding names."""
    due = mark(origins, text, key, key_of(found.binding))
    return found.statement == due.statement and hmac.compare_digest(found.binding.encode(), due.binding.encode())


def origins_of(found: Mark) -> Origins:
    """Who made the answer, by the mark's own words. Raises ValueError for a statement that is none; `holds` says whether it is true."""
    read = _read(found)
    names = {field: read.get(word) for field, word in _WORDS.items()}
    adapter = names.pop("adapter")
    texts = {field: word for field, word in names.items() if isinstance(word, str)}
    if texts.keys() != names.keys() or not isinstance(adapter, str | None):
        raise ValueError("the mark's statement does not say where the answer is from")
    if texts["by"] not in get_args(Origin) or texts["review"] not in get_args(Review):
        raise ValueError("the mark's statement names nobody who could have written it")
    return Origins(**cast("Any", texts), adapter=adapter)


def told(found: Mark) -> str:
    """The mark in words, for people. Raises ValueError for a statement that is none."""
    read = _read(found)
    if not read["ai"]:
        return "A person wrote this answer."
    return "A machine wrote this answer" + ("; a person approved it." if read.get("review") == "approved" else ".")


def _read(found: Mark) -> Mapping[str, object]:
    try:
        read = canonical.decode(found.statement.encode())
    except ValueError:
        raise ValueError("the mark's statement is not canonical JSON") from None
    if not isinstance(read, dict) or read.get("v") != VERSION or not isinstance(read.get("ai"), bool):
        raise ValueError(f"the mark's statement is not one of version {VERSION}")
    return cast("Mapping[str, object]", read)


def _bound(statement: bytes, text: str, key: bytes) -> str:
    """HMAC-SHA-256 over length, statement and text: no two pairs give the same bytes. A lone surrogate counts as itself."""
    data = len(statement).to_bytes(8, "big") + statement + text.encode("utf-8", "surrogatepass")
    return hmac.new(key, data, hashlib.sha256).hexdigest()
