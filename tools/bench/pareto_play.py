"""One run of the router over one stream, as in production: it sees the reward and cost of the arm it drew, and of no other.

The shares come from the product's own modules: `snapshot` predicts, `thompson` shares, `pacer` prices, `schemas.ids` throws the coin.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from agents.router import learner, pacer, snapshot, thompson
from agents.router.learner import Posterior
from agents.router.pacer import Pace, Pacer
from agents.router.thompson import Rule
from schemas import ids
from tools.bench.pareto_data import Outcomes

Vectors = NDArray[np.int16]
RIDGES = (30.0, 100.0, 300.0, 1000.0)
BIAS, SURFACE = 0.01, 20
FOLDS = 5
EVERY = 16  # cases between two snapshots, as in production within 2 s
CHEAPEST = 4  # an expected cost is at least this part of the arm's mean


@dataclass(frozen=True, slots=True)
class Settings:
    """The router's constants. `keep`: what a case counts one case later."""

    rule: Rule = field(default_factory=Rule)
    keep: float = learner.KEEP
    every: int = EVERY
    eta: int = 500
    relative: int = 10_000
    horizon: int = 64


@dataclass(frozen=True, eq=False)
class Warm:
    """What the labelled rows taught, before the stream: per arm quality and cost, and how dear λ has to be for a budget."""

    quality: tuple[Posterior, ...]
    cost: tuple[Posterior, ...]
    least: tuple[int, ...]
    ridges: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Played:
    """A run: arms drawn, their propensities, what came of it."""

    arms: NDArray[np.int64]
    propensities: NDArray[np.int64]
    explored: NDArray[np.bool_]
    reward: float
    cost: float
    masked: int


def blocks(dims: int, surface: float, text: float) -> list[tuple[int, float]]:
    """The ridges of bias, surface numbers and text."""
    return [(1, BIAS), (SURFACE, surface), (dims - SURFACE - 1, text)]


