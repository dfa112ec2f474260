"""Answers given before, through the router's and inference's shells over the store in memory."""

from agents.inference.charges import compare
from agents.router import cache
from agents.router.actor import Router
from agents.router.around import StoreAround
from agents.rules import answers
from agents.rules.answers import trial_keys
from infra.clock import ManualClock
from infra.store import MemoryStore
from schemas import ids
from schemas.events import DecisionRouted, Message, RequestSubmitted, ResultCompleted, ShadowOrdered
from schemas.policies import LiveArm, PolicyFleet, PolicyLive, PolicyRoute, PolicyRouter
from schemas.routes import Arm, Route
from schemas.routing import BudgetSettings, CacheSettings, QuotaSettings, RoutingSettings
from streams.shapes import Event, Place, Record

NOW = 1_790_000_000_000
ARM = Arm(arm="small", base="sha256:s", nano_usd_out=5, max_tokens=10)


class View:
    """A view that holds what it was given."""

    def __init__(self, *policies):
        self.rows = {row.event_key(): event_of(row, topic="ratchet.policies") for row in policies}

    def get(self, model, key):
        return self.rows.get(key)

    def items(self, model):
        return {key: row for key, row in self.rows.items() if isinstance(row.data, model)}

    def age_s(self):
        return 0.0


class Nowhere:
    """No record can be read again."""

    async def read(self, place):
        return None


def event_of(payload, topic="ratchet.requests", offset=1):
    key = payload.event_key()
    record = Record(topic, 0, offset, key.encode(), payload.model_dump_json().encode(), (), NOW)
    return Event(f"id-{key}", key, payload, "test", "", Place(topic, 0, offset), record)


def view(generation=0, **routing):
    told = {"cache": CacheSettings(exact=True, semantic=True)} | routing
    route = Route(route="r", compliance="off", arms=(ARM,), champion="small", routing=RoutingSettings(**told))
    live = (LiveArm(route="r", arm="small", adapter=None, replicas=1),)
    return View(
        PolicyRoute(at_ms=NOW, version=1, route="r", settings=route),
        PolicyFleet(at_ms=NOW, version=1, route="r", arms=route.arms, champion="small"),
        PolicyLive(at_ms=NOW, version=1, instance="i", arms=live, until_ms=NOW + 10**6),
        PolicyRouter(at_ms=NOW, version=1, route="r", champion="small", generation=generation, code="learner/1"),
    )


class World:
    """A router over one store."""

    def __init__(self, store=None, **changes):
        self.store = store or MemoryStore()
        self.clock = ManualClock(NOW)
        self.count = 0
        self.changes = changes

    async def ask(self, text, *, name=None, **changes):
        """The emits of a new request."""
        self.count += 1
        name = name or f"q{self.count}"
        around = StoreAround(self.store, self.clock)
        router = Router(view(**self.changes), self.store, around, Nowhere(), self.clock, lambda tenant: b"k")
        told = {"at_ms": NOW, "route": "r", "request_id": name, "messages": (Message(role="user", content=text),)}
        emits = await router(event_of(RequestSubmitted(**told | changes), offset=self.count))
        return [emit.payload for emit in emits]

    async def answer(self, decision, text):
        """What inference and trust do: a model's answer, compared where it shall be, released and kept."""
        result = ResultCompleted(
            at_ms=NOW, route="r", request_id=decision.request_id, request_partition=0, request_offset=1, arm="small",
            shadow=False, final=True, decision_id=f"d{self.count}", assigned_at_ms=NOW, window_end_ms=NOW + 1, latency_ms=1,
            text=text, tokens_in=3, tokens_out=2, ttft_ms=1, engine_ms=1, finish_reason="stop", logprobs=(-0.1,), engine="e",
            cache_key=getattr(decision, "cache_key", ""),
        )  # fmt: skip
        await compare(self.store, decision.trial, f"d-{self.count}", [result])
        if result.cache_key:
            await self.store.put(result.cache_key, answers.encode(result, "res"), 60)


async def test_the_same_question_gets_the_kept_answer():
    """Once it was released; with spaces folded; not under another generation, and never for what is personal."""
    world = World()
    [first] = await world.ask("How do I reset my password?")
    assert first.cached is None
    assert first.cache_key
    assert first.routing.observed.probe == "miss"
    await world.answer(first, "Click here.")
    [second] = await world.ask("How do I   reset my password?")
    assert isinstance(second, DecisionRouted)
    assert (second.strategy, second.cached.text, second.cached.kind) == ("cache", "Click here.", "exact")
    [personal] = await world.ask("How do I reset my password?", sensitivity="personal")
    assert (personal.cached, personal.cache_key) == (None, "")
    later = World(world.store, generation=1)
    later.count = 50
    assert (await later.ask("How do I reset my password?"))[0].cached is None


async def test_a_like_answer_is_tried_until_it_is_proven_then_served_and_checked():
    """148 fresh answers that say the same; the coin of a served one orders a check, and a false one shuts the partition."""
    world = World()
    [first] = await world.ask("How do I reset my password?")
    await world.answer(first, "Click here.")
    [tried] = await world.ask("how do i reset my password")
    assert tried.cached is None
    assert tried.trial.text == "Click here."
    await world.answer(tried, "click here.")
    assert await world.store.counts(list(trial_keys(tried.trial.key))) == [1, 0]
    await world.store.add(trial_keys(tried.trial.key)[0], 147, 60)
    await world.store.delete(tried.cache_key)
    checked = next(n for n in map(str, range(10**6)) if ids.coin(f"id-c{n}", "cache-check") < 1311)
    served = await world.ask("how do i reset my password", name=f"c{checked}")
    assert (served[0].cached.kind, served[0].shadows) == ("semantic", ())
    assert isinstance(served[1], ShadowOrdered)
    await world.answer(served[1], "Ask your bank.")
    [after] = await world.ask("how do i reset my password please")
    assert after.cached is None
    [other] = await world.ask("How do I not reset my password?")
    assert (other.cached, other.trial) == (None, None)


async def test_a_store_that_is_away_costs_answers_and_nothing_else():
    """Cache and ledger miss, the local share of the quota holds; the decision says so, and goes on when it is back."""
    world = World(quota=QuotaSettings(requests_per_s=1, burst=2), budget=BudgetSettings(nano_usd=100, requests=100))
    [first] = await world.ask("one")
    assert first.routing.observed.spent_nano_usd == 0
    world.store.cut()
    [away] = await world.ask("two")
    assert (away.store_seen, away.routing.observed.away, away.routing.observed.probe) == (False, True, "miss")
    world.store.mend()
    [back] = await world.ask("three")
    assert (back.store_seen, back.routing.observed.away) == (True, False)


async def test_a_request_is_charged_once():
    """However often it is decided: what the ledger holds after a second reading is what it held after the first."""
    world = World(budget=BudgetSettings(nano_usd=100, requests=100))
    [made] = await world.ask("one", name="same")
    world.count = 0
    await world.ask("one", name="same")
    [after] = await world.ask("two")
    assert made.routing.reserved_nano_usd == 50
    assert (after.routing.observed.spent_nano_usd, after.routing.observed.requests) == (50, 1)


def test_the_scope_is_in_every_key():
    """Two tenants, two generations: never the same key."""
    scopes = [cache.Scope(tenant, "r", "x", "", generation) for tenant in ("a", "b") for generation in (0, 1)]
    keys = {cache.key_of(scope, ARM, "body") for scope in scopes}
    assert len(keys) == 4
