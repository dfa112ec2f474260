"""Curation depends on the cases alone, never on their order."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.rules.curation import curate, part_of
from agents.rules.text import normalise
from schemas.events import CaseArm, CaseClosed, Message

NOW = 1_700_000_000_000
PINNED = ["test", "train", "train", "train", "train", "test"]


def case(number, text, label="card", **changes):
    told = {
        "at_ms": NOW, "route": "bank", "request_id": f"r{number}", "request_partition": 0, "request_offset": number,
        "decision_id": f"d{number}", "assigned_at_ms": NOW + number, "window_end_ms": NOW, "arm": "base",
        "why": "complete", "messages": (Message(role="user", content=text or "-"),), "choices": (), "grader": "reference",
        "arms": (CaseArm(arm="base", shadow=False, status="completed", grade=1000),),
        "label": label, "verdict_kind": "reference", "verdict_at_ms": NOW + number,
    }  # fmt: skip
    return CaseClosed(**(told | changes))


def curated(cases, **changes):
    return curate(cases, **({"min_rows_per_class": 1, "max_rows": 1000} | changes))


CASES = st.lists(
    st.tuples(
        st.sampled_from(["a", "A ", "b", " b", "c", "d", "e e", "E  e"]), st.sampled_from(["card", "Card", "loan"])
    ),
    max_size=25,
).map(lambda rows: [case(n, text, label) for n, (text, label) in enumerate(rows)])


@settings(max_examples=60, deadline=None)
@given(CASES, st.randoms(use_true_random=False), st.booleans(), st.integers(1, 3), st.integers(1, 6))
def test_the_order_of_cases_does_not_matter(cases, random, shuffle_labels, least, most):
    """Any order, with any case twice, gives the same rows; no text is in two rows; every row is in its fixed part."""
    told = {"shuffle_labels": shuffle_labels, "min_rows_per_class": least, "max_rows": most}
    first = curated(cases, **told)
    mixed = list(cases)
    random.shuffle(mixed)
    again = curated(mixed, **told)
    assert (first.train, first.validation, first.test) == (again.train, again.validation, again.test)
    assert first.counts == again.counts or shuffle_labels or "contradictions" in first.counts
    texts = [normalise(row.text) for row in first.rows]
    assert len(texts) == len(set(texts)) <= most
    for part, rows in (("train", first.train), ("validation", first.validation), ("test", first.test)):
        assert all(part_of(row.request_id) == part for row in rows)
    assert first.cutoff_ms == max((row.assigned_at_ms for row in first.rows), default=0)


def test_the_newest_verdict_wins():
    """Of two verdicts on one text the newer one's label is the row's, and the contradiction is counted."""
    found = curated([case(2, "My  Card", "loan"), case(1, "my card", "card")])
    assert [(row.label, row.request_id, row.decision_id) for row in found.rows] == [("loan", "r2", "d2")]
    assert (found.counts["duplicate texts"], found.counts["contradictions"]) == (1, 1)


def test_only_people_and_references_are_believed():
    """A model's verdict, no label and no text are counted and left out; the last user message is the text."""
    turns = tuple(
        Message(role=role, content=text) for role, text in (("user", "one"), ("assistant", "hm"), ("user", "last"))
    )
    nobody = (Message(role="assistant", content="hello"),)
    found = curated([
        case(0, "x", verdict_kind="model"), case(1, "y", label=None), case(2, "", messages=nobody),
        case(3, "z", messages=turns), case(4, "person", verdict_kind="person"),
    ])  # fmt: skip
    assert sorted(row.text for row in found.rows) == ["last", "person"]
    assert found.counts["without a trusted label"] == 3


@pytest.mark.parametrize(
    "went", [{"settled": "withheld", "withheld": "gate"}, {"action": "hold"}, {"action": "escalate"}]
)
def test_what_did_not_go_out_makes_no_row(went):
    """Withheld by the gate, or nobody knows what became of it: an approval of it is counted and not trained on."""
    found = curated([case(1, "one"), case(2, "two", **went), case(3, "three", action="hold", settled="released")])
    assert sorted(row.text for row in found.rows) == ["one", "three"]
    assert found.counts["withheld by the gate, or not known"] == 1


def test_small_classes_and_the_cap_are_counted():
    """A class below the least is dropped whole; the cap keeps the newest verdicts."""
    rows = [case(n, f"card {n}") for n in range(8)] + [case(90, "loan 1", "loan"), case(91, "loan 2", "loan")]
    found = curated(rows, min_rows_per_class=3, max_rows=5)
    assert {row.request_id for row in found.rows} == {f"r{n}" for n in range(3, 8)}
    assert (found.counts["in classes that are too small"], found.counts["over the cap"]) == (2, 3)
    assert (found.counts["rows"], found.counts["classes"]) == (5, 1)


def test_the_split_is_fixed():
    """About 70 / 15 / 15, and the part of a request never changes (these are constants of the log's future)."""
    parts = [part_of(f"request-{n}") for n in range(4000)]
    for name, share in (("train", 0.70), ("validation", 0.15), ("test", 0.15)):
        assert parts.count(name) / len(parts) == pytest.approx(share, abs=0.02)
    assert [part_of(f"r{n}") for n in range(6)] == PINNED


def test_shuffled_labels_spare_the_test_split():
    """The same labels on other texts in train and validation, none moved in test; another seed, another permutation."""
    cases = [case(n, f"text {n}", f"label {n % 9}") for n in range(200)]
    plain, mixed = curated(cases), curated(cases, shuffle_labels=True)
    assert mixed.test == plain.test
    for before, after in ((plain.train, mixed.train), (plain.validation, mixed.validation)):
        assert sorted(row.label for row in before) == sorted(row.label for row in after)
        assert [row.text for row in before] == [row.text for row in after]
        right = sum(b.label == a.label for b, a in zip(before, after, strict=True))
        assert right < len(before) / 3
    assert curated(cases, shuffle_labels=True, seed=1).train != mixed.train
