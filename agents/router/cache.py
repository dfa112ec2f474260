"""The rules of the caches: under which key an answer is kept, and which nearly equal question's answer may be given.

What is kept is in `agents.rules.answers`.

1. A key holds tenant, route, arm with its adapter and parameters, settings, gate and generation: what differs in any never meets.
2. Only what was released is kept (by trust, under the key that the decision named); a raised generation leaves it unread.
3. A similar question's answer is served only where no veto speaks, its entry has proven itself, and the partition keeps its SLO.
"""

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from agents.router.trials import Counts, keeps_slo, proven
from agents.router.vetoes import veto
from schemas.events import CachedAnswer
from schemas.routes import Arm
from schemas.routing import SENSITIVITIES, Sensitivity

LIKE_MILLI = 950
NOMINEES = 5
PERSONAL = SENSITIVITIES.index("personal")
_LABEL = "cache/1"


class Said(Protocol):
    """What a key needs of a message."""

    @property
    def role(self) -> str: ...
    @property
    def content(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose answers these are, and under which rules they were made.

    `router`, `gate`: digests of the settings that answers depend on. A learner's snapshot is none of them: it changes every few
    seconds, and an arm's answer does not depend on it. `generation`: of `policy.router`.
    """

    tenant: str
    route: str
    router: str
    gate: str
    generation: int


@dataclass(frozen=True, slots=True)
class Nominee:
    """A kept answer whose question is near this one, and what its trials said."""

    question: str
    likeness_milli: int
    answer: CachedAnswer
    trials: Counts = field(default_factory=Counts)


@dataclass(frozen=True, slots=True)
class Choice:
    """serve: give the nominee's answer. try: answer afresh and compare with it. miss: neither. `vetoes`: of the nearest, if any."""

    action: Literal["serve", "try", "miss"]
    nominee: Nominee | None = None
    vetoes: tuple[str, ...] = ()


def fold(text: str) -> str:
    """NFC, every run of white space one space. Where later lines are indented (code, lists) lines keep their beginnings. Idempotent."""
    lines = [line.rstrip() for line in unicodedata.normalize("NFC", text).splitlines()]
    while lines and not lines[0]:
        del lines[0]
    while lines and not lines[-1]:
        del lines[-1]
    if any(line[:1].isspace() for line in lines[1:]):
        return "\n".join(lines)
    return " ".join(" ".join(lines).split())


def body_of(messages: Sequence[Said], tools: Iterable[str] = ()) -> str:
    """The digest of what is asked: every message, folded, and the tools."""
    return _digest("body", [[one.role, fold(one.content)] for one in messages], sorted(set(tools)))


def key_of(scope: Scope, arm: Arm, body: str) -> str:
    """Under which the arm's answer to this body is kept. Every field of the arm counts: changing any makes another arm."""
    return "cache:" + _digest("entry", _told(scope), arm.model_dump(mode="json"), body)


def keys_of(scope: Scope, arms: Iterable[Arm], body: str) -> dict[str, str]:
    """Arm -> its key, for one read of the store."""
    return {arm.arm: key_of(scope, arm, body) for arm in arms}


def partition_of(scope: Scope, messages: Sequence[Said]) -> str:
    """Where the questions lie that may be like this one: those under the same rules and the same system messages."""
    context = [[one.role, fold(one.content)] for one in messages if one.role != "user"]
    return "cache-like:" + _digest("partition", _told(scope), context)


def may_be_like(
    semantic: bool, messages: Sequence[Said], sensitivity: Sensitivity, *, masked: bool = False, tools: bool = False
) -> bool:
    """Whether a similar question's answer could be given at all: the operator said that errors here are cheap (`semantic`), one
    question without a history, no tools, and nothing personal, not even masked.
    """
    roles = [one.role for one in messages]
    single = roles.count("user") == 1 and "assistant" not in roles and roles[-1] == "user"
    return semantic and single and SENSITIVITIES.index(sensitivity) < PERSONAL and not (masked or tools)


def question_of(messages: Sequence[Said]) -> str:
    """The one question of a request that may be like another."""
    return fold(messages[-1].content)


def choose(question: str, nominees: Sequence[Nominee], checks: Counts, *, by_meaning: bool = False) -> Choice:
    """What to do about the questions that are like this one. `checks`: of the partition's answers that were asked again.

    The nearest without a veto is the one; of equally near ones that with the least key, so that the order given does not matter.
    `by_meaning`: of the embedder.
    """
    if not keeps_slo(checks):
        return Choice("miss")
    first: tuple[str, ...] = ()
    for nominee in sorted(nominees, key=lambda one: (-one.likeness_milli, one.answer.key)):
        if nominee.likeness_milli < LIKE_MILLI:
            break
        vetoes = veto(question, nominee.question, by_meaning=by_meaning)
        if not vetoes:
            return Choice("serve" if proven(nominee.trials) else "try", nominee)
        first = first or vetoes
    return Choice("miss", None, first)


def _told(scope: Scope) -> list[object]:
    return [scope.tenant, scope.route, scope.router, scope.gate, scope.generation]


def _digest(*parts: object) -> str:
    """SHA-256 over one JSON array: no two lists of parts have the same text."""
    text = json.dumps([_LABEL, *parts], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
