"""What the router is compared with, all with hindsight: they see every arm's reward and cost of the stream."""

from dataclasses import dataclass

import numpy as np

from tools.bench.pareto_data import MICRO, NANO, Floats, Outcomes

_STEPS = 120


@dataclass(frozen=True, eq=False)
class Hindsight:
    """A stream's rewards and costs in dollars, [request, arm]."""

    rewards: Floats
    costs: Floats

    @classmethod
    def of(cls, stream: Outcomes) -> "Hindsight":
        """In units and dollars."""
        return cls(stream.rewards / MICRO, stream.costs / NANO)

    def best_single(self, budget: float | None = None) -> tuple[float, float] | None:
        """(reward, cost) of the arm with the highest mean reward; with a budget, of those whose mean cost is within it."""
        means, prices = self.rewards.mean(axis=0), self.costs.mean(axis=0)
        fits = np.flatnonzero(prices <= budget) if budget is not None else np.arange(len(means))
        if not len(fits):
            return None
        best = fits[np.argmax(means[fits])]
        return float(means[best]), float(prices[best])

    def random_mix(self, cost: float) -> float | None:
        """The highest mean reward of a random mixture of arms whose mean cost is at most `cost`: of two arms at most."""
        means, prices = self.rewards.mean(axis=0), self.costs.mean(axis=0)
        cheap, dear = np.flatnonzero(prices <= cost), np.flatnonzero(prices > cost)
        if not len(cheap):
            return None
        best = float(means[cheap].max())
        for low in cheap:
            for high in dear:
                share = (cost - prices[low]) / (prices[high] - prices[low])
                best = max(best, float(means[low] + share * (means[high] - means[low])))
        return best

    def oracle(self, budget: float | None = None) -> float:
        """The highest mean reward within the mean cost: by the dual, so of choices that may mix two arms on one request."""
        if budget is None:
            return float(self.rewards.max(axis=1).mean())

        def dual(price: float) -> float:
            return float((self.rewards - price * self.costs).max(axis=1).mean()) + price * budget

        low, high = 0.0, 1.0 / max(float(self.costs[self.costs > 0.0].min(initial=1.0)), 1e-9)
        for _ in range(_STEPS):  # it is convex in the price
            first, second = low + (high - low) / 3.0, high - (high - low) / 3.0
            low, high = (low, second) if dual(first) <= dual(second) else (first, high)
        return dual((low + high) / 2.0)
