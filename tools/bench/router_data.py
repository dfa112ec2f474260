"""What `ratchet bench router --format routellm` reads: prompts, and whether a weak and a strong model were right.

Every CSV below a directory, UTF-8, with a header: a column `prompt`, then two columns of booleans, the weak model's and the strong
one's. A column is boolean when all its values are `True` `False` `1` `0` in any case; others, however long, are not kept. Prompts in a
`*contaminated*.jsonl` in or beside the directory are dropped.
"""

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from schemas.errors import Refused

ACCEPTED = (
    "CSV in UTF-8 with a header: a column `prompt`, then two columns whose every value is True, False, 1 or 0: was the weak "
    "model right, was the strong one"
)
BOOLEANS = {"true": 1, "1": 1, "1.0": 1, "false": 0, "0": 0, "0.0": 0}
LONGEST_CELL = 1 << 27


@dataclass(frozen=True)
class Outcomes:
    """Row by row: a prompt, whether each model was right, the index of its file. `dropped`: rows whose prompts are contaminated."""

    prompts: tuple[str, ...]
    weak: NDArray[np.int8]
    strong: NDArray[np.int8]
    subjects: NDArray[np.int64]
    files: tuple[str, ...]
    dropped: int

    @property
    def gain(self) -> NDArray[np.int8]:
        """What the strong model adds: 1 where it alone is right, -1 where the weak one alone is."""
        return self.strong - self.weak


def read(folder: Path) -> Outcomes:
    """All files below the folder. Raises `Refused`, naming file and place, for what is not of the format."""
    if not folder.is_dir():
        raise _refused(f"{folder}: no such directory", "a directory with CSV files below it")
    paths = sorted(path for path in folder.rglob("*.csv") if path.is_file())
    if not paths:
        raise _refused(f"{folder}: no CSV file below it", "at least one `*.csv`")
    bad = contaminated(folder)
    prompts: list[str] = []
    weak: list[int] = []
    strong: list[int] = []
    subjects: list[int] = []
    dropped = 0
    for subject, path in enumerate(paths):
        for prompt, less, more in zip(*_columns(path), strict=True):
            if _folded(prompt) in bad:
                dropped += 1
                continue
            prompts.append(prompt)
            weak.append(less)
            strong.append(more)
            subjects.append(subject)
    names = tuple(path.relative_to(folder).with_suffix("").as_posix() for path in paths)
    return Outcomes(
        tuple(prompts), np.array(weak, np.int8), np.array(strong, np.int8), np.array(subjects, np.int64), names, dropped
    )


def contaminated(folder: Path) -> frozenset[str]:
    """The texts, white space folded, of the lists of contaminated prompts in or beside the folder."""
    paths = {*folder.rglob("*contaminated*.jsonl"), *folder.resolve().parent.glob("*contaminated*.jsonl")}
    found: set[str] = set()
    for path in sorted(paths):
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as fault:
            raise _refused(f"{path}: cannot be read ({type(fault).__name__})", "JSON lines in UTF-8") from fault
        for number, line in enumerate(lines, 1):
            if line.strip():
                found.update(_folded(text) for text in _texts(path, number, line))
    return frozenset(found)


def _texts(path: Path, number: int, line: str) -> Iterator[str]:
    try:
        told: Any = json.loads(line)
    except json.JSONDecodeError as fault:
        raise _refused(f"{path}:{number}: no JSON", "an object or a string a line") from fault
    values = cast("dict[str, Any]", told).values() if isinstance(told, dict) else [told]
    return (value for value in values if isinstance(value, str))


def _folded(text: str) -> str:
    return " ".join(text.split())


def _columns(path: Path) -> tuple[list[str], list[int], list[int]]:
    """A file's prompts and its first two boolean columns."""
    csv.field_size_limit(min(LONGEST_CELL, sys.maxsize))
    prompts: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            header: list[str] = next(lines, list[str]())
            if header.count("prompt") != 1:
                raise _refused(f"{path}: {header.count('prompt')} columns named `prompt` in the header", ACCEPTED)
            at = header.index("prompt")
            values: dict[int, list[int]] = {column: [] for column in range(len(header)) if column != at}
            broken: dict[int, int] = {}
            for cells in lines:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise _refused(
                        f"{path}:{lines.line_num}: {len(cells)} columns, the header has {len(header)}", ACCEPTED
                    )
                prompts.append(cells[at])
                _read_booleans(cells, values, broken, lines.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        raise _refused(f"{path}: cannot be read as CSV ({fault})", ACCEPTED) from fault
    if not prompts:
        raise _refused(f"{path}: no row", ACCEPTED)
    if len(values) < 2:
        first = ", ".join(f"{header[column]!r} (line {line})" for column, line in list(broken.items())[:4])
        raise _refused(f"{path}: {len(values)} boolean columns; not boolean: {first or 'none'}", ACCEPTED)
    weak, strong = list(values.values())[:2]
    return prompts, weak, strong


def _read_booleans(cells: list[str], values: dict[int, list[int]], broken: dict[int, int], line: int) -> None:
    """Append each cell that still may be of a boolean column; a column that shows another value is given up."""
    for column in list(values):
        cell = cells[column]
        value = BOOLEANS.get(cell.strip().lower()) if len(cell) < 16 else None
        if value is None:
            broken[column] = line
            del values[column]
        else:
            values[column].append(value)


def _refused(why: str, accepted: str) -> Refused:
    return Refused(f"{why}; accepted: {accepted}", kind="outcomes", accepted=accepted)
