"""Lines over pairs, drawn with plain characters into 80 columns."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT, GUTTER = 79, 12, 8
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """Series by name, drawn with the given letters. `level`: what they must reach or must not (`verb`); `marks`: (x, letter) of changes."""

    title: str
    series: Mapping[str, Points]
    letters: Mapping[str, str]
    level: float
    marks: Sequence[tuple[float, str]] = ()
    verb: str = "needed"


def frame_of(panel: Panel) -> tuple[float, float]:
    """The least and greatest value that are shown: never more than twice the level below 0, nor four times above."""
    values = [y for points in panel.series.values() for _, y in points]
    low = max(min((*values, 0.0)), -2 * panel.level)
    high = min(max((*values, 1.15 * panel.level)), 4 * panel.level)
    return min(low, -0.15 * panel.level), high


def draw(panel: Panel, *, width: int = WIDTH, height: int = HEIGHT) -> list[str]:
    """The panel as lines of at most `width` characters. Nothing where there is no point.

    `=` is the level, `.` zero, `*` several series at one place, `v` and `^` what lies beyond the frame.
    """
    xs = [x for points in panel.series.values() for x, _ in points]
    if not xs:
        return []
    columns, (low, high), (left, right) = width - GUTTER - 2, frame_of(panel), (min(xs), max(xs))
    grid = [[" "] * columns for _ in range(height)]

    def row_of(y: float) -> int:
        return round((high - y) / (high - low) * (height - 1))

    def column_of(x: float) -> int:
        return 0 if right == left else round((x - left) / (right - left) * (columns - 1))

    for at, letter in panel.marks:
        if left <= at <= right:
            for row in range(height):
                grid[row][column_of(at)] = ":"
            grid[0][column_of(at)] = letter
    grid[row_of(0.0)] = ["." if cell == " " else cell for cell in grid[row_of(0.0)]]
    grid[row_of(panel.level)] = ["=" if cell in " .:" else cell for cell in grid[row_of(panel.level)]]
    for name, points in panel.series.items():
        for column, y in _along(points, columns, left, right):
            beyond = "v" if y < low else "^" if y > high else ""
            row = height - 1 if y < low else 0 if y > high else row_of(y)
            letter, there = beyond or panel.letters[name], grid[row][column]
            taken = there in {*panel.letters.values(), "*"} and there != letter
            grid[row][column] = "*" if taken else letter
    labels = {row_of(0.0): "0", 0: f"{high:.1f}", height - 1: f"{low:.1f}", row_of(panel.level): f"{panel.level:.2f}"}
    lines = [panel.title[:width]]
    lines += [f"{labels.get(row, ''):>{GUTTER}} |{''.join(cells)}".rstrip() for row, cells in enumerate(grid)]
    lines.append(" " * GUTTER + " +" + "-" * columns)
    ends = f"{left:g}", f"{right:g} pairs"
    lines.append(" " * (GUTTER + 2) + ends[0] + ends[1].rjust(columns - len(ends[0])))
    return lines


def _along(points: Points, columns: int, left: float, right: float) -> list[tuple[int, float]]:
    """(column, value) of a line: the last point of each column, and between points of far columns a straight line."""
    ordered = sorted(points)
    wide = right - left
    at = {0 if not wide else round((x - left) / wide * (columns - 1)): y for x, y in ordered}
    found: list[tuple[int, float]] = []
    known = sorted(at.items())
    for (a, y), (b, z) in itertools.pairwise(known):
        found += [(column, y + (z - y) * (column - a) / (b - a)) for column in range(a, b)]
    return [row for row in (*found, *known[-1:]) if math.isfinite(row[1])]
