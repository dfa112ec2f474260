"""Tombstones of a Fold's state: what was dropped or forgotten stays away after a restore, compacted or not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from streams_contract import Chain, Count

from streams.port import Outgoing
from streams.shapes import UNCHANGED, Change, Record
from streams.state import MemoryState

Changes = list[tuple[str, Change[Chain, Chain]]]
NAMES = st.sampled_from(["1", "2", "3"])
MODELS = st.integers(0, 9).map(lambda n: Chain(n=n, chain="c"))
KEYS = st.sampled_from(["a", "b"])
CHANGE = st.builds(
    Change[Chain, Chain],
    record=st.just(UNCHANGED) | MODELS,
    put=st.dictionaries(NAMES, MODELS, max_size=2),
    drop=st.lists(NAMES, max_size=2),
    due_ms=st.just(UNCHANGED) | st.none() | st.integers(1, 9),
    forget=st.booleans(),
)


def applied(state: MemoryState, changes: Changes) -> list[Outgoing]:
    """The rows of one transaction."""
    for key, change in changes:
        state.view(key)
        state.apply(key, change)
    return state.changes()


def restored(rows: list[Outgoing]) -> MemoryState:
    state = MemoryState(Count("probe"))
    for offset, row in enumerate(rows):
        state.load(Record("s", 0, offset, row.key, row.value, row.headers, 0))
    for _ in state.settle():
        pass
    return state


def compacted(rows: list[Outgoing], *, tombstones: bool) -> list[Outgoing]:
    """The newest row of each key, where it then stands; later the cleaner takes tombstones too."""
    newest = {row.key: at for at, row in enumerate(rows)}
    return [row for at, row in enumerate(rows) if newest[row.key] == at and (tombstones or row.value is not None)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(KEYS, CHANGE), max_size=4), max_size=5))
def test_a_restored_state_is_the_state_that_was_left(transactions: list[Changes]) -> None:
    """Whatever was put, dropped and forgotten in whatever order: the same rows, keys and due times come back."""
    state = MemoryState(Count("probe"))
    log = [row for changes in transactions for row in applied(state, changes)]
    for rows in (log, compacted(log, tombstones=True), compacted(log, tombstones=False)):
        again = restored(rows)
        assert list(again.rows()) == list(state.rows())
        assert len(again) == len(state)
        assert again.due(10) == restored(log).due(10)


@pytest.mark.parametrize("late", [False, True])
def test_a_forgotten_key_leaves_tombstones_only(late: bool) -> None:
    """Record and entries are deleted by name, so that compaction leaves nothing; born again, it has none of its old entries."""
    one, state = Chain(n=1, chain="c"), MemoryState(Count("probe"))
    put: Changes = [("a", Change(record=one, put={"1": one, "2": one}, due_ms=5))]
    forgotten: Changes = [("a", Change(forget=True))]
    born: Changes = [("a", Change(put={"3": one}))]
    log = applied(state, put)
    log += applied(state, forgotten) + applied(state, born) if late else applied(state, [*forgotten, *born])
    gone = {row.key for row in compacted(log, tombstones=True) if row.value is None}
    assert gone == {b"a\0" + b"1", b"a\0" + b"2"}
    again = restored(log).view("a")
    assert (again.record, dict(again.entries), again.due_ms) == (None, {"3": one}, None)
