"""A file of the outcomes format: what several models answered to the same multiple-choice questions.

CSV in UTF-8, gzip where the name ends in `.gz`: `question_id,category,n_options,answer`, then per model `NAME:pred` and `NAME:chars`
(the name ends at the last colon; any models, in any order). `answer` and `pred` are option letters; an empty `pred` is wrong
and agrees with nothing; `chars`, the length of the answer, stands for its cost.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

import numpy as np
from numpy.typing import NDArray

from schemas.errors import Refused

FIXED = ("question_id", "category", "n_options", "answer")
_PRED, _CHARS = "pred", "chars"
_MOST_CHARS = 10**12
NONE = -1
"""The code of an empty `pred`."""


@dataclass(frozen=True)
class Answers:
    """One model's: option numbers (A is 0, none is `NONE`), characters, and whether each was right."""

    pred: NDArray[np.int64]
    chars: NDArray[np.int64]
    right: NDArray[np.bool_]

    @property
    def accuracy(self) -> float:
        """The share that was right."""
        return float(self.right.mean())


@dataclass(frozen=True)
class Outcomes:
    """A file's rows, by column."""

    path: str
    category: tuple[str, ...]
    options: NDArray[np.int64]
    models: Mapping[str, Answers]

    @property
    def rows(self) -> int:
        """How many questions."""
        return len(self.category)

    def best(self) -> list[str]:
        """The models, the most accurate first; equals by name."""
        return sorted(self.models, key=lambda name: (-self.models[name].accuracy, name))

    def known(self, names: Sequence[str], option: str) -> list[str]:
        """The names, where the file has them all and none twice. Raises `Refused`."""
        for name in names:
            if name not in self.models:
                raise Refused(
                    f"{option}: {self.path} has no model {name!r}; accepted: {', '.join(self.models)}", kind="usage"
                )
        if len(set(names)) < len(names):
            raise Refused(f"{option}: a model is named twice in {', '.join(names)}; accepted: each once", kind="usage")
        return list(names)


class _Reader:
    """One file being read: where each complaint is."""

    def __init__(self, path: Path) -> None:
        self.path, self.line = path, 1

    def refuse(self, what: str, accepted: str, column: str | None = None) -> Refused:
        where = f"{self.path}, line {self.line}" + (f", column {column!r}" if column is not None else "")
        return Refused(f"{where}: {what}; accepted: {accepted}", kind="outcomes", field=column or "", accepted=accepted)

    def rows(self) -> Iterator[list[str]]:
        """The rows as they stand in the file. Raises `Refused` where it is no CSV in UTF-8 (gzip)."""
        try:
            opened = gzip.open if self.path.suffix == ".gz" else open
            with opened(self.path, "rt", encoding="utf-8-sig", newline="") as text:
                reader = csv.reader(text, strict=True)
                for row in reader:
                    self.line = reader.line_num
                    if row:
                        yield row
        except (gzip.BadGzipFile, EOFError, zlib.error) as fault:
            raise self.refuse(f"not gzip, or cut off ({fault})", "gzip where the name ends in .gz") from fault
        except UnicodeDecodeError as fault:
            raise self.refuse(f"not UTF-8 ({fault.reason} at or after this line)", "text in UTF-8") from fault
        except csv.Error as fault:
            self.line += 1
            raise self.refuse(f"not CSV ({fault})", "comma-separated values") from fault
        except OSError as fault:
            raise Refused(
                f"{self.path}: cannot be read ({fault.strerror or fault}); accepted: a CSV file, gzip if .gz",
                kind="outcomes",
            ) from fault

    def header(self, names: list[str]) -> dict[str, tuple[int, int]]:
        """Per model the places of its two columns."""
        if tuple(names[: len(FIXED)]) != FIXED:
            given = ",".join(names[: len(FIXED)])[:200]
            raise self.refuse(
                f"the header begins {given!r}", f"{','.join(FIXED)}, then NAME:pred and NAME:chars for each model"
            )
        places: dict[str, dict[str, int]] = {}
        for at, column in enumerate(names[len(FIXED) :], start=len(FIXED)):
            name, colon, kind = column.rpartition(":")
            if not colon or not name or kind not in (_PRED, _CHARS):
                raise self.refuse("no column of a model", "NAME:pred or NAME:chars", column)
            if kind in places.setdefault(name, {}):
                raise self.refuse("the column is there twice", "each column once", column)
            places[name][kind] = at
        for name, found in places.items():
            missing = {_PRED, _CHARS} - found.keys()
            if missing:
                raise self.refuse("the column is missing", "both columns for each model", f"{name}:{missing.pop()}")
        if not places:
            raise self.refuse("no model", "NAME:pred and NAME:chars for each model")
        return {name: (found[_PRED], found[_CHARS]) for name, found in places.items()}

    def number(self, text: str, column: str, least: int, most: int) -> int:
        if not text.isascii() or not text.isdigit() or not least <= int(text[:20]) <= most:
            raise self.refuse(f"{text[:40]!r}", f"a whole number, {least} to {most}", column)
        return int(text)

    def letter(self, text: str, column: str, options: int) -> int:
        if len(text) != 1 or text not in ascii_uppercase[:options]:
            raise self.refuse(f"{text[:40]!r}", f"an option's letter, A to {ascii_uppercase[options - 1]}", column)
        return ascii_uppercase.index(text)

    def prediction(self, text: str, column: str) -> int:
        """An option's letter, not only of those that the question has: a model may name one that is not there."""
        if not text:
            return NONE
        if len(text) != 1 or text not in ascii_uppercase:
            raise self.refuse(f"{text[:40]!r}", "an option's letter, A to Z, or nothing", column)
        return ascii_uppercase.index(text)


def read(path: Path) -> Outcomes:
    """The file. Raises `Refused`, naming file, line and column, for anything that is not the format."""
    reader = _Reader(path)
    rows = reader.rows()
    names = next(rows, None)
    if names is None:
        raise reader.refuse("nothing in it", "a header and at least one question")
    places = reader.header(names)
    categories, seen = list[str](), set[str]()
    options, answers = list[int](), list[int]()
    preds: dict[str, list[int]] = {name: [] for name in places}
    chars: dict[str, list[int]] = {name: [] for name in places}
    for row in rows:
        if len(row) != len(names):
            raise reader.refuse(f"{len(row)} columns", f"{len(names)}, as in the header")
        if not row[0] or row[0] in seen:
            raise reader.refuse(f"{row[0][:40]!r}", "an id that no earlier line has", FIXED[0])
        if not row[1]:
            raise reader.refuse("nothing", "a category", FIXED[1])
        seen.add(row[0])
        categories.append(row[1])
        options.append(reader.number(row[2], FIXED[2], 2, len(ascii_uppercase)))
        answers.append(reader.letter(row[3], FIXED[3], options[-1]))
        for name, (pred, length) in places.items():
            preds[name].append(reader.prediction(row[pred], names[pred]))
            chars[name].append(reader.number(row[length], names[length], 0, _MOST_CHARS))
    if not categories:
        raise reader.refuse("no question after the header", "at least one")
    right = np.array(answers)
    models: dict[str, Answers] = {}
    for name in places:
        pred = np.array(preds[name])
        models[name] = Answers(pred, np.array(chars[name], dtype=np.int64), pred == right)
    return Outcomes(str(path), tuple(categories), np.array(options), models)
