"""The `ope` part of `ratchet bench gateway`: what our logging policy's log says of other policies, against what they are worth.

Each replay is a log of the router's own parts: learner, snapshot, pacer and frozen draws, learning as it goes, in a world where every
policy's value is known (`gateway_ope_world`). Fixed seeds; nothing else is started.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.router import learner, pacer, thompson
from agents.router.ope import judge
from agents.router.ope_interval import Compared
from agents.router.ope_rows import WHOLE, Logged
from agents.router.snapshot import Stack, predict_all, snapshot_of, stacked
from tools.bench import Say, figure
from tools.bench.gateway_ope_world import Requests, Simulated, Vectors, World, recorded

SEED, REPLAYS, ROWS = 1, 20, 30_000
WARM, STUDIED = 300, 2_000  # labelled outcomes of the logging policy's warm start, and of the policies to be judged
BATCH = 256  # requests between two snapshots
BUDGET_NANO = 3_000_000
DOUBTFUL = 20_000  # micro: a lead over the next arm below which an answer is reviewed for certain, else every second
MOST_RMSE = 0.003
RULE = thompson.Rule(width=10)  # 10 · α = .2: twice the noise of a label, so that what may be best can be drawn
PACE = pacer.Pace(BUDGET_NANO)
BESIDE = 200  # other requests per snapshot, for the value of a policy that learns
Shares = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Replay:
    """A log, and the requests it is of. `own`: by name the shares of policies that follow the logging one's learner: what it prefers, and
    a uniform choice of what it holds plausible. `worth`: their values, over other requests to the same learner as it learns."""

    rows: list[Logged]
    requests: Requests
    own: Mapping[str, Shares]
    worth: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Studied:
    """A router that was learnt once and stays: the policies to be judged. `price`: its λ, in millionths."""

    champion: int
    cheapest: int
    stack: Stack
    costs: tuple[int, ...]
    price: int


@dataclass(frozen=True, slots=True)
class Judged:
    """A policy on a log: by estimator its error, and whether its interval holds the truth; `ess`: effective rows of those labelled."""

    target: str
    truth: float
    refused: bool
    error: Mapping[str, float]
    covered: Mapping[str, bool]
    ess: float
    unsupported: float


def run(
    say: Say, replays: int = REPLAYS, *, rows: int = ROWS, world: World | None = None, data: Path | None = None
) -> dict[str, Any]:
    """`ope` (by estimator rmse, bias, coverage, refused), its rows by policy, and lines of the summary.

    `data`: a file of the `paretobandit` format, as the world. Raises `Refused` for a file that cannot be read.
    """
    if world is None:
        world = Simulated() if data is None else recorded(data, SEED)
    studied = study(world, np.random.default_rng([SEED, 1]))
    everyone = world.everyone()
    fixed = {name: value(shares, everyone) for name, shares in policies(studied, everyone).items()}
    found: list[Judged] = []
    for number in range(replays):
        log = replayed(world, np.random.default_rng([SEED, 2, number]), rows)
        worth = {**fixed, **log.worth}
        for name, shares in {**policies(studied, log.requests), **log.own}.items():
            found.append(judged(name, log, shares, world.arms, worth[name]))
        say(f"off-policy: replay {number + 1} of {replays}")
    return told(found, rows, replays)


def value(shares: Shares, requests: Requests) -> float:
    """The true mean quality of a policy on these requests."""
    return float((shares / WHOLE * requests.mean).sum(axis=1).mean())


def study(world: World, rng: np.random.Generator) -> Studied:
    """Learnt from requests that all arms answered; λ is where the pacer settles on them."""
    seen = world.requests(rng, STUDIED)
    costs = costs_of(seen)
    stack = stacked([snapshot_of(one) for one in learnt_from(seen, world.blocks)])
    pace, price = pacer.Pacer(), 0
    for at in range(STUDIED):
        scores = scored(predict_all(stack, seen.x[at])[0], costs, pace.price)
        pace = pacer.reserved(pace, PACE, costs[scores.index(max(scores))])
        price += pace.price if 2 * at >= STUDIED else 0
    cheapest = min(range(len(costs)), key=lambda arm: costs[arm])
    return Studied(world.champion, cheapest, stack, costs, price // (STUDIED // 2))


def policies(studied: Studied, requests: Requests) -> dict[str, Shares]:
    """By name the fixed policies' shares out of 65,536, requests × arms."""
    count, arms = len(requests.x), len(studied.costs)
    learnt = np.zeros((count, arms), np.int64)
    for at in range(count):
        scores = scored(predict_all(studied.stack, requests.x[at])[0], studied.costs, studied.price)
        learnt[at, scores.index(max(scores))] = WHOLE
    return {
        "champion": alone(count, arms, studied.champion),
        "cheapest": alone(count, arms, studied.cheapest),
        "learnt": learnt[requests.first],
    }


