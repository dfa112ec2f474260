"""A small world of three arms whose policies' values are known, and logs of a policy that explores in it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.router.ope_rows import MICRO, ONE, WHOLE, Logged

ARMS = ("big", "mid", "small")
COST_NANO = (20_000_000, 600_000, 30_000)
_PEOPLE = 200_000  # over whom a policy's value is taken
Floats = NDArray[np.float64]


def alone(arm: str) -> dict[str, int]:
    """The policy that always takes this arm."""
    return {name: WHOLE if name == arm else 0 for name in ARMS}


def shares(policy: Floats) -> list[dict[str, int]]:
    """Out of 65,536, the rest to the first arm."""
    parts = np.floor(policy * WHOLE).astype(np.int64)
    parts[:, 0] += WHOLE - parts.sum(axis=1)
    return [dict(zip(ARMS, row, strict=True)) for row in parts.tolist()]


@dataclass(frozen=True)
class World:
    """Quality falls with difficulty x[1], for the small arm most. `explored`: the logging policy's share of each arm it does not prefer;
    `mood`: the share of turns whose luck is the session's; `turned`: the easy ones are the hard ones."""

    explored: float = 0.1
    mood: float = 0.0
    turned: bool = False

    def value(self, policy: str) -> float:
        """The policy's mean quality."""
        x = self._contexts(np.random.default_rng(0), _PEOPLE)
        return float((self._policy(policy, x) * self._quality(x)).sum(axis=1).mean())

    def cost(self, policy: str) -> float:
        """The policy's mean cost in nano-dollars."""
        x = self._contexts(np.random.default_rng(0), _PEOPLE)
        return float((self._policy(policy, x) @ np.array(COST_NANO)).mean())

    def log(
        self,
        seed: int,
        count: int,
        target: str,
        *,
        turns: int = 1,
        label: float | Callable[[float], float] = 1.0,
        top: float = 1.0,
    ) -> list[Logged]:
        """So many rows of the logging policy, a session's turns with one context, coin and mood; rewards are at most `top`."""
        rng = np.random.default_rng([seed, 1])
        sessions = count // turns
        x = np.repeat(self._contexts(rng, sessions), turns, axis=0)
        logged = shares(self._policy("logged", x))
        wanted = shares(self._policy(target, x))
        coin = np.repeat(rng.integers(0, WHOLE, sessions), turns)
        quality, asked = self._quality(x), rng.random(len(x))
        shared, own = np.repeat(rng.choice([-1.0, 1.0], sessions), turns), rng.choice([-1.0, 1.0], len(x))
        luck = np.where(rng.random(len(x)) < self.mood, shared, own)
        rows: list[Logged] = []
        for at, policy in enumerate(logged):
            arm = int(np.searchsorted(np.cumsum(list(policy.values())), coin[at], side="right"))
            mean = quality[at, arm] * top
            reward = float(mean + luck[at] * min(0.1, 1.0 - mean))
            chance = round(WHOLE * (label if isinstance(label, float) else label(reward)))
            rows.append(
                Logged(
                    cluster=f"session {at // turns}",
                    at_ms=at * 1000,
                    arm=ARMS[arm],
                    propensities=policy,
                    target=wanted[at],
                    current=policy,
                    x=np.round(x[at] * ONE).astype(np.int16),
                    reward=round(reward * MICRO) if asked[at] * WHOLE < chance else None,
                    cost_nano=COST_NANO[arm],
                    label_propensity=chance,
                )
            )
        return rows

    def _contexts(self, rng: np.random.Generator, count: int) -> Floats:
        return np.concatenate([np.ones((count, 1)), rng.uniform(-1.0, 1.0, (count, 4))], axis=1)

    def _quality(self, x: Floats) -> Floats:
        hard = (1.0 + (-1.0 if self.turned else 1.0) * x[:, 1]) / 2.0
        return np.stack([0.92 - 0.05 * hard, 0.92 - 0.2 * hard, 0.9 - 0.6 * hard], axis=1)

    def _policy(self, name: str, x: Floats) -> Floats:
        if name == "uniform":
            return np.full((len(x), 3), 1.0 / 3.0)
        if name == "logged":
            return self.explored + (1.0 - 3.0 * self.explored) * self._policy("mid", x)
        chosen = np.where(x[:, 1] > 0.0, 0, 1) if name == "learnt" else np.full(len(x), ARMS.index(name))
        return np.eye(3)[chosen]
