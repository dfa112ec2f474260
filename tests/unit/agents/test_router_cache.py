"""Cache keys that never meet, entries that are whole or absent, and which like question is answered from the cache."""

import dataclasses
import unicodedata
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agents.router import cache
from agents.router.cache import Entry, Nominee, Scope
from agents.router.trials import Counts
from schemas.events import Message
from schemas.routes import Arm
from schemas.routing import Sensitivity

SCOPE = Scope("acme", "faq", "router-1", "gate-1", 3)
ARM = Arm(arm="small", base="sha256:aa", adapter="sha256:bb")
ENTRY = Entry(
    arm="small", adapter="sha256:bb", result_id="r1", text="Paris. ✓", tokens_in=7, tokens_out=2, finish_reason="stop",
    logprobs=(-0.25, -1e-9), engine="scripted", at_ms=5,
)  # fmt: skip
NAMES = st.text("ab\"',[]\\é|/ ", max_size=4)
SCOPES = st.builds(Scope, NAMES, NAMES, NAMES, NAMES, st.integers(0, 3))
TALK = st.lists(st.builds(Message, role=st.sampled_from(["system", "user"]), content=st.text("ab .\n", min_size=1)))


def said(*turns: tuple[Any, str]) -> list[Message]:
    """Messages of (role, content)."""
    return [Message(role=role, content=content) for role, content in turns]


@given(one=SCOPES, other=SCOPES)
def test_keys_of_two_tenants_or_policies_never_meet(one: Scope, other: Scope) -> None:
    """Scopes that differ in anything have other keys and other partitions, wherever the difference lies."""
    assume(one != other)
    body = cache.body_of(said(("user", "hello")))
    assert cache.key_of(one, ARM, body) != cache.key_of(other, ARM, body)
    assert cache.partition_of(one, []) != cache.partition_of(other, [])


CHANGES: dict[str, object] = {
    "tenant": "other", "route": "other", "router": "router-2", "gate": "gate-2", "generation": 4,
}  # fmt: skip


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Scope)])
def test_each_part_of_the_scope_counts(field: str) -> None:
    """Changing any one part of the scope misses what was kept; raising the generation empties the cache so."""
    body = cache.body_of(said(("user", "hello")))
    changed = dataclasses.replace(SCOPE, **{field: CHANGES[field]})
    held = {cache.key_of(SCOPE, ARM, body): cache.encode(cache.key_of(SCOPE, ARM, body), ENTRY)}
    keys = cache.keys_of(changed, [ARM], body)
    assert cache.exact_hits(keys, [held.get(key) for key in keys.values()], [ARM]) == {}
    same = cache.keys_of(SCOPE, [ARM], body)
    assert cache.exact_hits(same, [held.get(key) for key in same.values()], [ARM])["small"].text == ENTRY.text


@pytest.mark.parametrize(
    "change",
    [
        {"arm": "large"}, {"base": "sha256:cc"}, {"adapter": "sha256:dd"}, {"adapter": None}, {"temperature": 0.5},
        {"max_tokens": 8}, {"stop": ("\n",)}, {"template": "Q: {text}"}, {"model": "m"}, {"url": "http://h"},
    ],
)  # fmt: skip
def test_each_part_of_the_arm_counts(change: dict[str, Any]) -> None:
    """A promotion to another adapter, template or parameter never reads the former one's answers."""
    body = cache.body_of(said(("user", "hello")))
    assert cache.key_of(SCOPE, ARM, body) != cache.key_of(SCOPE, ARM.model_copy(update=change), body)


@given(one=TALK, other=TALK)
def test_messages_meet_only_where_they_fold_alike(one: list[Message], other: list[Message]) -> None:
    """Two talks have one body where role and folded text agree, turn by turn; text does not move between turns."""
    folded = [[(row.role, cache.fold(row.content)) for row in talk] for talk in (one, other)]
    assert (cache.body_of(one) == cache.body_of(other)) == (folded[0] == folded[1])


def test_tools_are_part_of_the_question() -> None:
    """The same words with other tools are another question; the order of the tools is none."""
    talk = said(("user", "hello"))
    assert cache.body_of(talk, ["a", "b"]) == cache.body_of(talk, ["b", "a"]) != cache.body_of(talk, ["a"])


@given(text=st.text())
def test_folding_is_idempotent_and_nfc(text: str) -> None:
    """What is folded stays as it is; how it was composed does not matter."""
    once = cache.fold(text)
    assert cache.fold(once) == once
    assert cache.fold(unicodedata.normalize("NFD", text)) == once


def test_white_space_folds_but_for_indentation() -> None:
    """Runs of white space are one space; where indentation says something, lines keep their beginnings."""
    assert cache.fold("  a\t b\n\nc ") == "a b c"
    assert cache.fold("if x:\n    a\nb ") == "if x:\n    a\nb" != cache.fold("if x:\n    a\n    b")


@given(
    entry=st.builds(
        Entry,
        arm=st.text(),
        adapter=st.none() | st.text(),
        result_id=st.text(),
        text=st.text(),
        tokens_in=st.integers(0, 10**6),
        tokens_out=st.integers(0, 10**6),
        finish_reason=st.text(),
        logprobs=st.lists(st.floats(-100, 0)).map(tuple),
        engine=st.text(),
        at_ms=st.integers(0, 10**13),
    ),
    key=st.text(),
)
def test_entries_come_back_whole(entry: Entry, key: str) -> None:
    """What was encoded is decoded, to the last bit of a logprob."""
    assert cache.decode(key, cache.encode(key, entry)) == entry


