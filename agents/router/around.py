"""What the router asks of the store beside ids and sessions: quota, ledger, answers kept. Nothing that decides is only there.

While the store is away: answers miss, the quota is this router's share of the rate, outside arms spend this router's share of what the
budget had left; what was spent is handed over when the store is back.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agents.ports import Clock, Limit, LocalBudget, LocalQuota, SemanticIndex, Store
from agents.router import cache
from agents.router.likeness import HashedGrams
from agents.router.observed import NEVER, Hit, Like
from agents.router.trials import Counts
from agents.router.weigh import period_of
from agents.rules.answers import decode, trial_keys
from agents.rules.ledger import charge_of, counted, emergency_of, ledger_of
from schemas.errors import Unavailable
from schemas.events import DecisionRouted, Message, Noticed
from schemas.routes import Arm, Route
from schemas.routing import QuotaSettings

AGE_MS = 100  # how old a sum of the ledger may be
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Asked:
    """A question whose like may be answered from the cache, and the arms that may have answered it."""

    scope: cache.Scope
    messages: tuple[Message, ...]
    arms: tuple[Arm, ...]


class Around(Protocol):
    """The router's surroundings: the store in use, the recorded ones in a replay."""

    async def quota_ms(self, route: Route, tokens: int, once: str) -> int | None:
        """None where the tenant may ask now, else in how many milliseconds; once per name. `NEVER`: so much at once never fits."""
        ...

    async def noticed(self, route: Route, now_ms: int) -> Noticed:
        """The ledger's sums, at most 100 ms old."""
        ...

    async def hits(self, keys: Mapping[str, str]) -> tuple[Hit, ...]:
        """Arm -> key in, what is kept out."""
        ...

    async def likes(self, asked: Asked) -> tuple[tuple[Like, ...], tuple[str, ...]]:
        """Answers of like questions, one for each arm at most, and why the nearest are none."""
        ...

    async def reserve(self, decision: DecisionRouted, route: Route, asked: Asked | None) -> None:
        """Charge the decision's expected cost, once however often it is decided, and note the question for those like it."""
        ...


def limits_of(quota: QuotaSettings, tokens: int) -> tuple[list[Limit], list[int]]:
    """The buckets that a route has, and what a request takes from each."""
    limits: list[Limit] = []
    amounts: list[int] = []
    if quota.requests_per_s > 0:
        rate = max(1, round(quota.requests_per_s * 60))
        limits.append(Limit(rate, quota.burst or max(1, round(quota.requests_per_s))))
        amounts.append(1)
    if quota.tokens_per_min > 0:
        limits.append(Limit(quota.tokens_per_min, quota.tokens_per_min))
        amounts.append(tokens)
    return limits, amounts


