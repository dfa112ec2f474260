"""Judging a policy from the log of another, before anyone is served by it. Pure; the same rows give the same verdict.

1. Two estimators of the mean reward: SNIPS, which needs no model, and DR, which a wrong model cannot bias.
2. Unlabelled rows weigh nothing, labelled ones the inverse of their label propensity.
3. Intervals come from resampling whole sessions with a fixed seed; new and current are resampled together.
4. A log that cannot carry the answer gives reasons (`tells`), and then nothing may be rolled out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from agents.router.ope_interval import Compared, compare
from agents.router.ope_model import predictions
from agents.router.ope_rows import Columns, Floats, Logged, columns

LEAST_ESS, LEAST_ESS_SHARE = 200, 0.01
MOST_WEIGHT, MOST_UNSUPPORTED, MOST_LOST = 0.05, 0.01, 0.01
MOST_LOSS = 0.005  # of quality, by which a new policy may be worse


@dataclass(frozen=True, slots=True)
class Support:
    """How well the log carries a policy. `ess`: Kish's effective sample size over sessions, `greatest`: one session's share of the
    weight, `unsupported`: the policy's probability mass on arms that the log could not draw."""

    ess: float
    greatest: float
    unsupported: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the log says of new against current. Quality in [0, 1], cost in nano-dollars per request.

    The estimates are None only where no row can be judged. `tells`: why the log does not carry the answer. `holds`: why the new policy may
    not be rolled out (the tells are among them); empty: it may.
    """

    rows: int
    labelled: int
    sessions: int
    left_out: Mapping[str, int]
    snips: Compared | None
    dr: Compared | None
    cost_nano: Compared | None
    target: Support | None
    current: Support | None
    tells: tuple[str, ...]
    holds: tuple[str, ...]

    @property
    def may_roll_out(self) -> bool:
        return not self.holds

    def plain(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "may_roll_out": self.may_roll_out}


def judge(rows: Iterable[Logged], *, budget_nano: int | None = None) -> Verdict:
    """The verdict on the rows' `target` against their `current`. `budget_nano`: the most that a request may cost on average.

    Raises `Refused` for rows that no log can hold (`ope_rows.columns`).
    """
    log = columns(rows)
    labelled = int(log.labelled.sum())
    if labelled == 0 or log.sessions < 2:
        told = (f"{labelled} labelled rows of {log.sessions} sessions can be judged; at least 1 of 2 is needed",)
        return Verdict(log.rows, labelled, log.sessions, log.left_out, None, None, None, None, None, told, told)
    snips, dr, cost = estimates(log)
    target, current = support(log, log.target), support(log, log.current)
    told = tuple(_tells(log, labelled, target, current))
    held = (*told, *_misses(dr, cost, budget_nano))
    return Verdict(log.rows, labelled, log.sessions, log.left_out, snips, dr, cost, target, current, told, held)


def estimates(log: Columns) -> tuple[Compared, Compared, Compared]:
    """SNIPS, DR and cost, with their intervals."""
    by_snips, by_dr, by_cost = compare(sums(log))
    return by_snips, by_dr, by_cost


def sums(log: Columns) -> list[Floats]:
    """For SNIPS, DR and cost: sessions × (new's numerator and denominator, current's numerator and denominator).

    SNIPS: Σ w·u·r / Σ w·u (Swaminathan & Joachims 2015); cost so too, of all rows. DR: the mean over the rows with an earlier model of
    Σ_a π(a)·m(x, a) + w·u·(r - m(x, arm)) (Dudík, Langford & Li 2011). w = π(arm) / logged(arm), u the label weight, m the model.
    """
    first, model = predictions(log)
    later = np.arange(first, log.rows)
    residual = log.label_weight[later] * (log.reward[later] - model[later - first, log.drawn[later]])
    counted = (np.arange(log.rows) >= first).astype(np.float64)
    snips: list[Floats] = []
    dr: list[Floats] = []
    cost: list[Floats] = []
    for policy in (log.target, log.current):
        weight = log.ratio(policy)
        labelled = weight * log.label_weight
        robust = np.zeros(log.rows)
        robust[later] = (policy[later] * model).sum(axis=1) + weight[later] * residual
        snips += [labelled * log.reward, labelled]
        dr += [robust, counted]
        cost += [weight * log.cost_nano, weight]
    return [_by_session(log, part) for part in (snips, dr, cost)]


def support(log: Columns, policy: Floats) -> Support:
    """Of the labelled rows' weights, summed within sessions, for a session is what is drawn independently."""
    weight = np.bincount(log.session, weights=log.ratio(policy) * log.label_weight, minlength=log.sessions)
    whole = float(weight.sum())
    unsupported = float(np.where(log.logged > 0.0, 0.0, policy).sum()) / log.rows
    if whole <= 0.0:
        return Support(0.0, 1.0, unsupported)
    return Support(whole**2 / float((weight**2).sum()), float(weight.max()) / whole, unsupported)


def _by_session(log: Columns, parts: list[Floats]) -> Floats:
    made = np.empty((log.sessions, len(parts)))
    for at, part in enumerate(parts):
        made[:, at] = np.bincount(log.session, weights=part, minlength=log.sessions)
    return made


def _tells(log: Columns, labelled: int, target: Support, current: Support) -> Iterable[str]:
    least = max(LEAST_ESS, LEAST_ESS_SHARE * labelled)
    for name, found in (("new", target), ("current", current)):
        if found.ess < least:
            yield f"the log is worth {found.ess:.0f} labelled rows for the {name} policy; at least {least:.0f} are needed"
        if found.greatest > MOST_WEIGHT:
            yield f"one session carries {found.greatest:.1%} of the weight for the {name} policy; at most {MOST_WEIGHT:.0%}"
        if found.unsupported > MOST_UNSUPPORTED:
            yield f"{found.unsupported:.1%} of the {name} policy's choices could not be drawn in this log; at most {MOST_UNSUPPORTED:.0%}"
    lost = sum(log.left_out.get(why, 0) for why in ("draw unknown", "not drawn"))
    if lost > MOST_LOST * (log.rows + lost):
        yield f"{lost} of {log.rows + lost} rows have no draw that the log knows; at most {MOST_LOST:.0%}"


def _misses(dr: Compared, cost: Compared, budget_nano: int | None) -> Iterable[str]:
    if dr.difference.low < -MOST_LOSS:
        yield f"quality may fall by {-dr.difference.low:.4f} (95 %); at most {MOST_LOSS:g}"
    if budget_nano is not None and cost.target.value > budget_nano:
        yield f"a request would cost {cost.target.value:.0f} nano-dollars; the budget is {budget_nano}"
