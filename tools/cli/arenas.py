"""The history of arenas, from what `ratchet.promotions` says: which there are, what became of each, every look made again. Pure."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from agents.judge.arena import Arena
from agents.judge.decide import looked_again
from schemas.events import ModelPromoted, ModelRolledBack, PromotionEvaluated

Row = Mapping[str, Any]  # as `tools.cli.events.as_row` gives it
ENDS = {"promotion.rejected": "rejected", ModelPromoted.TYPE: "promoted", ModelRolledBack.TYPE: "rolled back"}


@dataclass(frozen=True, slots=True)
class History:
    """All that was said of one arena, oldest first. `looks`: its evaluations that can be read, with their rows."""

    arena: str
    rows: list[Row] = field(default_factory=list[Row])
    looks: list[tuple[Row, PromotionEvaluated]] = field(default_factory=list[tuple[Row, PromotionEvaluated]])

    @property
    def first(self) -> Mapping[str, Any]:
        """The payload of the first event."""
        return self.rows[0]["data"]

    @property
    def route(self) -> str:
        return str(self.first["route"])

    @property
    def holdback(self) -> bool:
        """Whether it is what went on after a promotion; a rollback before its first look is all that such a one may have said."""
        return self.looks[0][1].holdback if self.looks else self.rows[0]["type"] == ModelRolledBack.TYPE

    @property
    def arms(self) -> tuple[object, ...]:
        """Who is judged against whom, on which route."""
        return _arms(self.first)

    @property
    def decided(self) -> list[Row]:
        """Without the looks after which all went on."""
        return [row for row in self.rows if not quiet(row)]

    @property
    def pairs(self) -> int:
        """As of the last event that says."""
        return next((int(row["data"]["pairs"]) for row in reversed(self.rows) if "pairs" in row["data"]), 0)

    @property
    def outcome(self) -> str:
        """What became of it; `open` while nothing has."""
        found = "open"
        for row in self.rows:
            if row["type"] in ENDS:
                found = ENDS[row["type"]]
            elif row["type"] == "promotion.opened":
                found = "open"
        return found

    @property
    def title(self) -> str:
        """Who against whom."""
        both = f"{self.first['challenger']} against {self.first['champion']}"
        return f"{self.route}: {both}{', holdback after the promotion' if self.holdback else ''}"


def _arms(data: Mapping[str, Any]) -> tuple[object, ...]:
    """A rollback's champion is the arm that serves again: the champion of the arena that it takes back."""
    return tuple(data.get(name) for name in ("route", "champion", "challenger", "adapter"))


def quiet(row: Row) -> bool:
    """A look after which all went on: it is in the picture, not in the list of what was decided."""
    data = row["data"]
    return row["type"] == PromotionEvaluated.TYPE and data.get("decision") == "continue" and not data.get("reason")


def holdbacks(found: Mapping[str, History], history: History) -> list[History]:
    """What went on after the arena's last promotion: the same arms, later."""
    promoted = [row["data"]["at_ms"] for row in history.rows if row["type"] == ModelPromoted.TYPE]
    if not promoted or history.holdback:
        return []
    later = [other for other in found.values() if other.holdback and other.arms == history.arms]
    return [other for other in later if other.first["at_ms"] >= promoted[-1]]


def outcome_of(found: Mapping[str, History], history: History) -> str:
    """What became of the arena, and of its promotion."""
    back = any(other.outcome == "rolled back" for other in holdbacks(found, history))
    return f"{history.outcome}, rolled back" if back else history.outcome


def histories(rows: Sequence[Row]) -> dict[str, History]:
    """Every arena's history, in the order in which they were first spoken of.

    A rollback after the holdback's end names no arena: it is of the one that had promoted the arm. What else names none is left out.
    """
    found: dict[str, History] = {}
    for row in rows:
        data: Mapping[str, Any] = row["data"] or {}
        key = data.get("arena")
        if row["type"] == ModelRolledBack.TYPE and key == "":
            key = next(
                (h.arena for h in reversed(found.values()) if h.outcome == "promoted" and h.arms == _arms(data)), ""
            )
        if not isinstance(key, str) or not key:
            continue
        history = found.setdefault(key, History(key))
        history.rows.append(row)
        if row["type"] == PromotionEvaluated.TYPE:
            try:
                history.looks.append((row, PromotionEvaluated.model_validate(data)))
            except ValidationError:
                continue  # of another version of the schema: its line is shown, its numbers are not
    return found


def pick(found: Mapping[str, History], asked: str) -> list[History]:
    """The arena of that key, else the newest of the route of that name (its holdback is shown with it), else all whose keys begin so."""
    if asked in found:
        return [found[asked]]
    of_route = [history for history in found.values() if history.route == asked]
    if of_route:
        return [next((history for history in reversed(of_route) if not history.holdback), of_route[-1])]
    return [history for key, history in found.items() if key.startswith(asked)]


@dataclass(frozen=True, slots=True)
class Again:
    """One look made again. `differs`: what came out otherwise, in words; empty where nothing did."""

    pairs: int
    place: str
    differs: tuple[str, ...]


def again(row: Row, told: PromotionEvaluated) -> Again | None:
    """The look made from its own basis, compared with what the event says; None of an event without basis."""
    if not told.basis:
        return None
    try:
        seen = looked_again(told.basis)
        arena = Arena.model_validate(json.loads(told.basis)["arena"])
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        return Again(told.pairs, str(row["place"]), (f"its basis is none: {str(fault).splitlines()[0][:200]}",))
    by_command = told.reason.startswith(("approved by ", "approval by ")) and told.decision == "continue"
    compared: dict[str, tuple[object, object]] = {
        "processes": (told.processes, seen.processes),
        "conditions": (told.conditions, seen.conditions),
        "champion_grade": (told.champion_grade, seen.champion_grade),
        "challenger_grade": (told.challenger_grade, seen.challenger_grade),
        "arena": (told.arena, arena.key),
        "champion": (told.champion, arena.champion),
        "challenger": (told.challenger, arena.challenger),
        "pairs": (told.pairs, arena.pairs),
        "quality_pairs": (told.quality_pairs, arena.quality_pairs),
        "wins": (told.wins, arena.quality.wins),
        "losses": (told.losses, arena.quality.losses),
        "stage": (told.stage, arena.stage),
        "holdback": (told.holdback, arena.holdback),
    }
    if not by_command:  # the look says what it would do; what an operator's command did stands in the reason
        compared |= {"decision": (told.decision, seen.decision), "reason": (told.reason, seen.reason)}
    differs = [_difference(name, *pair) for name, pair in compared.items() if pair[0] != pair[1]]
    return Again(told.pairs, str(row["place"]), tuple(differs))


def _difference(name: str, told: Any, made: Any) -> str:
    if name == "processes":
        by_name = {process.name: process for process in made}
        wrong = [process.name for process in told if by_name.get(process.name) != process]
        return f"processes: {', '.join(wrong) or 'their number'}"
    if name == "conditions":
        wrong = sorted(key for key in told.keys() | made.keys() if told.get(key) != made.get(key))
        return f"conditions: {', '.join(wrong)}"
    return f"{name}: says {told!r}, comes out as {made!r}"
