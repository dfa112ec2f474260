"""Worlds in which a policy's value is known: what the off-policy part of the gateway's benchmark replays."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from agents.router.basis_build import build
from agents.router.features import NAMES
from tools.bench import pareto_data

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Vectors = NDArray[np.int16]
ONE, MICRO, NANO = 4096, 1_000_000, 1_000_000_000


@dataclass(frozen=True, eq=False)
class Requests:
    """n requests in the order they come; a session's turns follow each other. `mean`: each arm's expected quality, `reward`: what it
    would get (millionths), `cost`: nano-dollars, all n × arms. `first`: the row of the session's first turn."""

    x: Vectors
    mean: Floats
    reward: Ints
    cost: Ints
    first: Ints


class World(Protocol):
    """Arms sorted by id, and requests that come to them."""

    @property
    def arms(self) -> tuple[str, ...]: ...

    @property
    def champion(self) -> int:
        """Its place among the arms."""
        ...

    @property
    def blocks(self) -> Sequence[tuple[int, float]]:
        """The learner's prior (`learner.prior`)."""
        ...

    def requests(self, rng: np.random.Generator, count: int) -> Requests:
        """So many, drawn independently by session."""
        ...

    def everyone(self) -> Requests:
        """Over whom the true values are taken."""
        ...


@dataclass(frozen=True)
class Simulated:
    """Three arms shaped as the ParetoBandit outcomes are: mean rewards near .79, .92 and .93, four in ten prompts alike for all, prices a
    factor of 20 apart. The vectors explain part of it, for what they do not hold also counts. `people`: how many make the true values."""

    people: int = 60_000
    dims: int = 32
    arms: tuple[str, ...] = ("large", "middle", "small")
    champion: int = 1
    _turns: ClassVar = (0.7, 0.2, 0.1)  # sessions of one, two, three turns
    _cost_nano: ClassVar = (13_000_000.0, 420_000.0, 26_000.0)
    _sharpness: ClassVar = 9.0  # of the beta distribution of a reward: deviation .09 where the mean is .92

    @property
    def blocks(self) -> Sequence[tuple[int, float]]:
        return [(1, 1.0), (self.dims - 1, 4.0)]

    def requests(self, rng: np.random.Generator, count: int) -> Requests:
        first = self._sessions(rng, count)
        wide = rng.normal(0.0, 1.0, (count, self.dims + 2))
        own = rng.normal(0.0, 1.0, (count, self.dims + 2))
        later = (np.arange(count) != first)[:, None]
        wide = np.where(later, 0.8 * wide[first] + 0.6 * own, wide)  # a session stays near its subject
        hard = 1.0 / (1.0 + np.exp(-(1.6 * wide[:, 0] + 0.8 * wide[:, 1] * wide[:, 2] + 0.8 * wide[:, -1] - 0.6)))
        taste = np.tanh(wide[:, 3] + 0.7 * wide[:, -2])
        mean = np.stack(
            [0.96 - 0.05 * hard - 0.015 * taste, 0.965 - 0.085 * hard + 0.015 * taste, 0.95 - 0.4 * hard], axis=1
        )
        drawn = rng.beta(mean * self._sharpness, (1.0 - mean) * self._sharpness)
        length = np.exp(0.5 * wide[:, 4:5] + 0.3 * rng.normal(size=(count, 3)))
        x = np.concatenate([np.ones((count, 1)), wide[:, : self.dims - 1]], axis=1)
        return Requests(
            x=np.clip(np.rint(x * ONE), -8 * ONE + 1, 8 * ONE - 1).astype(np.int16),
            mean=mean,
            reward=np.rint(drawn * MICRO).astype(np.int64),
            cost=np.rint(np.array(self._cost_nano) * length).astype(np.int64),
            first=first,
        )

    def everyone(self) -> Requests:
        return self.requests(np.random.default_rng([1, 7]), self.people)

    def _sessions(self, rng: np.random.Generator, count: int) -> Ints:
        turns = rng.choice(len(self._turns), size=count, p=self._turns) + 1
        starts = np.cumsum(turns) - turns
        return np.repeat(starts, turns)[:count]


@dataclass(frozen=True, eq=False)
class Recorded:
    """Requests of a file in which every arm's outcome is known, drawn with replacement: the file is the world."""

    arms: tuple[str, ...]
    champion: int
    x: Vectors
    reward: Ints
    cost: Ints

    @property
    def blocks(self) -> Sequence[tuple[int, float]]:
        return [(1, 1.0), (len(NAMES), 30.0), (self.x.shape[1] - 1 - len(NAMES), 100.0)]

    def requests(self, rng: np.random.Generator, count: int) -> Requests:
        return self._at(rng.integers(0, len(self.x), count))

    def everyone(self) -> Requests:
        return self._at(np.arange(len(self.x)))

    def _at(self, rows: Ints) -> Requests:
        reward = self.reward[rows]
        return Requests(self.x[rows], reward / MICRO, reward, self.cost[rows], np.arange(len(rows)))


def recorded(path: Path, seed: int) -> Recorded:
    """The world of a file of the `paretobandit` format; the basis is built from its texts. Raises `Refused` for what cannot be read."""
    rows = pareto_data.read(path)
    basis = build(rows.prompts, seed)
    x = np.stack([basis.vector(prompt) for prompt in rows.prompts])
    return Recorded(rows.arms, champion_of(rows.rewards, rows.costs), x, rows.rewards, rows.costs)


def champion_of(rewards: Ints, costs: Ints) -> int:
    """The place of the arm that serves before anything is learnt: of those within .02 of the best mean quality, the cheapest."""
    mean, cost = rewards.mean(axis=0), costs.mean(axis=0)
    near: Sequence[int] = np.flatnonzero(mean >= mean.max() - 0.02 * MICRO).tolist()
    return min(near, key=lambda at: (float(cost[at]), at))
