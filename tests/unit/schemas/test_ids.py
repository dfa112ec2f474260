"""Derived ids and coins: the same cause gives the same id everywhere, and coins are fair."""

import uuid

from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import NAMESPACE, bucket, coin, derive, digest, trace_parent

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_derived_id_is_uuid5_of_cause_agent_index() -> None:
    """The value is RFC 9562's version 5, so that any language derives it."""
    assert derive("c1", "router", 0) == str(uuid.uuid5(NAMESPACE, "c1/router/0"))
    assert uuid.UUID(derive("c1", "router", 0)).version == 5


@given(st.text(max_size=60), st.text(max_size=20), st.integers() | st.text(max_size=20))
def test_every_derived_id_is_what_the_standard_library_derives(cause: str, agent: str, index: int | str) -> None:
    """`derive` is written out for speed: any cause, agent and index give `uuid.uuid5` all the same."""
    assert derive(cause, agent, index) == str(uuid.uuid5(NAMESPACE, f"{cause}/{agent}/{index}"))


@given(st.text(max_size=20), st.text(max_size=20))
def test_ids_differ_by_index_and_repeat_by_cause(cause: str, agent: str) -> None:
    """A re-run gives the same id, another index another id."""
    assert derive(cause, agent, 0) == derive(cause, agent, 0) != derive(cause, agent, 1)


def test_the_coin_is_fair_and_its_labels_independent() -> None:
    """Ten thousand ids: the mean lies within five standard errors of the middle, and two labels agree as chance would."""
    first = [coin(f"r{i}", "a") for i in range(10_000)]
    second = [coin(f"r{i}", "b") for i in range(10_000)]
    assert all(0 <= value <= 65_535 for value in first)
    assert abs(sum(first) / 10_000 - 32_767.5) < 5 * 18_918 / 100
    agree = sum((a < 32_768) == (b < 32_768) for a, b in zip(first, second, strict=True))
    assert abs(agree - 5_000) < 250


@given(st.text(max_size=30), st.integers(0, 10_000), st.integers(0, 10_000))
def test_raising_a_share_never_moves_an_id_out(identity: str, one: int, other: int) -> None:
    """Who is below a smaller share is below a greater one."""
    low, high = sorted((one, other))
    place = bucket("exp", identity)
    assert 0 <= place < 10_000
    assert not (place < low) or place < high


def test_a_trace_goes_on_and_a_broken_one_starts_anew() -> None:
    """The trace id and flags of the cause stay, the span is the event's; garbage is not carried on."""
    child = trace_parent(PARENT, "e1")
    assert (child[:36], child[-3:]) == (PARENT[:36], "-01")
    assert child[36:52] != PARENT[36:52]
    for bad in (None, "", "01-" + PARENT[3:], PARENT[:-1]):
        fresh = trace_parent(bad, "e1")
        assert len(fresh) == 55
        assert fresh[3:35] != PARENT[3:35]
        assert fresh == trace_parent(bad, "e1")


def test_a_digest_names_its_algorithm() -> None:
    """SHA-256 of nothing is the published value."""
    assert digest(b"") == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
