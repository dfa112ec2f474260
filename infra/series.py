"""Prometheus's formats read into points: text expositions with timestamps, OpenMetrics, and the JSON of `query_range`."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias, cast

from prometheus_client import Metric
from prometheus_client.openmetrics import parser as open_metrics
from prometheus_client.parser import text_string_to_metric_families as exposition

from schemas.errors import Refused

Point: TypeAlias = tuple[str, Mapping[str, str], int, float]  # name, labels, epoch ms, value
_Parse: TypeAlias = Callable[[str], Iterable[Metric]]  # one of them has no types
MOST_BYTES = 256 << 20
ACCEPTED = (
    "Prometheus's text format with a timestamp on each sample, several scrapes one after the other; OpenMetrics, as promtool dumps it; "
    "or answers of /api/v1/query_range with metric names, one JSON value or one a line"
)


def read(file: Path) -> list[Point]:
    """All points of a file. Raises `Refused` that names the file and what is accepted."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise _refused(file, f"is larger than {MOST_BYTES >> 20} MiB")
        text = file.read_text(encoding="utf-8")
    except OSError as fault:
        raise _refused(file, f"cannot be read: {fault.strerror}") from fault
    except UnicodeDecodeError as fault:
        raise _refused(file, "is not UTF-8") from fault
    try:
        points = list(_json(text) if text.lstrip()[:1] in ("{", "[") else _text(text))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as fault:
        told = f": {fault}" if isinstance(fault, Untimed) else f" ({type(fault).__name__})"
        raise _refused(file, f"is not understood{told}") from fault
    return [point for point in points if math.isfinite(point[3])]


class Untimed(ValueError):
    """A sample does not say when it was."""


def _refused(file: Path, why: str) -> Refused:
    return Refused(f"series file {file}: {why}; accepted: {ACCEPTED}", kind="series", field="series", accepted=ACCEPTED)


def _text(text: str) -> Iterator[Point]:
    whole = text.rstrip().endswith("# EOF")
    parse = cast("_Parse", cast("Any", open_metrics).text_string_to_metric_families if whole else exposition)
    for family in parse(text):
        for sample in family.samples:
            if sample.timestamp is None:
                raise Untimed(f"{sample.name} has no timestamp")
            yield sample.name, sample.labels, round(1000 * float(sample.timestamp)), float(sample.value)


def _json(text: str) -> Iterator[Point]:
    try:
        documents: list[Any] = [json.loads(text)]
    except json.JSONDecodeError:
        documents = [json.loads(line) for line in text.splitlines() if line.strip()]
    for document in documents:
        answers = cast("list[Any]", document) if isinstance(document, list) else [document]
        for answer in answers:
            yield from _answer(answer)


def _answer(answer: Any) -> Iterator[Point]:
    """One answer of query_range: a matrix."""
    data = answer.get("data", answer)
    if data["resultType"] != "matrix":
        raise ValueError("not a matrix")
    for series in data["result"]:
        labels = {str(name): str(value) for name, value in series["metric"].items()}
        name = labels.pop("__name__")
        for ts, value in series["values"]:
            yield name, labels, round(1000 * float(ts)), float(value)
