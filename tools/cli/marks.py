"""What the mark on an answer says, and whether it is that answer's mark.

Whoever may read the gate's key can check a mark; on a stack with Vault that is routers and trust, and whom an operator lets.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from agents.rules.ai_mark import Mark, holds, key_of, origins_of, told
from infra.sealing import GateKeys, open_gate_keys
from infra.settings import Settings
from schemas.errors import Refused, Unavailable
from schemas.events import AnswerReleased
from tools.voice import open_store

Verdict = Literal["holds", "broken", "unchecked", "none"]
WORDS: Mapping[Verdict, str] = {
    "holds": "the mark holds",
    "broken": "THE MARK DOES NOT HOLD: this is not the answer that was marked",
    "unchecked": "the mark was not checked: no key to check it with may be read here",
    "none": "it bears no mark",
}


async def keys_of(settings: Settings) -> GateKeys | None:
    """The keys that marks are checked with; None where this user may read none."""
    try:
        async with open_store(settings) as source:
            return None if source is None else await open_gate_keys(source)
    except (Refused, Unavailable):
        return None


def checked(data: Mapping[str, Any], keys: GateKeys | None) -> tuple[Verdict, str]:
    """Whether the mark of an `answer.released` is of this answer, and all of it in a sentence."""
    try:
        answer = AnswerReleased.model_validate(data)
        mark = None if answer.mark is None else Mark(answer.mark.statement, answer.mark.binding)
        if mark is None:
            return "none", WORDS["none"]
        said, words, key_id = origins_of(mark), told(mark), key_of(mark.binding)
    except (ValidationError, ValueError):
        return "broken", WORDS["broken"]
    named = (said.tenant, said.request_id, said.result_id, said.arm)
    found: Verdict = "broken"
    if named == (answer.tenant, answer.request_id, answer.result_id, answer.arm):
        if keys is None:
            found = "unchecked"
        elif key_id in keys.retired:
            return "unchecked", f"{words} The mark was not checked: its key was retired."
        elif key_id in keys and holds(mark, said, answer.text, keys.mark_key(answer.tenant, key_id)):
            found = "holds"
    return found, f"{words} {WORDS[found][0].upper()}{WORDS[found][1:]}."