def replayed(world: World, rng: np.random.Generator, count: int) -> Replay:
    """A log of the logging policy: warm, then learning from its own labels, exploring at a session's first turn only."""
    seen = world.requests(rng, WARM)
    posteriors, costs = learnt_from(seen, world.blocks), costs_of(seen)
    requests = world.requests(rng, count)
    reviews = rng.integers(0, WHOLE, count)
    coins = rng.integers(0, WHOLE, count)[requests.first]
    own = {name: np.zeros((count, len(world.arms)), np.int64) for name in OWN}
    rows: list[Logged] = []
    worth: dict[str, list[float]] = {name: [] for name in OWN}
    pace = pacer.Pacer()
    for start in range(0, count, BATCH):
        stack = stacked([snapshot_of(one) for one in posteriors])
        price = pacer.steered(pace, PACE)
        beside = world.requests(rng, BESIDE)
        others = [chosen(stack, costs, price, x)[1] for x in beside.x]
        for name, policy in OWN.items():
            worth[name].append(value(np.array([policy(one) for one in others])[beside.first], beside))
        for at in range(start, min(start + BATCH, count)):
            first = int(requests.first[at])
            scores, found = chosen(stack, costs, pacer.steered(pace, PACE), requests.x[at])
            for name, policy in OWN.items():
                own[name][at] = policy(found) if first == at else own[name][first]
            row = logged(requests, at, world.arms, found.propensities, int(coins[at]), rows)
            best, second, *_ = sorted(scores, reverse=True)
            label = WHOLE if best - second < DOUBTFUL else WHOLE // 2
            reward = int(requests.reward[at, world.arms.index(row.arm)]) if reviews[at] < label else None
            rows.append(replace(row, reward=reward, label_propensity=label))
            pace = pacer.reserved(pace, PACE, row.cost_nano)
        posteriors = learnt_more(posteriors, rows[start:], world.arms)
    return Replay(rows, requests, own, {name: float(np.mean(values)) for name, values in worth.items()})


def chosen(stack: Stack, costs: Sequence[int], price: int, x: Vectors) -> tuple[list[int], thompson.Shares]:
    """Scores and shares as the router's strategy `balanced` has them."""
    quality, deviations = predict_all(stack, x)
    scores = scored(quality, costs, price)
    return scores, thompson.probabilities(scores, deviations, RULE, masked=(False,) * len(costs))