class StoreAround:
    """On the store. `name`: of this process, as no other has it. `routers`: how many share a quota or budget while it is away."""

    def __init__(self, store: Store, clock: Clock, name: str = "router", routers: int = 1) -> None:
        self._store = store
        self._clock = clock
        self._quota = LocalQuota(routers)
        self._budget = LocalBudget(routers)
        self._name = name
        self._apart = True  # nothing is agreed yet, or the store was away: it may have forgotten, and lacks what was reserved meanwhile
        self._text = HashedGrams()
        self._index = SemanticIndex(store, clock.monotonic, dims=self._text.dims)
        self._meeting = False

    async def quota_ms(self, route: Route, tokens: int, once: str) -> int | None:
        limits, amounts = limits_of(route.routing.quota, tokens)
        if not limits:
            return None
        key = f"quota:{route.tenant}:{route.route}"
        try:
            taken = await self._store.take(key, limits, amounts, once=once)
        except Unavailable:
            taken = self._quota.take(key, limits, amounts, self._clock.now_ms())
        if taken.ok:
            return None
        return NEVER if taken.retry_after_ms is None else taken.retry_after_ms

    async def noticed(self, route: Route, now_ms: int) -> Noticed:
        period, settings = period_of(route.routing, now_ms), route.routing
        asked: dict[str, str] = {}
        if period is not None:
            asked |= {"spent": ledger_of(route.route, period), "requests": counted(ledger_of(route.route, period))}
        if settings.emergency.arm:
            emergency = emergency_of(route.route, now_ms)
            asked |= {"emergency": emergency, "count": counted(emergency), "day": emergency + ":all"}
        if not asked:
            return Noticed()
        away = not await self._hear([*asked.values()], now_ms)
        known = {name: self._budget.known(key) for name, key in asked.items()}
        spent = known.get("spent")
        sum_now = None if spent is None else spent.spent
        if away and period is not None:
            limit = (settings.budget.nano_usd or 0) * settings.budget.requests
            sum_now = limit - self._budget.room(ledger_of(route.route, period), limit)

        def held(name: str) -> int | None:
            found = None if away else known.get(name)
            return None if found is None else found.spent

        return Noticed(
            spent_nano_usd=sum_now,
            spent_age_ms=0 if spent is None else max(0, now_ms - spent.at_ms),
            away=away and period is not None,
            requests=held("requests"),
            emergency_nano_usd=held("emergency"),
            emergency_count=held("count"),
            requests_24h=held("day"),
        )

    async def _hear(self, keys: Sequence[str], now_ms: int) -> bool:
        """Bring the sums up to date; whether the store answered, or did a moment ago."""
        due = self._budget.due(keys, now_ms, AGE_MS)
        if not due:
            return True
        try:
            if self._meeting:
                return False  # one hands over what all of them spent; until then the ledger is not to be gone by
            if self._apart:
                await self._meet(now_ms)
            for key, value in zip(due, await self._store.spent(due), strict=True):
                self._budget.heard(key, value, now_ms)
        except Unavailable:
            self._apart = True
            return False
        return True

    async def _meet(self, now_ms: int) -> None:
        self._meeting = True
        try:
            await self._budget.meet(self._store, f"{self._name}/{now_ms}", now_ms, 2 * DAY_S)
            self._apart = bool(self._budget.held())
        finally:
            self._meeting = False

    async def hits(self, keys: Mapping[str, str]) -> tuple[Hit, ...]:
        if not keys:
            return ()
        try:
            values = await self._store.mget([*keys.values()])
        except Unavailable:
            return ()
        found: list[Hit] = []
        for (arm, key), value in zip(keys.items(), values, strict=True):
            answer = None if value is None else decode(value, key)
            if answer is not None:
                found.append(Hit(arm, answer))
        return tuple(found)

    async def likes(self, asked: Asked) -> tuple[tuple[Like, ...], tuple[str, ...]]:
        try:
            return await self._likes(asked)
        except Unavailable:
            return (), ()

    async def _likes(self, asked: Asked) -> tuple[tuple[Like, ...], tuple[str, ...]]:
        partition = cache.partition_of(asked.scope, asked.messages)
        question = cache.question_of(asked.messages)
        near = await self._index.nearest(partition, self._text.embed(question), least_milli=cache.LIKE_MILLI)
        keys = [(arm.arm, one, cache.key_of(asked.scope, arm, one.identity)) for arm in asked.arms for one in near]
        if not keys:
            return (), ()
        values, counts = await asyncio.gather(
            self._store.mget([key for _, _, key in keys]),
            self._store.counts([name for key in (partition, *(key for _, _, key in keys)) for name in trial_keys(key)]),
        )
        pairs = [Counts(*counts[at : at + 2]) for at in range(0, len(counts), 2)]
        nominees: dict[str, list[cache.Nominee]] = {}
        for (arm, one, key), value, trials in zip(keys, values, pairs[1:], strict=True):
            answer = None if value is None else decode(value, key)
            if answer is not None:
                nominees.setdefault(arm, []).append(cache.Nominee(one.question, one.likeness_milli, answer, trials))
        found: list[Like] = []
        vetoes: tuple[str, ...] = ()
        for arm, rows in sorted(nominees.items()):
            chosen = cache.choose(question, rows, pairs[0], by_meaning=self._text.by_meaning)
            vetoes = vetoes or chosen.vetoes
            if chosen.nominee is not None and chosen.action != "miss":
                served = chosen.action == "serve"
                told = {
                    "kind": "semantic",
                    "likeness_milli": chosen.nominee.likeness_milli,
                    "counted": partition if served else chosen.nominee.answer.key,
                }
                found.append(Like(arm, served, chosen.nominee.answer.model_copy(update=told)))
        return tuple(found), vetoes

    async def _note(self, asked: Asked) -> None:
        """The question, for those that will be like it."""
        question, body = cache.question_of(asked.messages), cache.body_of(asked.messages)
        try:
            await self._index.add(
                cache.partition_of(asked.scope, asked.messages), body, question, self._text.embed(question)
            )
        except Unavailable:
            return  # it will be asked again

    async def reserve(self, decision: DecisionRouted, route: Route, asked: Asked | None) -> None:
        terms = decision.routing
        if terms is None or decision.cached is not None:
            return
        if asked is not None:
            await self._note(asked)
        place = (decision.request_partition, decision.request_offset)
        charges: list[tuple[str, str, int, float]] = []
        if terms.period is not None:
            ledger, life = ledger_of(decision.route, terms.period), 2.0 * route.routing.budget.period_s
            costs = {row.arm: row.terms.cost_nano_usd or 0 for row in decision.arms if row.terms is not None}
            charges += [
                (ledger, charge_of(*place, arm), costs.get(arm, 0), life) for arm in (decision.arm, *decision.shadows)
            ]
            charges.append((counted(ledger), charge_of(*place, "n"), 1, life))
        if route.routing.emergency.arm:
            key = emergency_of(decision.route, decision.assigned_at_ms) + ":all"
            charges.append((key, charge_of(*place, "all"), 1, 2.0 * DAY_S))
        await asyncio.gather(*(self._charge(*one) for one in charges))

    async def _charge(self, ledger: str, request: str, nano_usd: int, life_s: float) -> None:
        try:
            total = await self._store.reserve(ledger, request, nano_usd, life_s)
            self._budget.heard(ledger, total, self._clock.now_ms())
        except Unavailable:
            self._apart = True
            self._budget.reserve(ledger, request, nano_usd, life_s)
