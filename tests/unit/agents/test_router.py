"""The router decides from what it is told, refuses by name, and never draws a masked arm."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.router import decide, refuse
from agents.router.actor import Router
from agents.router.around import StoreAround
from infra.clock import ManualClock
from infra.store import MemoryStore
from schemas import codec, ids
from schemas.errors import RatchetError, Refused, Unavailable
from schemas.events import AnswerRefused, DecisionRouted, Message, RequestSubmitted, ShadowOrdered
from schemas.policies import LiveArm, PolicyFleet, PolicyLive, PolicyRoute
from schemas.routes import Arm, Route
from streams import wire
from streams.shapes import Event, Place, Record

NOW = 1_700_000_000_000
ARMS = ("a", "b", "old")


class Nowhere:
    """No record can be read again."""

    async def read(self, place):
        return None


class Table:
    """A view that holds what it was given."""

    def __init__(self, *policies):
        self.rows = {policy.event_key(): event_of(policy, topic="ratchet.policies") for policy in policies}

    def get(self, model, key):
        return self.rows.get(key)

    def items(self, model):
        return {key: row for key, row in self.rows.items() if isinstance(row.data, model)}

    def age_s(self):
        return 0.0


def event_of(payload, *, offset=7, topic="ratchet.requests", key=None, event_id=None):
    key = payload.event_key() if key is None else key
    record = Record(topic, 2, offset, key.encode(), payload.model_dump_json().encode(), (), NOW)
    return Event(event_id or f"id-{payload.event_key()}", key, payload, "test", "", Place(topic, 2, offset), record)


def settings(**changes):
    arms = tuple(Arm(arm=name, base="sha256:0", adapter=f"adapter-{name}") for name in ARMS)
    return Route(route="bank", compliance="off", arms=arms, champion="a", challengers=("b",), **changes)


def policies(*, live=ARMS, route=None, until=NOW + 10_000, **fleet):
    route = route or settings()
    told = {"champion": "a", "challenger": "b", "rollback": "old", "experiment": "e1"} | fleet
    rows = tuple(LiveArm(route="bank", arm=name, adapter=f"adapter-{name}", replicas=1) for name in live)
    return (
        PolicyRoute(at_ms=NOW, version=3, route="bank", settings=route),
        PolicyFleet(at_ms=NOW, version=4, route="bank", arms=route.arms, **told),
        PolicyLive(at_ms=NOW, version=5, instance="i1", arms=rows, until_ms=until),
    )


def request(request_id="r1", **changes):
    fields = {
        "at_ms": NOW,
        "route": "bank",
        "request_id": request_id,
        "messages": (Message(role="user", content="hi"),),
    }
    return RequestSubmitted(**(fields | changes))


def router(*told, store=None, clock=None, artifact=None, again=None):
    made = told or policies()
    store, clock = store or MemoryStore(), clock or ManualClock(NOW)
    return Router(
        Table(*made),
        store,
        StoreAround(store, clock),
        again or Nowhere(),
        clock,
        lambda tenant: b"key-" + tenant.encode(),
        artifact=artifact,
    )


async def payloads(agent, event):
    return [emit.payload for emit in await agent(event)]


async def test_a_request_becomes_one_decision_with_all_that_recomputes_it():
    """The write-ahead decision names arms, propensities, seed, policies, times and the request's place."""
    [made] = await payloads(router(), event_of(request(deadline_ms=5_000)))
    assert isinstance(made, DecisionRouted)
    assert (made.arm, made.strategy, made.chain, made.shadows) == ("a", "champion", ("old",), ())
    assert [(choice.arm, choice.propensity) for choice in made.arms] == [("a", 65_536), ("b", 0), ("old", 0)]
    assert [(ref.kind, ref.version) for ref in made.policies] == [("route", 3), ("fleet", 4), ("live", 5)]
    assert (made.request_partition, made.request_offset, made.request_at_ms) == (2, 7, NOW)
    assert (made.deadline_at_ms, made.window_end_ms) == (NOW + 5_000, NOW + 86_400_000)
    assert made.draw == ids.coin(made.draw_identity, "arm")


async def test_a_shadow_order_names_the_decision_it_belongs_to():
    """With a full shadow share the challenger is ordered under the id that the decision will have."""
    event = event_of(request())
    made = await router(*policies(shadow_bp=10_000))(event)
    order = made[1].payload
    assert isinstance(order, ShadowOrdered)
    assert (order.arm, order.decision_id) == ("b", ids.derive(event.id, "router", made[0].identity))
    assert made[0].payload.shadows == ("b",)


async def test_the_champion_is_the_shadow_where_the_challenger_serves():
    """A pair always has both arms."""
    made = await payloads(router(*policies(shadow_bp=10_000, rollout_bp=10_000)), event_of(request()))
    assert (made[0].arm, made[0].chain, made[1].arm) == ("b", ("a", "old"), "a")


