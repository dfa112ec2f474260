"""What is drawn of an arena's looks: the gains, the guardrails at margin and harm line, and harm where it is near. Pure."""

from collections.abc import Sequence

from agents.judge.decide import guard_name
from schemas.events import EProcess, PromotionEvaluated
from tools.cli.arenas import History
from tools.cli.chart import Panel

METRICS = ("quality", "latency", "error", "cost")
LETTERS = {"quality": "q", "latency": "l", "error": "e", "cost": "c"}
NEAR = 0.5  # of the level: harm that came so near is drawn
_KINDS = {
    "": "gains: one is enough",
    "_margin": "guardrails, not worse by the margin: all are needed",
    "_harm": "guardrails, not past the harm line: all are needed",
    "_worse": "harm: one is enough to end it",
}


def panels(history: History) -> list[Panel]:
    """One panel for each kind of process that there is something of."""
    looks = [look for _, look in history.looks]
    found: list[Panel] = []
    for suffix, title in _KINDS.items():
        names = [metric for metric in METRICS if any(_row(look, metric + suffix) for look in looks)]
        series = {
            name: [(look.pairs, row.log_e) for look in looks if (row := _row(look, name + suffix))] for name in names
        }
        rows = [row for look in looks for name in names if (row := _row(look, name + suffix))]
        if not rows or (
            suffix == "_worse" and not history.holdback and max(r.max_log_e / r.needed for r in rows) < NEAR
        ):
            continue
        if history.holdback and suffix != "_worse":
            continue
        letters = {name: LETTERS[name] for name in names}
        verb = "ends it at" if suffix == "_worse" else "needed"
        found.append(Panel(title, series, letters, rows[-1].needed, marks(history), verb))
    return found


def marks(history: History) -> list[tuple[float, str]]:
    """(pairs, what): a digit for each stage, A where approval was asked for, P promoted, X rejected, O resumed."""
    letters = {"promotion.approval_requested": "A", "model.promoted": "P", "promotion.rejected": "X"}
    found: list[tuple[float, str]] = []
    pairs = 0.0
    for row in history.rows:
        pairs = float(row["data"].get("pairs", pairs))
        if row["type"] == "promotion.staged":
            found.append((pairs, str(row["data"]["stage"] % 10)))
        elif row["type"] in letters:
            found.append((pairs, letters[row["type"]]))
        elif row["type"] == "promotion.opened" and row["data"].get("resumed"):
            found.append((pairs, "O"))
    return found


def legend(found: Sequence[Panel]) -> str:
    """What letters and signs mean."""
    names = {name: letter for panel in found for name, letter in panel.letters.items()}
    said = ", ".join(f"{letter} {name}" for name, letter in names.items())
    drawn = {letter for panel in found for _, letter in panel.marks}
    words = {"A": "approval asked for", "P": "promoted", "X": "rejected", "O": "resumed"}
    more = [f"{letter} {text}" for letter, text in words.items() if letter in drawn]
    stages = ["1 2 3 … a stage begins"] if any(letter.isdigit() for letter in drawn) else []
    return "; ".join((f"log E of {said}; * several; = the level; v below, ^ above the frame", *stages, *more))


def counts(look: PromotionEvaluated, name: str) -> bool:
    """Whether a process of the look counts: that of a guardrail only where the guardrail is a condition."""
    metric, _, null = name.partition("_")
    return not null or guard_name(metric) in look.conditions


def _row(look: PromotionEvaluated, name: str) -> EProcess | None:
    return next((row for row in look.processes if row.name == name and counts(look, name)), None)