def warmed(x: Vectors, rows: Outcomes) -> Warm:
    """The warm start. The ridges are those under which gains of held-out warm rows are predicted best."""
    ridges = _ridges(x, rows)
    start = learner.prior(blocks(x.shape[1], *ridges))
    quality, cost = [start] * len(rows.arms), [start] * len(rows.arms)
    for at, vector in enumerate(x):
        for arm in range(len(rows.arms)):
            quality[arm] = learner.observe(quality[arm], vector, int(rows.rewards[at, arm]))
            cost[arm] = learner.observe(cost[arm], vector, int(rows.costs[at, arm]))
    least = tuple(max(1, int(mean) // CHEAPEST) for mean in rows.costs.mean(axis=0))
    return Warm(tuple(quality), tuple(cost), least, ridges)


def _ridges(x: Vectors, rows: Outcomes) -> tuple[float, float]:
    real, targets = x / learner.ONE, rows.rewards / learner.MICRO
    gains = targets - targets.mean(axis=1, keepdims=True)
    fold = np.arange(len(real)) % FOLDS

    def loss(pair: tuple[float, float]) -> float:
        diagonal = np.diag([ridge for length, ridge in blocks(x.shape[1], *pair) for _ in range(length)])
        total = 0.0
        for out in range(FOLDS):
            seen, held = real[fold != out], real[fold == out]
            weights = np.asarray(np.linalg.solve(seen.T @ seen + diagonal, seen.T @ gains[fold != out]), np.float64)
            total += float(((held @ weights - gains[fold == out]) ** 2).sum())
        return total

    return min(((one, other) for one in RIDGES for other in RIDGES), key=loss)


class Run:
    """The router's state on its way through a stream."""

    def __init__(self, warm: Warm, budget: int | None, requests: int, settings: Settings) -> None:
        self.quality = [learner.rebased(one) for one in warm.quality]
        self.cost = list(warm.cost)
        self.least = warm.least
        self.settings = settings
        self.pace = None
        if budget is not None:
            self.pace = Pace(budget, eta=settings.eta, relative=settings.relative, horizon=settings.horizon)
        self.limit = None if budget is None else budget * requests
        self.pacer = Pacer()
        self.left = requests
        self.cases = 0
        self.masked = 0
        self.drawn: set[int] = set()
        self.snapshots = [snapshot.snapshot_of(one) for one in self.quality]
        self.means = [snapshot.mean_of(one) for one in self.cost]
        self.stack = snapshot.stacked(self.snapshots)

    def _look(self) -> None:
        """New snapshots of the arms that were drawn since the last; the others only forgot."""
        for arm in self.drawn:
            self.snapshots[arm] = snapshot.snapshot_of(self.quality[arm])
            self.means[arm] = snapshot.mean_of(self.cost[arm])
        self.stack = snapshot.stacked(self.snapshots)
        self.drawn.clear()

    def seen(self, x: NDArray[np.int16]) -> tuple[list[int], list[int], list[int]]:
        """(qualities, deviations, expected costs) of these features."""
        qualities, deviations = snapshot.predict_all(self.stack, x)
        costs = [max(snapshot.value_at(mean, x), least) for mean, least in zip(self.means, self.least, strict=True)]
        return qualities, deviations, costs

    def start(self, x: Vectors) -> None:
        """λ from the warm rows: the least at which what would be preferred there costs no more than the budget."""
        if self.pace is None:
            return
        foreseen = [self.seen(vector) for vector in x]
        qualities = np.array([one[0] for one in foreseen])
        costs = np.array([one[2] for one in foreseen])
        low, high = 0, pacer.MICRO
        while low < high:
            middle = (low + high) // 2
            chosen = (qualities - middle * costs // self.pace.budget).argmax(axis=1)
            if costs[np.arange(len(costs)), chosen].mean() <= self.pace.budget:
                high = middle
            else:
                low = middle + 1
        self.pacer = Pacer(low)

    def shares(self, x: NDArray[np.int16]) -> tuple[thompson.Shares, list[int]]:
        """What may be drawn, and the expected costs."""
        qualities, deviations, costs = self.seen(x)
        masks = [False] * len(costs)
        if self.pace is not None and self.limit is not None:
            price = pacer.steered(self.pacer, self.pace, self.left)
            qualities = [pacer.score(one, cost, self.pace, price) for one, cost in zip(qualities, costs, strict=True)]
            masks = [not pacer.affordable(self.pacer, cost, self.limit) for cost in costs]
            self.masked += any(masks)
            if all(masks):  # the period is over its budget: the cheapest serves, as in an emergency
                masks[costs.index(min(costs))] = False
        return thompson.probabilities(qualities, deviations, self.settings.rule, masked=masks), costs

    def learn(self, x: NDArray[np.int16], arm: int, expected: int, reward: int, cost: int) -> None:
        """The drawn arm's outcome, and no other's."""
        self.left -= 1
        self.cases += 1
        if self.settings.keep < 1.0:
            self.quality = [learner.forget(one, 1, self.settings.keep) for one in self.quality]
        self.drawn.add(arm)
        self.quality[arm] = learner.observe(self.quality[arm], x, reward)
        self.cost[arm] = learner.observe(self.cost[arm], x, cost)
        if self.pace is not None:
            self.pacer = pacer.reserved(self.pacer, self.pace, cost, self.left)
        if self.cases % self.settings.every == 0:
            self._look()


def play(
    warm: Warm, x_warm: Vectors, x: Vectors, stream: Outcomes, budget: int | None, name: str, settings: Settings
) -> Played:
    """The stream once through. `name` makes the coins."""
    run = Run(warm, budget, len(x), settings)
    run.start(x_warm)
    arms: list[int] = []
    propensities: list[Sequence[int]] = []
    explored: list[bool] = []
    for at, vector in enumerate(x):
        shares, costs = run.shares(vector)
        arm = thompson.drawn(shares.propensities, ids.coin(f"{name}/{at}", "arm"))
        arms.append(arm)
        propensities.append(shares.propensities)
        explored.append(shares.explores[arm])
        run.learn(vector, arm, costs[arm], int(stream.rewards[at, arm]), int(stream.costs[at, arm]))
    chosen = np.array(arms)
    rows = np.arange(len(chosen))
    return Played(
        chosen,
        np.array(propensities),
        np.array(explored),
        float(stream.rewards[rows, chosen].mean()) / learner.MICRO,
        float(stream.costs[rows, chosen].mean()) / 1e9,
        run.masked,
    )
