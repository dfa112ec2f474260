"""The demonstration's data: whole, licensed, and split the same everywhere."""

from infra.banking77 import FILE, load, split


def test_the_split_is_fixed_disjoint_and_covers_all() -> None:
    """Counts as published; no text in two parts; the base part holds known intents only, the others all 77."""
    messages = load()
    parts = split(messages)
    assert len({m.intent for m in messages}) == 77
    assert len(parts.known) == 60
    assert {m.intent for m in parts.base} == parts.known
    assert len({m.intent for m in parts.feedback}) == len({m.intent for m in parts.test}) == 77
    texts = [m.text.casefold() for part in (parts.base, parts.feedback, parts.test) for m in part]
    assert len(texts) == len(set(texts)) == len(messages)
    assert split(list(reversed(messages))) == parts


def test_source_and_licence_stand_beside_the_data() -> None:
    """The copy names where it is from and under what licence."""
    readme = (FILE.parent / "README.md").read_text()
    assert "PolyAI-LDN/task-specific-datasets" in readme
    assert "CC BY 4.0" in readme
