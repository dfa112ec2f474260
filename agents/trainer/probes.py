"""Texts by which a loaded adapter is known again. They lie readable among its files, in every copy: so they are nobody's. Pure.

1. Texts of rows without a subject first: what no erasure asks for.
2. Then answers that at least three people share: the names of classes. One person's erasure takes nothing from them.
3. Then sentences of our own. A probe need not be a good question: it is enough that the adapter answers it always the same.
"""

from collections import defaultdict
from itertools import islice
from typing import Final

from agents.rules.curation import Dataset
from agents.rules.text import normalise

MOST: Final = 40
SHARED_BY: Final = 3
OURS: Final = (
    "Hello, can you help me?",
    "I have a question.",
    "Something does not work.",
    "Please tell me more about it.",
)


def probe_texts(dataset: Dataset) -> tuple[str, ...]:
    """At most `MOST` texts, the same for the same rows; never the text or the own answer of a row that has a subject."""
    rows = (*dataset.validation, *dataset.test, *dataset.train)
    plain = (row.text for row in rows if row.subject is None)
    people: dict[str, set[str]] = defaultdict(set)
    said: dict[str, str] = {}
    for row in rows:
        name = normalise(row.label)
        people[name].add(row.subject or f"request {row.request_id}")
        said[name] = min(said.get(name, row.label), row.label)
    shared = (said[name] for name in sorted(said) if len(people[name]) >= SHARED_BY)
    return tuple(islice(dict.fromkeys((*plain, *shared, *OURS)), MOST))
