"""Findings against labels: the same type, an intersection of at least half the union, each used once."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from schemas.findings import Finding, Kind
from tools.bench.pii_data import EIGHT, GATE, Labelled

OVERLAP = 0.5
Gold = tuple[Kind, int, int]


def scored(texts: Sequence[Labelled], detect: Callable[[str], list[Finding]]) -> dict[str, Any]:
    """The figures of these texts: by type, over the eight, and the gate's. None where nothing was there to count."""
    hits, false, missed = Counter[Kind](), Counter[Kind](), Counter[Kind]()
    clean = flagged = holding = held = 0
    for text in texts:
        found = [one for one in detect(text.text) if one.kind in EIGHT]
        matched = matches(text.gold, found)
        hits.update(kind for kind, _, _ in matched)
        missed.update(_left(text.gold, matched))
        false.update(one.kind for one in found)
        flag = any(one.kind in GATE for one in found)
        if text.clean:
            clean, flagged = clean + 1, flagged + flag
        else:
            holding, held = holding + 1, held + flag
    false -= hits
    gate = [sum(of[kind] for kind in GATE) for of in (hits, missed)]
    return {
        "texts": len(texts),
        "types": {
            kind.value: {"gold": hits[kind] + missed[kind], **rates(hits[kind], false[kind], missed[kind])}
            for kind in EIGHT
        },
        "micro8": rates(hits.total(), false.total(), missed.total()),
        "gate": {
            "recall": _share(gate[0], sum(gate)),
            "clean_flag_rate": _share(flagged, clean),
            "text_recall": _share(held, holding),
            "clean_texts": clean,
        },
    }


def matches(gold: Sequence[Gold], found: Sequence[Finding]) -> list[Gold]:
    """The labels that have a finding of their own; the pairs that overlap most are made first."""
    pairs = sorted(
        (
            (-overlap, label, index)
            for label, (kind, start, end) in enumerate(gold)
            for index, one in enumerate(found)
            if one.kind is kind and (overlap := _overlap((start, end), (one.start, one.end))) >= OVERLAP
        )
    )
    labels: set[int] = set()
    used: set[int] = set()
    for _, label, index in pairs:
        if label not in labels and index not in used:
            labels.add(label)
            used.add(index)
    return [gold[label] for label in sorted(labels)]


def rates(hits: int, false: int, missed: int) -> dict[str, float | None]:
    """Precision, recall and their harmonic mean."""
    return {
        "precision": _share(hits, hits + false),
        "recall": _share(hits, hits + missed),
        "f1": _share(2 * hits, 2 * hits + false + missed),
    }


def _left(gold: Sequence[Gold], matched: Sequence[Gold]) -> Counter[Kind]:
    return Counter(kind for kind, _, _ in gold) - Counter(kind for kind, _, _ in matched)


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> float:
    inside = min(one[1], other[1]) - max(one[0], other[0])
    return max(inside, 0) / (max(one[1], other[1]) - min(one[0], other[0]))


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
