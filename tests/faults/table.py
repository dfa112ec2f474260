"""What a run found: a row per scenario and broker, printed as a table, written as JSON; and whether it may be called good."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

COUNTS = ("faults", "aborted", "fenced", "dropped", "lost", "duplicated", "wrong")


@dataclass
class Row:
    """Counts of one scenario. `faults` 0 means that nothing was proven: the row is bad."""

    scenario: tuple[str, str]  # kind, and what exactly
    broker: str
    shape: str
    faults: int = 0
    aborted: int = 0
    fenced: int = 0
    dropped: int = 0
    lost: int = 0
    duplicated: int = 0
    wrong: int = 0
    recoveries: list[float] = field(default_factory=list[float])
    events: int = 0
    notes: list[str] = field(default_factory=list[str])
    failed: bool = False
    inside: bool = False  # the fault strikes open transactions: without an aborted copy it did nothing

    def add(self, lost: int, duplicated: int, wrong: int) -> None:
        self.lost += lost
        self.duplicated += duplicated
        self.wrong += wrong

    def say(self, word: str) -> None:
        """A complaint: the row is bad."""
        self.failed = True
        self.notes.append(word)

    @property
    def bad(self) -> bool:
        if self.inside and not self.aborted:
            return True
        return self.failed or not self.faults or bool(self.lost or self.duplicated or self.wrong)

    def dump(self) -> dict[str, Any]:
        return {
            "scenario": " ".join(self.scenario),
            "broker": self.broker,
            "shape": self.shape,
            "faults": self.faults,
            "aborted": self.aborted,
            "fenced": self.fenced,
            "dropped": self.dropped,
            "lost": self.lost,
            "duplicated": self.duplicated,
            "wrong": self.wrong,
            "recovery_s": [round(value, 3) for value in self.recoveries],
            "events": self.events,
            "notes": self.notes,
            "bad": self.bad,
        }


def merged(rows: Iterable[Row]) -> list[Row]:
    """Rows of one scenario and broker as one, in the order of their first."""
    found: dict[tuple[str, tuple[str, str]], Row] = {}
    for row in rows:
        into = found.setdefault((row.broker, row.scenario), Row(row.scenario, row.broker, ""))
        into.shape = row.shape if into.shape in ("", row.shape) else "both"
        for name in (*COUNTS, "events"):
            setattr(into, name, getattr(into, name) + getattr(row, name))
        into.recoveries += row.recoveries
        into.notes += [note for note in row.notes if note not in into.notes]
        into.failed = into.failed or row.bad
        if row.inside and not row.aborted:
            into.notes.append("no aborted copy: the fault did nothing")
    return list(found.values())


def _times(values: Sequence[float]) -> tuple[str, str]:
    return (f"{statistics.median(values):.2f}", f"{max(values):.2f}") if values else ("", "")


def show(rows: Sequence[Row], console: Console) -> None:
    """Print the table."""
    table = Table(title="faults", header_style="bold", padding=(0, 1))
    table.add_column("scenario", overflow="fold")
    table.add_column("broker")
    for name in (*COUNTS, "p50 s", "worst s"):
        table.add_column(name, justify="right")
    table.add_column("", overflow="fold")
    for row in merged(rows):
        cells = [str(getattr(row, name)) for name in COUNTS]
        note = "; ".join(row.notes)
        table.add_row(" ".join(row.scenario), row.broker, *cells, *_times(row.recoveries), note,
                      style="red" if row.bad else None)  # fmt: skip
    console.print(table)


def parse(rows: Sequence[Mapping[str, Any]]) -> list[Row]:
    """What `dump` told. KeyError or TypeError where it is something else."""
    found: list[Row] = []
    for told in rows:
        kind, _, what = str(told["scenario"]).partition(" ")
        row = Row((kind, what), str(told["broker"]), str(told["shape"]), failed=bool(told["bad"]))
        for name in (*COUNTS, "events"):
            setattr(row, name, int(told[name]))
        row.recoveries, row.notes = (
            [float(value) for value in told["recovery_s"]],
            [str(note) for note in told["notes"]],
        )
        found.append(row)
    return found


def markdown(rows: Sequence[Row]) -> str:
    """The table as docs/delivery.md has it: the broker in memory as one line."""
    memory, real = ([row for row in rows if (row.broker == "memory") == here] for here in (True, False))
    every = [Row(("every point,", "broker in memory"), "memory", "")] if memory else []
    for row in memory:
        for name in COUNTS:
            setattr(every[0], name, getattr(every[0], name) + getattr(row, name))
        every[0].recoveries += row.recoveries
    lines = [
        f"| scenario | broker | {' | '.join(COUNTS)} | p50 s | worst s |",
        f"| --- | --- |{' ---: |' * (len(COUNTS) + 2)}",
    ]
    for row in (*every, *merged(real)):
        cells = [" ".join(row.scenario), row.broker, *(str(getattr(row, name)) for name in COUNTS)]
        lines.append(f"| {' | '.join([*cells, *_times(row.recoveries)])} |")
    notes = [f"* {' '.join(row.scenario)}: {'; '.join(row.notes)}" for row in merged(real) if row.notes]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def verdict(rows: Sequence[Row]) -> str:
    """One line for all."""
    lost, duplicated, wrong = (sum(getattr(row, name) for row in rows) for name in ("lost", "duplicated", "wrong"))
    bad = sum(row.bad for row in rows)
    return (
        f"{len(rows)} rows, {sum(row.faults for row in rows)} faults, {sum(row.aborted for row in rows)} aborted copies: "
        f"{lost} lost, {duplicated} duplicated, {wrong} wrong; {bad} rows bad"
    )


def bad(rows: Sequence[Row]) -> bool:
    """Whether the run may not be called good."""
    return not rows or any(row.bad for row in rows)


def dump(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every row as JSON has it."""
    return [row.dump() for row in rows]
