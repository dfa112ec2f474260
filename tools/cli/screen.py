"""How the command line speaks: answers to stdout as text or JSON lines, progress and faults to stderr.

Progress is drawn only where a person watches (stderr is a terminal and `--json` is not given).
"""

import contextlib
import json
import sys
from collections.abc import Generator, Mapping, Sequence
from enum import IntEnum
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.tree import Tree

from tools.width import console

WORD = 8  # characters: room for a word


class Exit(IntEnum):
    """What the exit codes mean."""

    DONE = 0
    NO = 1
    USED_WRONGLY = 2
    AWAY = 3
    INTERRUPTED = 130


class Screen:
    """One command's voice. Text that comes from events is escaped: it never becomes markup or terminal control."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.out = console(highlight=False, soft_wrap=True)
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)

    def line(self, row: Mapping[str, Any], text: str) -> None:
        """One answer line: `row` as JSON, or `text` (rich markup) for people."""
        if self.as_json:
            self.json(row)
        else:
            self.out.print(text)

    def say(self, text: str) -> None:
        """Words for people only."""
        if not self.as_json:
            self.out.print(text)

    def json(self, value: Any) -> None:
        sys.stdout.write(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str) + "\n")
        sys.stdout.flush()

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table for people; nothing where there are no rows."""
        if self.as_json or not rows:
            return
        table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
        cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
        whole = self._whole(columns, cells)
        for number, column in enumerate(columns):
            table.add_column(column, overflow="fold", no_wrap=number in whole)
        for row in cells:
            table.add_row(*map(clean, row))
        self.draw(table)

    def _whole(self, columns: Sequence[str], cells: Sequence[Sequence[str]]) -> frozenset[int]:
        """The columns of names: a terminal that has room for them and a word of each other column breaks none of them."""
        said = [(column, *(row[number] for row in cells)) for number, column in enumerate(columns)]
        names = {
            number: max(map(cell_len, texts))
            for number, texts in enumerate(said)
            if not any(" " in text for text in texts)
        }
        least = sum(names.values()) + WORD * (len(columns) - len(names)) + 2 * len(columns)
        return frozenset(names if least <= self.out.width else ())

    def draw(self, what: Table | Tree) -> None:
        """For people: broken to the terminal's width, and in a file or a pipe not broken at all. Nothing is cut off."""
        self.out.print(what, soft_wrap=False)

    @contextlib.contextmanager
    def progress(self, text: str) -> Generator["Progress", None, None]:
        """A line on stderr that follows long work; silent where nobody watches."""
        if self.as_json or not self.err.is_terminal:
            yield Progress(None)
            return
        with self.err.status(clean(text)) as status:
            yield Progress(status)


class Progress:
    """What `Screen.progress` hands out."""

    def __init__(self, status: Any) -> None:
        self._status = status

    def say(self, text: str) -> None:
        if self._status is not None:
            self._status.update(clean(text))


def clean(text: str) -> str:
    """Text from outside made safe to print: no markup, no control characters (a line stays one line)."""
    return escape("".join(char if char.isprintable() else " " for char in text))


def short(text: str, limit: int = 100) -> str:
    """Cleaned, and cut with a sign where it was longer."""
    return clean(text if len(text) <= limit else text[: limit - 1] + "…")