@given(
    masked=st.sets(st.sampled_from(["b", "old"])),
    rollout=st.integers(0, 10_000),
    shadow=st.integers(0, 10_000),
    name=st.from_regex(refuse.ID, fullmatch=True),
    kept=st.sampled_from([None, "a", "b", "old", "gone"]),
)
def test_a_masked_arm_is_never_drawn_shadowed_or_in_a_chain(masked, rollout, shadow, name, kept):
    """Whatever the shares, session and id; and the propensities always sum to 65,536."""
    route, fleet, live = policies(live=[arm for arm in ARMS if arm not in masked], rollout_bp=rollout, shadow_bp=shadow)
    told = decide.Policies(*(event_of(row) for row in (route, fleet)), (event_of(live),))
    seen = decide.Observed(NOW, "d", session="s" if kept else None, session_arm=kept)
    emits = decide.decide(event_of(request(name)), told, seen)
    made = emits[0].payload
    assert not masked & {made.arm, *made.chain, *made.shadows, *(emit.payload.arm for emit in emits[1:])}
    assert sum(choice.propensity for choice in made.arms) == 65_536
    assert {choice.arm: choice.propensity for choice in made.arms}[made.arm] > 0
    assert all(choice.propensity == 0 and choice.masks for choice in made.arms if choice.arm in masked)
    assert decide.decide(event_of(request(name)), told, seen) == emits


@given(low=st.integers(0, 10_000), high=st.integers(0, 10_000), name=st.from_regex(refuse.ID, fullmatch=True))
def test_raising_the_rollout_never_moves_a_request_back(low, high, name):
    """Who has the challenger at the lower share has it at the higher one."""

    def arm(share):
        route, fleet, live = policies(rollout_bp=share)
        told = decide.Policies(*(event_of(row) for row in (route, fleet)), (event_of(live),))
        return decide.decide(event_of(request(name)), told, decide.Observed(NOW, "d"))[0].payload.arm

    low, high = sorted((low, high))
    assert arm(low) == "a" or arm(high) == "b"


async def test_a_session_keeps_its_arm_while_the_arm_is_eligible():
    """A session that met the champion stays when the share rises, and leaves when the champion has no share."""
    store = MemoryStore()
    [first] = await payloads(router(store=store), event_of(request("r1", session_id="s1")))
    [second] = await payloads(
        router(*policies(rollout_bp=9_999), store=store), event_of(request("r2", session_id="s1"))
    )
    [third] = await payloads(
        router(*policies(rollout_bp=10_000), store=store), event_of(request("r3", session_id="s1"))
    )
    assert (first.arm, second.arm, second.strategy, third.arm) == ("a", "a", "session", "b")


async def test_raw_session_and_subject_go_no_further():
    """Decisions carry keyed hashes of 16 bytes, and another tenant's key gives others."""
    [made] = await payloads(router(), event_of(request(session_id="sess-raw", subject="anna")))
    text = made.model_dump_json()
    assert "sess-raw" not in text
    assert "anna" not in text
    assert len(made.subject) == len(made.session) == 32


async def test_a_repeated_id_is_dropped_refused_or_read_again():
    """Equal content elsewhere: nothing. Other content: a dead letter. The same offset: the same decision."""
    agent = router()
    first = await agent(event_of(request()))
    assert await agent(event_of(request(), offset=8)) == ()
    with pytest.raises(Refused) as caught:
        await agent(event_of(request(messages=(Message(role="user", content="other"),)), offset=9))
    assert (caught.value.kind, caught.value.field) == ("duplicate-id", "request_id")
    assert await agent(event_of(request())) == first


async def test_without_the_store_it_goes_on_and_says_so():
    """The store only saves; the decision says that it was away."""
    store = MemoryStore()
    store.cut()
    [made] = await payloads(router(store=store), event_of(request(session_id="s1")))
    assert (made.store_seen, made.arm) == (False, "a")


async def test_a_champion_that_is_not_live_defers_then_refuses():
    """Unavailable until the deadline, also when the announcement is too old; then one answer.refused."""
    for told in (policies(live=("b",)), policies(until=NOW), policies()[:2]):
        agent, event = router(*told), event_of(request(deadline_ms=900))
        with pytest.raises(Unavailable) as caught:
            await agent(event)
        assert agent.deadline_ms(event) == NOW + 900
        [emit] = agent.expired(event, caught.value)
        assert (emit.payload.kind, emit.payload.request_id) == ("unavailable", "r1")
    route = policies()[0]
    assert router(route).deadline_ms(event_of(request())) == NOW + 60_000
    with pytest.raises(Unavailable):
        await router(route)(event_of(request()))


def _broken(**changes):
    said = json.loads(request().model_dump_json()) | changes
    return json.dumps({name: value for name, value in said.items() if value is not ...}).encode()


