"""The provider port: who answers an arm's prompts that no engine of ours serves. One port, several adapters.

    provider_openai.py     any server that speaks OpenAI's interface (vLLM, Ollama, llama.cpp, OpenAI), and Azure's variant of it
    provider_anthropic.py  the Messages interface
    provider_stand_in.py   answers, delays and faults from a seed: for tests and demonstrations, refused in production

Rules:
1. A reply is read whole, strictly and within bounds, or not taken: what is missing, of another type, or contradicts itself is `Fault`.
2. Nothing that a provider says reaches an error, a log or a name of ours; its answer's text is all that is taken from it as text.
3. A key goes to the arm's own address only, over TLS or loopback, and stands in no error, log, repr or result.

RatchetError
├── Refused           4xx. kind `bad_request` `prompt_too_long` `content_filtered`: the request; of `OUR_FAULTS`: the arm's settings
└── Unavailable
    ├── Fault         the provider's: timeouts, connections, 5xx, redirects, replies that break rule 1. A breaker counts them
    └── Blameless     429, or nobody asked it
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from infra.engine import OWN, ArmSpec, Generation
from schemas.errors import Refused, Unavailable

TOKEN_BYTES = 256  # UTF-8 bytes of the longest tokens in use: a vocabulary's longest are runs of 128 blanks
MAX_TOKENS = 10**9
LOGPROB_ABOVE = 1e-3  # a log probability this far above 0 is rounding


class Fault(Unavailable):
    """The provider's fault. `repeatable`: nothing of an answer had come, so asking once more may help and repeats nothing."""

    def __init__(self, message: str, *, retry_after_s: float | None = None, repeatable: bool = False) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.repeatable = repeatable


class Provider(Protocol):
    """Answers prompts of any arm that names it. Calls run at the same time; a cancelled one lets go of its connection."""

    @property
    def name(self) -> str:
        """What an arm's `provider` says, and the engine's name in its results."""
        ...

    async def complete(self, spec: ArmSpec, text: str, request_id: str, timeout_s: float) -> Generation:
        """The arm's answer to `text`, checked, within `timeout_s`. Raises `Refused`, `Fault` or `Blameless`."""
        ...

    async def probe(self, spec: ArmSpec, timeout_s: float) -> None:
        """Prove at the price of a token or so that the arm answers now; raises what `complete` would."""
        ...


@dataclass(frozen=True, slots=True)
class Said:
    """What a provider's reply says, read but not yet believed. `finish`: stop or length."""

    text: str
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    finish: str
    logprobs: tuple[float, ...]
    reply_id: str


def checked(where: str, said: Said, max_tokens: int, key: str) -> Said:
    """The same where it contradicts neither itself nor what was asked, with an id that is safe to keep; else `Fault`.

    A token holds at most `TOKEN_BYTES` bytes, so a text longer than that is of more tokens than are claimed. Fewer tokens are no
    contradiction in the other direction: reasoning and cut stop sequences are paid for, too.
    """
    if said.tokens_out > max_tokens:
        raise dishonest(where, f"claims {said.tokens_out} tokens where at most {max_tokens} were asked for")
    if len(said.text.encode()) > said.tokens_out * TOKEN_BYTES:
        raise dishonest(where, f"claims {said.tokens_out} tokens for a text of {len(said.text)} characters")
    if said.tokens_cached > said.tokens_in:
        raise dishonest(where, f"claims {said.tokens_cached} cached of {said.tokens_in} tokens")
    if len(said.logprobs) > said.tokens_out:
        raise dishonest(where, f"gives {len(said.logprobs)} log probabilities for {said.tokens_out} tokens")
    if any(not math.isfinite(row) or row > LOGPROB_ABOVE for row in said.logprobs):
        raise dishonest(where, "gives a log probability that is none")
    if key and key in said.text:
        raise dishonest(where, "gives our key back in its answer")
    known = said.reply_id if _plain(said.reply_id) and not (key and key in said.reply_id) else ""
    return Said(
        said.text,
        said.tokens_in,
        said.tokens_cached,
        said.tokens_out,
        said.finish,
        tuple(min(0.0, row) for row in said.logprobs),
        known,
    )


def dishonest(where: str, why: str) -> Fault:
    return Fault(f"the reply of {where} contradicts itself: it {why}")


def unreadable(where: str, why: str) -> Fault:
    return Fault(f"the reply of {where} is not readable: {why}")


def settings_refused(spec: ArmSpec, field: str, accepted: str) -> Refused:
    """An arm that its provider cannot serve as it is declared. The value is not said: an address may hold what is secret."""
    return Refused(
        f"arm {spec.arm!r}: {field} does not suit provider {spec.provider}, accepted: {accepted}",
        kind="provider_settings",
        field=field,
        accepted=accepted,
    )


def check_common(spec: ArmSpec) -> None:
    """What every provider asks of an arm. Raises `Refused`."""
    if spec.adapter is not None:
        raise settings_refused(spec, "adapter", f"none: {OWN} alone serves adapters, for it verifies them")
    if not spec.model:
        raise settings_refused(spec, "model", "the model's name, as the provider calls it")


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a reply, read strictly. `path` names it in errors: our words, never the provider's."""

    where: str
    value: object
    path: str = ""

    def get(self, name: str) -> "Part":
        """The field of an object; one that is null or absent is a part whose value is None."""
        held = fields(self.value)
        if held is None:
            raise self._wrong("an object")
        return Part(self.where, held.get(name), f"{self.path}.{name}" if self.path else name)

    def rows(self) -> "Sequence[Part]":
        if not isinstance(self.value, list):
            raise self._wrong("a list")
        rows = cast("list[object]", self.value)  # pyright: ignore[reportUnknownMemberType]  it is read row by row
        return [Part(self.where, row, f"{self.path}[{index}]") for index, row in enumerate(rows)]

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self._wrong("a text")
        return self.value

    def count(self) -> int:
        """A number of tokens."""
        if not isinstance(self.value, int) or isinstance(self.value, bool) or not 0 <= self.value <= MAX_TOKENS:
            raise self._wrong("a number of tokens")
        return self.value

    def number(self) -> float:
        if not isinstance(self.value, int | float) or isinstance(self.value, bool):
            raise self._wrong("a number")
        return float(self.value)

    @property
    def absent(self) -> bool:
        return self.value is None

    def _wrong(self, wanted: str) -> Fault:
        return unreadable(self.where, f"{self.path or 'it'} is {'missing' if self.absent else f'not {wanted}'}")


def fields(value: object) -> dict[str, object] | None:
    """A JSON object's fields, None where it is something else."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def _plain(text: str) -> bool:
    return len(text) <= 128 and text.isascii() and all(letter.isalnum() or letter in "._:-" for letter in text)