def uniform(found: thompson.Shares) -> list[int]:
    """The same share for each plausible arm, the rest to the preferred one."""
    likely = sum(found.plausible)
    made = [WHOLE // likely if may else 0 for may in found.plausible]
    made[found.preferred] += WHOLE - sum(made)
    return made


def greedy(found: thompson.Shares) -> list[int]:
    """What is preferred, without exploration."""
    return [WHOLE if at == found.preferred else 0 for at in range(len(found.plausible))]


OWN = {"greedy": greedy, "plausible": uniform}


def logged(
    requests: Requests, at: int, arms: Sequence[str], shares: Sequence[int], coin: int, before: Sequence[Logged]
) -> Logged:
    """The decision, without its label: a later turn keeps its session's arm, and says so."""
    first = int(requests.first[at])
    sticky = first != at
    arm = before[first].arm if sticky else arms[thompson.drawn(shares, coin)]
    taken = {name: WHOLE if name == arm else 0 for name in arms} if sticky else dict(zip(arms, shares, strict=True))
    return Logged(
        cluster=f"s{first}",
        at_ms=at,
        arm=arm,
        propensities=taken,
        target=taken,
        current=taken,
        x=requests.x[at],
        reward=None,
        cost_nano=int(requests.cost[at, arms.index(arm)]),
        sticky=sticky,
    )


def learnt_from(seen: Requests, blocks: Sequence[tuple[int, float]]) -> list[learner.Posterior]:
    """Each arm's posterior after requests that all arms answered."""
    made = [learner.prior(blocks) for _ in range(seen.reward.shape[1])]
    for at in range(len(seen.x)):
        made = [learner.observe(one, seen.x[at], int(seen.reward[at, arm])) for arm, one in enumerate(made)]
    return made


def learnt_more(
    posteriors: Sequence[learner.Posterior], rows: Sequence[Logged], arms: Sequence[str]
) -> list[learner.Posterior]:
    """After these rows' labels."""
    made = [learner.forget(one, len(rows)) for one in posteriors]
    for row in rows:
        if row.reward is not None and row.x is not None:
            at = arms.index(row.arm)
            made[at] = learner.observe(made[at], row.x, row.reward, learner.weight_of(True, row.label_propensity))
    return made


def costs_of(seen: Requests) -> tuple[int, ...]:
    """What an answer of each arm is expected to cost, nano-dollars."""
    return tuple(int(cost) for cost in seen.cost.mean(axis=0))


def scored(quality: Sequence[int], costs: Sequence[int], price: int) -> list[int]:
    """Quality less its price."""
    return [pacer.score(one, cost, PACE, price) for one, cost in zip(quality, costs, strict=True)]


def alone(count: int, arms: int, arm: int) -> Shares:
    """The policy that always takes this arm."""
    made = np.zeros((count, arms), np.int64)
    made[:, arm] = WHOLE
    return made


def judged(name: str, log: Replay, shares: Shares, arms: Sequence[str], truth: float) -> Judged:
    """The verdict on a policy against what it is worth."""
    wanted = [dict(zip(arms, row, strict=True)) for row in shares.tolist()]
    verdict = judge([replace(row, target=target) for row, target in zip(log.rows, wanted, strict=True)])
    error: dict[str, float] = {}
    covered: dict[str, bool] = {}
    for estimator, found in (("snips", verdict.snips), ("dr", verdict.dr)):
        if isinstance(found, Compared):
            error[estimator] = found.target.value - truth
            covered[estimator] = found.target.low <= truth <= found.target.high
    carried = verdict.target
    return Judged(
        name,
        truth,
        bool(verdict.tells),
        error,
        covered,
        0.0 if carried is None else carried.ess,
        1.0 if carried is None else carried.unsupported,
    )


def told(found: Sequence[Judged], rows: int, replays: int) -> dict[str, Any]:
    """What `run` returns."""
    whole = {estimator: over(found, estimator) for estimator in ("snips", "dr")}
    table = [
        {"estimator": estimator, "policy": name} | over([one for one in found if one.target == name], estimator)
        for estimator in whole
        for name in dict.fromkeys(one.target for one in found)
    ]
    summary = {f"ope_{name}_rmse": figure(part["rmse"], at_most=MOST_RMSE) for name, part in whole.items()}
    summary |= {f"ope_{name}_coverage": figure(part["coverage"]) for name, part in whole.items()}
    return {
        "ope": {**whole, "policies": table, "rows": rows, "replays": replays, "seed": SEED},
        "tables": {"ope": table},
        "notes": [
            "ope: rmse, bias and coverage of what was not refused; refused: the log could not carry the answer, and said so"
        ],
        "summary": summary,
    }


def over(found: Sequence[Judged], estimator: str) -> dict[str, float | None]:
    """Of the verdicts that were given: root mean square error, bias, coverage of the 95 % interval. None where all were refused."""
    refused = sum(one.refused for one in found) / len(found)
    given = [one for one in found if not one.refused]
    of = len(given)
    errors = [one.error[estimator] for one in given]
    return {
        "value": sum(one.truth for one in found) / len(found),
        "rmse": math.sqrt(sum(error**2 for error in errors) / of) if of else None,
        "bias": sum(errors) / of if of else None,
        "coverage": sum(one.covered[estimator] for one in given) / of if of else None,
        "refused": refused,
        "ess": sum(one.ess for one in found) / len(found),
        "unsupported": sum(one.unsupported for one in found) / len(found),
    }