@given(data=st.data())
def test_damage_is_a_miss(data: st.DataObject) -> None:
    """Any changed, cut or added byte, and any other bytes, are a miss."""
    value = cache.encode("k", ENTRY)
    at = data.draw(st.integers(0, len(value) - 1))
    bit = data.draw(st.integers(0, 7))
    assert cache.decode("k", value[:at] + bytes([value[at] ^ (1 << bit)]) + value[at + 1 :]) is None
    assert cache.decode("k", value[:at]) is None
    assert cache.decode("k", value + b" ") is None
    assert cache.decode("k", data.draw(st.binary())) is None


def test_an_entry_of_another_key_is_a_miss() -> None:
    """An entry that lies under a key it was not written for is nobody's."""
    assert cache.decode("other", cache.encode("k", ENTRY)) is None
    assert cache.decode("k", None) is None


def test_an_entry_of_another_arm_is_no_hit() -> None:
    """Even under the right key an answer is only its own arm's and adapter's."""
    body = cache.body_of(said(("user", "hello")))
    keys = cache.keys_of(SCOPE, [ARM], body)
    wrong = ENTRY.model_copy(update={"adapter": None})
    assert cache.exact_hits(keys, [cache.encode(keys["small"], wrong)], [ARM]) == {}


SYSTEM = ("system", "Be brief.")
ASK = ("user", "Are you open?")


@pytest.mark.parametrize(
    ("turns", "semantic", "sensitivity", "more", "expected"),
    [
        ([ASK], True, "public", {}, True),
        ([SYSTEM, ASK], True, "internal", {}, True),
        ([ASK], False, "public", {}, False),
        ([ASK], True, "personal", {}, False),
        ([ASK], True, "secret", {}, False),
        ([ASK, ("assistant", "Yes."), ASK], True, "public", {}, False),
        ([ASK, ASK], True, "public", {}, False),
        ([ASK, SYSTEM], True, "public", {}, False),
        ([ASK], True, "public", {"masked": True}, False),
        ([ASK], True, "public", {"tools": True}, False),
    ],
)
def test_who_may_be_answered_from_a_like_question(
    turns: list[tuple[Any, str]], semantic: bool, sensitivity: Sensitivity, more: dict[str, bool], expected: bool
) -> None:
    """Only where the operator said so, of one question without history, tools or anything personal."""
    assert cache.may_be_like(semantic, said(*turns), sensitivity, **more) is expected


def test_other_system_messages_are_another_partition() -> None:
    """The same question under other instructions is another one."""
    assert cache.partition_of(SCOPE, said(SYSTEM, ASK)) == cache.partition_of(SCOPE, said(SYSTEM, ("user", "Else?")))
    assert cache.partition_of(SCOPE, said(SYSTEM, ASK)) != cache.partition_of(SCOPE, said(ASK))


QUESTION = "How do I reset my password?"
PROVEN = Counts(148, 0)


def nominee(question: str, likeness: int = 990, trials: Counts = PROVEN, key: str = "k") -> Nominee:
    """An entry for a question."""
    return Nominee(key, question, likeness, ENTRY, trials)


def test_a_proven_entry_is_served() -> None:
    """The nearest one without a veto, once its trials have proven it; until then the answer is made and compared."""
    near = nominee("how do i reset my password")
    assert cache.choose(QUESTION, [near], Counts()) == cache.Choice("serve", near)
    fresh = nominee("how do i reset my password", trials=Counts(147, 0))
    assert cache.choose(QUESTION, [fresh], Counts()) == cache.Choice("try", fresh)


def test_a_veto_passes_on_to_the_next() -> None:
    """A vetoed nominee is never served, however near and proven; the next one may be, and else the veto is told."""
    vetoed = nominee("How do I not reset my password?", 999)
    near = nominee("how can I reset my password?", 960, key="l")
    assert cache.choose(QUESTION, [near, vetoed], Counts()) == cache.Choice("serve", near)
    assert cache.choose(QUESTION, [vetoed], Counts()) == cache.Choice("miss", None, ("negation", "words"))


def test_too_far_or_switched_off_is_a_miss() -> None:
    """Below .95 nobody is looked at; a partition that broke its SLO serves and tries nothing."""
    assert cache.choose(QUESTION, [nominee(QUESTION, 949)], Counts()) == cache.Choice("miss")
    assert cache.choose(QUESTION, [nominee(QUESTION)], Counts(4, 1)) == cache.Choice("miss")
    assert cache.choose(QUESTION, [], Counts()) == cache.Choice("miss")


@given(order=st.permutations(range(4)))
def test_the_order_of_nominees_does_not_matter(order: list[int]) -> None:
    """The same nominees in any order give the same choice."""
    rows = [nominee(QUESTION, 980, key=key) for key in "abc"] + [nominee("How do I close it?", 999, key="d")]
    assert cache.choose(QUESTION, [rows[index] for index in order], Counts()).nominee == rows[0]
