"""From labels to a policy: posteriors brought up to date, means for the decision, factors now and then. Pure.

1. A case lies in its own entry, with its features, until its arms' posteriors are written: then only its labels stay, for amendments.
   Writing a posterior (D² numbers) for each case would cost a hundred times as much log as the case.
2. The posterior that a policy is made from is the written one and every case since, in the order of their numbers.
3. An arm that is new begins with the champion's weights, counted at a tenth: what is shared by all arms need not be learnt again.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agents.router import features, learner, model, pacer, snapshot
from agents.router.basis import RIDGE_BIAS, RIDGE_SURFACE, RIDGE_TEXT
from agents.router.learner import Posterior
from agents.router.state import ArmCounts, Part, RouteLearner
from schemas import ids
from schemas.policies import PolicyRouter, RouterArm

SURFACE = len(features.NAMES)
WARM_STRENGTH = 0.1
FOLD_EVERY = 64
SLOWLY_FROM = 2000
SLOWLY_MS = 600_000


@dataclass(frozen=True, slots=True)
class Published:
    """A version: the policy, the blob of factors where there is a new one, and posteriors that shall be written now."""

    policy: PolicyRouter
    blob: bytes | None
    record: RouteLearner
    written: Mapping[str, Posterior]


def blocks(dims: int) -> list[tuple[int, float]]:
    """Ridges by block of a basis' features: bias, surface, text. As `Basis.blocks` says, told from the length alone."""
    rest = dims - 1 - SURFACE
    if rest <= 0:
        return [(1, RIDGE_BIAS), *([(dims - 1, RIDGE_SURFACE)] if dims > 1 else [])]
    return [(1, RIDGE_BIAS), (SURFACE, RIDGE_SURFACE), (rest, RIDGE_TEXT)]


def posteriors(
    record: RouteLearner, arms: Mapping[str, Part], cases: Sequence[Part], dims: int
) -> dict[str, Posterior]:
    """Arm -> its posterior after all cases. `cases`: those not folded yet."""
    found = {arm: held for arm, part in arms.items() if (held := part.regression()) is not None and held.dims == dims}
    keep = record.settings.forget
    for case in sorted(cases, key=lambda part: part.number):
        x = case.x()
        if x is None or len(x) != dims:
            continue
        for arm in sorted(case.labels):
            if arm not in arms:
                continue
            held = found.get(arm)
            if held is None:
                champion = found.get(record.champion)
                held = (
                    learner.prior(blocks(dims))
                    if champion is None
                    else learner.pooled([champion], WARM_STRENGTH, blocks(dims))
                )
            label = case.labels[arm]
            held = learner.forget(held, max(case.number - held.cases, 0), keep)
            found[arm] = learner.observe(held, x, label.quality, label.weight)
    return {arm: learner.forget(held, max(record.cases - held.cases, 0), keep) for arm, held in found.items()}


def _held(record: RouteLearner, found: Mapping[str, Posterior]) -> dict[str, Posterior]:
    """As the policy is made of them: under the route's own ridge. What is written down knows nothing of it."""
    return {arm: learner.held(one, blocks(one.dims), record.settings.ridge) for arm, one in found.items()}


def published(
    record: RouteLearner, arms: Mapping[str, Part], cases: Sequence[Part], alarms: tuple[str, ...], at_ms: int
) -> Published:
    """The next version of `policy.router`."""
    found = posteriors(record, arms, cases, record.dims) if record.dims else {}
    counts = {arm: part.counts or ArmCounts() for arm, part in arms.items()}
    ours = _held(record, found)
    record, blob = _with_factors(record, ours, counts, at_ms)
    among = record.settings.chosen_from(record.champion)
    least = record.settings.warm_labels
    warm = len(among) > 1 and all(arm in found and counts[arm].labels >= least for arm in among)
    record = record.model_copy(
        update={"version": record.version + 1, "published_case": record.cases, "published_ms": at_ms}
    )
    policy = PolicyRouter(
        tenant=record.tenant,
        at_ms=at_ms,
        version=record.version,
        route=record.route,
        champion=record.champion,
        basis=record.settings.basis,
        dims=record.dims,
        arms=tuple(_row(arm, record, counts[arm], ours.get(arm)) for arm in sorted(arms)),
        factors=record.factors,
        warm=warm,
        frozen=record.frozen,
        guarded=record.guard.champion_serves,
        lambda_cost=_price(record),
        preferred=record.preferred,
        generation=record.generation,
        labels=record.labels,
        cases=record.cases,
        alarms=alarms,
        code=model.CODE,
    )
    waits = sum(1 for case in cases if case.features)
    due = waits >= max(FOLD_EVERY, record.labels // 10)
    return Published(policy, blob, record, found if due else {})


def _price(record: RouteLearner) -> int:
    """λ as the decision shall start from."""
    budget = record.settings.budget
    if budget.nano_usd is None:
        return 0
    return pacer.felt(record.pace.pacer, pacer.Pace(budget.nano_usd), max(budget.requests - record.pace.requests, 1))


def _row(arm: str, record: RouteLearner, counts: ArmCounts, held: Posterior | None) -> RouterArm:
    mean = "" if held is None else base64.b64encode(snapshot.mean_of(held).to_bytes()).decode("ascii")
    return RouterArm(
        arm=arm,
        adapter=record.adapters.get(arm),
        labels=counts.labels,
        cases=counts.cases,
        mean=mean,
        tokens_in_milli=counts.tokens_in_milli,
        tokens_out=counts.tokens_out,
        latency_ms=counts.latency_ms,
        engine_ms=counts.engine_ms,
    )


def _with_factors(
    record: RouteLearner, found: Mapping[str, Posterior], counts: Mapping[str, ArmCounts], at_ms: int
) -> tuple[RouteLearner, bytes | None]:
    """Factors anew where an arm's labels grew by a tenth, or an arm is new; with many labels at most every ten minutes."""
    grown = {arm: counts[arm].labels for arm in found}
    if not grown:
        return record, None
    new = set(grown) != set(record.factors_at)
    tenth = any(10 * now >= 11 * max(record.factors_at.get(arm, 0), 1) for arm, now in grown.items())
    slowly = sum(grown.values()) >= SLOWLY_FROM and at_ms - record.factors_ms < SLOWLY_MS
    if not new and (not tenth or slowly):
        return record, None
    blob = model.factors_of({arm: snapshot.snapshot_of(found[arm]).factor.to_bytes() for arm in sorted(found)})
    update = {"factors": ids.digest(blob), "factors_at": grown, "factors_ms": at_ms}
    return record.model_copy(update=update), blob