TYPE = RequestSubmitted.ce_type().encode()
BAD = [
    # what is wrong, value, key, ce_type, who is told ("answer" or "letter"), kind, field, a word of what is accepted
    ("not JSON", b"{oops", b"r1", TYPE, "letter", "not-json", "value", "JSON"),
    ("invalid UTF-8", b'{"tenant":"\xff"}', b"r1", TYPE, "letter", "not-json", "value", "JSON"),
    ("no value", None, b"r1", TYPE, "letter", "empty", "value", "JSON"),
    ("no usable key", _broken(route=...), b"no key!", TYPE, "letter", "invalid", "route", ""),
    ("not an object", b"[1]", b"r1", TYPE, "answer", "invalid", "value", "JSON object"),
    ("missing field", _broken(messages=...), b"r1", TYPE, "answer", "invalid", "messages", "role"),
    ("missing id", _broken(request_id=...), b"r1", TYPE, "answer", "invalid", "request_id", "matching"),
    ("unknown field", _broken(colour="red"), b"r1", TYPE, "answer", "invalid", "colour", "session_id"),
    ("unknown field inside", _broken(messages=[{"role": "user", "content": "x", "y": 1}]), b"r1", TYPE, "answer",
     "invalid", "messages.0.y", "role"),
    ("wrong type", _broken(at_ms="soon"), b"r1", TYPE, "answer", "invalid", "at_ms", "milliseconds"),
    ("an e-mail as subject", _broken(subject="mary@example.org"), b"r1", TYPE, "answer", "invalid", "subject", "{1,64}"),
    ("a telephone number as session", _broken(session_id="+49 170 1234567"), b"r1", TYPE, "answer", "invalid",
     "session_id", "{1,64}"),
    ("an e-mail as id", _broken(request_id="mary@example.org"), b"mary@example.org", TYPE, "letter", "invalid",
     "request_id", ""),
    ("no messages", _broken(messages=[]), b"r1", TYPE, "answer", "invalid", "messages", "1 to 64"),
    ("unknown event type", _broken(), b"r1", b"ratchet.nothing.v1", "answer", "unknown-type", "ce_type", "v1"),
    ("no type", _broken(), b"r1", None, "answer", "no-type", "ce_type", "v1"),
    ("another event's type", policies()[1].model_dump_json().encode(), b"r1", b"ratchet.policy.fleet.v1", "answer",
     "wrong-type", "ce_type", "request.submitted"),
    ("key is not the id", _broken(), b"r2", TYPE, "answer", "wrong-key", "request_id", "record key"),
    ("key is no id", _broken(), b"no key!", TYPE, "letter", "wrong-key", "request_id", "record key"),
    ("unknown route", _broken(route="nowhere"), b"r1", TYPE, "answer", "unknown-route", "route", "bank"),
    ("another tenant", _broken(tenant="other"), b"r1", TYPE, "answer", "wrong-tenant", "tenant", "tenant"),
    ("too long", _broken(messages=[{"role": "user", "content": "x" * 20_001}]), b"r1", TYPE, "answer", "too-long",
     "messages", "20000"),
    ("far future", _broken(at_ms=NOW + 300_001), b"r1", TYPE, "answer", "future", "at_ms", "300 s"),
    ("expired", _broken(at_ms=NOW - 10, deadline_ms=10), b"r1", TYPE, "answer", "expired", "deadline_ms", "ahead"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "key", "ce_type", "told", "kind", "field", "accepted"), [row[1:] for row in BAD],
                         ids=[row[0] for row in BAD])  # fmt: skip
async def test_bad_input_ends_in_exactly_one_refusal_by_name(value, key, ce_type, told, kind, field, accepted):
    """One answer.refused, or one dead letter, that names the field and what is accepted; the next request is served."""
    headers = () if ce_type is None else (("ce_type", ce_type), ("ce_id", b"e1"))
    partitions = 1
    record = Record("ratchet.requests", 0, 11, key, value, headers, NOW)
    agent = router()
    letter: RatchetError | None = None
    emits = []
    try:
        event = wire.decode(record, partitions)
    except RatchetError as error:
        found = agent.refused(record, error)
        letter, emits = (error, []) if found is None else (None, list(found))
    else:
        try:
            emits = list(await agent(event))
        except RatchetError as error:
            letter = error
    if told == "letter":
        assert letter is not None
        assert (emits, letter.kind, letter.field) == ([], kind, field)
        assert accepted in letter.accepted
    else:
        assert letter is None
        [emit] = emits
        made = emit.payload
        assert isinstance(made, AnswerRefused)
        assert (made.kind, made.field, made.request_id, made.event_key()) == (kind, field, key.decode(), key.decode())
        assert accepted in made.accepted
        assert made.reason
        assert (made.request_partition, made.request_offset) == (0, 11)
        assert codec.decode_payload(AnswerRefused, made.model_dump_json().encode()) == made
    assert isinstance((await agent(event_of(request("r9"))))[0].payload, DecisionRouted)


async def test_a_paused_route_refuses():
    """Paused by an operator: answered at once, and why."""
    [made] = await payloads(router(*policies(paused=True)), event_of(request()))
    assert (made.kind, made.field) == ("paused", "route")
