"""Which cases become training rows, and in which part. Pure, and independent of the order of its input.

Rules:
1. A row needs a person's or a reference's word: the corrected text, else the approved text. None comes of what the gate withheld.
2. Texts equal once normalised are one row: the newest verdict wins, a contradiction is counted. Who is left out from the beginning
   (`unused`) takes no row of another with it.
3. A fixed hash of the request id puts a row into train, validation or test at 70 / 15 / 15, for ever.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from agents.rules.grading import teaches
from agents.rules.text import normalise
from schemas.events import CaseClosed

TRAIN_SHARE, VALIDATION_SHARE = 70, 85
TRUSTED = ("person", "reference")


@dataclass(frozen=True, slots=True)
class Row:
    """One example. `label` may have been shuffled on purpose; `request_id` names where it came from.

    `subject`: whose data it is; `partition`, `offset`: where its request lies, by which it is erased or not.
    """

    text: str
    label: str
    request_id: str
    decision_id: str
    assigned_at_ms: int
    verdict_at_ms: int
    champion_right: bool
    subject: str | None = None
    partition: int = 0
    offset: int = 0


Unused = Callable[[Row], str | None]
"""Why a row may not be used; None where it may."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows by part, and what every filter removed."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]
    counts: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.train + self.validation + self.test

    @property
    def cutoff_ms(self) -> int:
        """The newest assignment among the rows: what comes later was not trained on."""
        return max((row.assigned_at_ms for row in self.rows), default=0)


def part_of(request_id: str) -> str:
    """`train`, `validation` or `test`, fixed for ever by the request id."""
    share = int.from_bytes(hashlib.sha256(f"split\x1f{request_id}".encode()).digest()[:8], "big") % 100
    if share < TRAIN_SHARE:
        return "train"
    return "validation" if share < VALIDATION_SHARE else "test"


def text_of(case: CaseClosed) -> str:
    """The last user message."""
    return next((message.content for message in reversed(case.messages) if message.role == "user"), "")


def usable(case: CaseClosed) -> bool:
    """Whether a case may become a row."""
    return teaches(case) and bool(case.label) and case.verdict_kind in TRUSTED and text_of(case) != ""


def _row(case: CaseClosed) -> Row:
    serving = next((arm for arm in case.arms if not arm.shadow), None)
    return Row(
        text=text_of(case),
        label=case.label or "",
        request_id=case.request_id,
        decision_id=case.decision_id,
        assigned_at_ms=case.assigned_at_ms,
        verdict_at_ms=case.verdict_at_ms or 0,
        champion_right=serving is not None and (serving.grade or 0) >= 500,
        subject=case.subject,
        partition=case.request_partition,
        offset=case.request_offset,
    )


def curate(
    cases: Iterable[CaseClosed], *, min_rows_per_class: int, max_rows: int, shuffle_labels: bool = False, seed: int = 0
) -> Dataset:
    """The dataset of a range of cases, where nobody looks at the rows in between."""
    counts: Counter[str] = Counter()
    rows = candidates(cases, counts)
    return divide(
        rows,
        counts,
        min_rows_per_class=min_rows_per_class,
        max_rows=max_rows,
        shuffle_labels=shuffle_labels,
        seed=seed,
    )


def candidates(cases: Iterable[CaseClosed], counts: Counter[str], unused: Unused = lambda _: None) -> list[Row]:
    """The row of each text. What is left out is counted in `counts`."""
    rows: list[Row] = []
    for case in cases:
        counts["cases"] += 1
        if not usable(case):
            counts["without a trusted label" if teaches(case) else "withheld by the gate, or not known"] += 1
            continue
        row = _row(case)
        reason = unused(row)
        if reason is None:
            rows.append(row)
        else:
            counts[reason] += 1
    return _newest(rows, counts)


def divide(
    rows: Iterable[Row],
    counts: Counter[str],
    *,
    min_rows_per_class: int,
    max_rows: int,
    shuffle_labels: bool = False,
    seed: int = 0,
) -> Dataset:
    """The dataset of rows: texts that became equal since are one row again, small classes and what is over the cap are left out."""
    newest = _newest(rows, counts)
    by_class = Counter(normalise(row.label) for row in newest)
    rows = [row for row in newest if by_class[normalise(row.label)] >= min_rows_per_class]
    counts["in classes that are too small"] = len(newest) - len(rows)
    rows.sort(key=lambda row: (row.verdict_at_ms, row.request_id), reverse=True)
    counts["over the cap"] = max(0, len(rows) - max_rows)
    rows = sorted(rows[:max_rows], key=lambda row: row.request_id)
    parts: dict[str, list[Row]] = {"train": [], "validation": [], "test": []}
    for row in rows:
        parts[part_of(row.request_id)].append(row)
    if shuffle_labels:
        for name in ("train", "validation"):
            parts[name] = _shuffled(parts[name], seed)
    counts["rows"] = len(rows)
    counts["classes"] = len({normalise(row.label) for row in rows})
    return Dataset(tuple(parts["train"]), tuple(parts["validation"]), tuple(parts["test"]), dict(counts))


def _newest(rows: Iterable[Row], counts: Counter[str]) -> list[Row]:
    newest: dict[str, Row] = {}
    for row in rows:
        key = normalise(row.text)
        held = newest.get(key)
        if held is not None:
            counts["duplicate texts"] += 1
            counts["contradictions"] += normalise(held.label) != normalise(row.label)
            if (held.verdict_at_ms, held.request_id) >= (row.verdict_at_ms, row.request_id):
                continue
        newest[key] = row
    return list(newest.values())


def _shuffled(rows: list[Row], seed: int) -> list[Row]:
    """The same texts with each other's labels: a permutation drawn by SHA-256."""
    order = sorted(rows, key=lambda row: hashlib.sha256(f"{seed}\x1f{row.request_id}".encode()).digest())
    return [replace(row, label=other.label) for row, other in zip(rows, order, strict=True)]
