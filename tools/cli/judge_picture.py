"""An arena's evidence as a picture (PNG): log E against pairs, each level dashed, each stage marked."""

# pyright: reportUnknownMemberType=false
# matplotlib types its keyword arguments as Any.

from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib.figure import Figure

from tools.cli.arenas import History
from tools.cli.chart import Panel, frame_of
from tools.cli.panels import panels

INK, MUTED, GRID, NEED = "#1f2933", "#7b8794", "#e4e7eb", "#b42318"
COLOURS = {"quality": "#2b6cb0", "latency": "#c05621", "error": "#6b46c1", "cost": "#2f855a"}
STYLES: dict[str, Any] = {
    "quality": "-",
    "latency": "-",
    "error": (0, (4, 3)),
    "cost": "-",
}  # lines often lie on each other
WORDS = {"A": "approval asked for", "P": "promoted", "X": "rejected", "O": "resumed"}


def picture(history: History, outcome: str, path: Path) -> None:
    """Write the picture. Raises OSError where the file cannot be written."""
    found = panels(history)
    figure = Figure(figsize=(10.5, 1.5 + 2.5 * len(found)), dpi=130, layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1, w_pad=0.1)  # type: ignore[union-attr]  # constrained, as made above
    under = f"{outcome}, {history.pairs:,} pairs, {len(history.looks)} looks; arena {history.arena[:12]}"
    figure.suptitle(f"{history.title}\n", x=0.012, ha="left", color=INK, fontsize=14, fontweight="bold")
    figure.text(0.012, 1 - 0.52 / figure.get_figheight(), under, color=MUTED, fontsize=10)
    rows: Any = figure.subplots(len(found), 1, sharex=True, squeeze=False)
    for number, panel in enumerate(found):
        _panel(rows[number][0], panel, top=number == 0)
    rows[-1][0].set_xlabel("pairs", color=INK)
    figure.savefig(path, format="png")


def _panel(axes: Any, panel: Panel, *, top: bool) -> None:
    low, high = frame_of(panel)
    axes.set_title(panel.title, loc="left", color=INK, fontsize=10.5, pad=20 if top and panel.marks else 6)
    axes.set_ylabel("log E", color=INK)
    axes.axhline(0, color=MUTED, lw=0.8)
    axes.axhline(panel.level, color=NEED, lw=1.2, ls=(0, (5, 3)))
    axes.annotate(
        f"{panel.verb} {panel.level:.2f}", (0, panel.level), xycoords=("axes fraction", "data"), xytext=(4, 2),
        textcoords="offset points", color=NEED, fontsize=8.5, va="bottom",
    )  # fmt: skip
    ends: list[tuple[float, str]] = []
    for name, points in panel.series.items():
        axes.plot([x for x, _ in points], [y for _, y in points], color=COLOURS[name], lw=1.8, ls=STYLES[name])
        ends.append((points[-1][1], name))
    axes.set_ylim(low - 0.04 * (high - low), high + 0.04 * (high - low))
    axes.margins(x=0.01)
    _names(axes, ends, low, high)
    _marks(axes, panel, top=top)
    axes.grid(visible=True, color=GRID, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED, labelsize=9)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)


def _names(axes: Any, ends: list[tuple[float, str]], low: float, high: float) -> None:
    """Each line's name at its end, moved apart where lines end together."""
    step = 0.1 * (high - low)
    ordered = sorted((min(max(y, low), high), name) for y, name in ends)
    places: list[float] = []
    for y, _ in ordered:
        places.append(y if not places else max(y, places[-1] + step))
    most = high
    for index in reversed(range(len(places))):
        places[index] = min(places[index], most)
        most = places[index] - step
    for (_, name), place in zip(ordered, places, strict=True):
        axes.annotate(
            name, (1, place), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
            color=COLOURS[name], fontsize=9.5, va="center", annotation_clip=False,
        )  # fmt: skip


def _marks(axes: Any, panel: Panel, *, top: bool) -> None:
    """A dotted line for each change; its words above the first panel."""
    words: dict[float, list[str]] = {}
    for at, letter in panel.marks:
        axes.axvline(at, color=INK, lw=0.9, ls=":")
        words.setdefault(at, []).append(f"stage {letter}" if letter.isdigit() else WORDS[letter])
    for number, (at, said) in enumerate(sorted(words.items()) if top else ()):
        axes.annotate(
            ", ".join(said), (at, 1), xycoords=("data", "axes fraction"), xytext=(0, 3 + 10 * (number % 2)),
            textcoords="offset points", color=INK, fontsize=8.5, ha="center", annotation_clip=False,
        )  # fmt: skip
