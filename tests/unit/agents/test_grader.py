"""The grader agent: which reviews it takes, what it asks of the engine, how its verdicts are proven and what is said of failures."""

from typing import Any

import pytest
from spoken import Ears, credential, ring_of

from agents.cases.actor import Grader
from infra.clock import ManualClock
from infra.engine import ArmSpec, Generation
from infra.engine_scripted import Script, ScriptedEngine, ScriptedGuest
from infra.keys import Voice
from schemas import codec, ids
from schemas.errors import Refused, Unavailable
from schemas.events import BlindAnswer, Message, ReviewRequested, VerdictGiven
from schemas.payload import Payload
from schemas.policies import PolicyRoute
from schemas.principal import Prove
from schemas.routes import Arm, GraderSettings, Route
from streams.shapes import DeadLetter, Emit, Event, Place, Record
from streams.wire import cause_of, decode, outgoing, partition_of

NOW = 1_700_000_000_000
ROUTE = Route(
    route="bank",
    compliance="off",
    arms=(Arm(arm="old", base="b"), Arm(arm="judge", base="c", max_tokens=4)),
    champion="old",
    grader="model",
    grading=GraderSettings(arm="judge", rubric="Is it right?", canary_share=0.0),
)


class Table:
    """A view that holds what it was given."""

    def __init__(self, *routes: Route) -> None:
        rows = [PolicyRoute(at_ms=NOW, version=1, route=row.route, settings=row) for row in routes]
        self._rows = {row.event_key(): event_of(row) for row in rows}

    def get(self, model: Any, key: str) -> Any:
        return self._rows.get(key)

    def items(self, model: Any) -> Any:
        return self._rows

    def age_s(self) -> float:
        return 0.0


class Asked:
    """An engine of somebody else; replies what was said, in turn. Fails the test on a call without time."""

    def __init__(self, *replies: str | Exception) -> None:
        self.replies = list(replies)
        self.calls: list[tuple[str, str, float]] = []

    async def generate(self, spec: ArmSpec, text: str, request_id: str, timeout_s: float) -> Generation:
        assert timeout_s > 0
        self.calls.append((spec.arm, text, timeout_s))
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return Generation(reply, 3, 1, 5.0, 4.0, "stop", (-0.1,), None, "scripted", "rep1")


class Silent:
    """No key was ever set."""

    async def prover(self) -> Prove:
        return lambda row: row


def event_of(payload: Payload) -> Event[Any]:
    event_id = ids.derive(payload.event_key(), "test", payload.TYPE)
    row = codec.encode(payload, event_id=event_id, source="test", traceparent=ids.trace_parent(None, event_id))
    record = Record(
        f"ratchet.{payload.TOPIC}", partition_of(row.key, 4), 3, row.key, row.value, row.headers, payload.at_ms
    )
    return Event(event_id, row.key.decode(), payload, "test", "", Place(record.topic, record.partition, 3), record)


def review(*texts: str, **more: Any) -> Event[Any]:
    return event_of(
        ReviewRequested.model_validate(
            {
                "at_ms": NOW, "route": "bank", "request_id": "q1", "request_partition": 0, "request_offset": 7,
                "messages": (Message(role="user", content="Which card?"),), "grader": "model", "gated": False,
                "answers": [BlindAnswer(label=chr(65 + n), text=text) for n, text in enumerate(texts)],
                "due_ms": NOW + 30_000,
            } | more
        )
    )  # fmt: skip


def grader(engine: Any, *, route: Route | None = ROUTE, voice: Any = None, clock: ManualClock | None = None) -> Grader:
    return Grader(Table(*([] if route is None else [route])), engine, voice or Silent(), clock or ManualClock(NOW))


async def test_it_asks_both_orders_of_the_routes_judge_and_gives_its_verdict() -> None:
    """The arm's name in the engine is the route's; the verdict is the judge model's, of the request's tenant."""
    engine = Asked("1", "2")
    [emit] = await grader(engine)(review("yes", "no", tenant="acme"))
    assert isinstance(emit, Emit)
    given = emit.payload
    assert isinstance(given, VerdictGiven)
    assert (given.kind, given.by, given.tenant, given.at_ms) == ("model", "model.judge", "acme", NOW)
    assert {row.label: row.rating for row in given.answers} == {"A": 1.0, "B": 0.0}
    assert [(arm, timeout) for arm, _, timeout in engine.calls] == [("bank/judge", 30.0)] * 2


@pytest.mark.parametrize(
    "event",
    [
        review("yes", "no", grader="verdict"),
        review("yes", "no", grader="reference"),
        review("yes"),
        event_of(VerdictGiven(at_ms=NOW, route="bank", request_id="q1", by="ann", corrected="x")),
    ],
    ids=["people's", "a reference's", "nothing to compare", "another event"],
)
async def test_what_no_model_judges_costs_nothing(event: Event[Any]) -> None:
    """No engine, no key, no policy is asked for: each of them would fail the test."""

    class Never:
        async def prover(self) -> Prove:
            raise AssertionError("no key is needed")

    assert await grader(Asked(), route=None, voice=Never())(event) == ()
    assert grader(Asked()).deadline_ms(event) is None


async def test_what_cannot_be_graded_is_a_dead_letter_that_says_why() -> None:
    """No verdict is given; the review lies among the dead letters, untouched, to be asked again."""
    event = review("yes", "no")
    [letter] = await grader(Asked("well", "I see", "hm", "no"))(event)
    assert isinstance(letter, DeadLetter)
    assert (letter.kind, letter.record) == ("unparsable", event.record)
    fooled = ROUTE.model_copy(update={"grading": ROUTE.grading.model_copy(update={"canary_share": 1.0})})
    [letter] = await grader(Asked("1", "2", "2", "1"), route=fooled)(event)
    assert isinstance(letter, DeadLetter)
    assert letter.kind == "canary"


async def test_past_the_window_nobody_is_asked() -> None:
    """The case has closed or is about to: that is told, not computed."""
    engine = Asked()
    [letter] = await grader(engine, clock=ManualClock(NOW + 30_000))(review("yes", "no"))
    assert isinstance(letter, DeadLetter)
    assert letter.kind == "deadline"
    assert engine.calls == []


async def test_an_engine_that_is_away_is_tried_again_until_the_window_ends() -> None:
    """`Unavailable` goes to the runtime; given up, the review is a dead letter that names the fault."""
    event = review("yes", "no")
    agent = grader(Asked(Unavailable("the engine is away")))
    with pytest.raises(Unavailable) as caught:
        await agent(event)
    assert agent.deadline_ms(event) == NOW + 30_000
    [letter] = agent.expired(event, caught.value)
    assert isinstance(letter, DeadLetter)
    assert "the engine is away" in letter.message
    with pytest.raises(Unavailable):
        await grader(Asked(), route=None)(event)


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({"grader": "verdict", "grading": GraderSettings()}, "model"),
        ({"grading": GraderSettings(arm="judge")}, "rubric"),
    ],
)
async def test_a_route_that_names_no_judge_any_more_is_said(change: dict[str, Any], asked: str) -> None:
    """The route was changed meanwhile: refused, with the field and what would be accepted."""
    with pytest.raises(Refused, match=r"'bank' names no judge model now.*grading\.arm"):
        await grader(Asked(), route=ROUTE.model_copy(update=change))(review("yes", "no", grader=asked))


async def test_the_scripted_engine_can_be_the_judge() -> None:
    """A guest of its own, for tests and load: its hashed words are no number, so nothing is graded."""
    guest = ScriptedGuest(ScriptedEngine(Script()))
    [letter] = await grader(guest)(review("yes", "no"))
    assert isinstance(letter, DeadLetter)
    assert letter.kind == "unparsable"


class Store:
    """A secret source that holds what it was given."""

    def __init__(self, **held: dict[str, str]) -> None:
        self.held = {name.replace("_", "/"): value for name, value in held.items()}
        self.asked = 0

    async def get(self, path: str) -> dict[str, str]:
        self.asked += 1
        return self.held.get(path, {})


def store_of(*names: str) -> Store:
    """The store with the ring's principals of these names, each in the role of its name."""
    ring = ring_of({name: (name,) for name in names})  # type: ignore[misc]  # a role's word is its name here
    index = {name: ring.principals[name].model_dump_json() for name in names}
    keys = {f"principals_{name}": {"k1": credential(name).key.hex()} for name in names}
    return Store(principals=index, **keys)


async def verdict_record(voice: Voice) -> Record:
    """The grader's verdict as it would lie on its topic."""
    event = review("yes", "no")
    outs = await grader(Asked("1", "2"), voice=voice)(event)
    [sent] = outgoing(outs, cause_of(event), agent="grader", partitions=4, now_ms=lambda: NOW)
    row = sent.record
    return Record(sent.topic, sent.partition, 0, row.key, row.value, row.headers, NOW)


async def test_its_verdict_is_proven_where_keys_are_set() -> None:
    """The cases' decoder takes it by its proof, and refuses the same record without it."""
    clock = ManualClock(NOW)
    voice = Voice(store_of("grader", "reviewer"), "grader", "grader", clock)
    record = await verdict_record(voice)
    ears = Ears(ring_of({"grader": ("grader",), "reviewer": ("reviewer",)}))
    assert decode(record, 4, ears).data.event_key() == "q1"
    bare = tuple(pair for pair in record.headers if not pair[0].startswith("ratchet-p"))
    with pytest.raises(Refused) as caught:
        decode(Record(record.topic, record.partition, 0, record.key, record.value, bare, NOW), 4, ears)
    assert caught.value.kind == "unproven"


async def test_without_any_key_it_speaks_unproven_and_without_its_own_it_says_what_to_do() -> None:
    """As everything is taken unproven then; where others have keys and the grader none, the review says how to add one."""
    clock = ManualClock(NOW)
    record = await verdict_record(Voice(Store(), "grader", "grader", clock))
    assert not [name for name, _ in record.headers if name.startswith("ratchet-p")]
    with pytest.raises(Refused, match=r"principal add grader --role grader"):
        await verdict_record(Voice(store_of("reviewer"), "grader", "grader", clock))


async def test_a_key_is_looked_up_again_after_a_while() -> None:
    """Not for each verdict, and a new key counts soon without a restart."""
    clock, store = ManualClock(NOW), store_of("grader")
    voice = Voice(store, "grader", "grader", clock)
    await voice.prover()
    asked = store.asked
    await voice.prover()
    assert store.asked == asked
    await clock.advance(5.0)
    await voice.prover()
    assert store.asked > asked


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ({"kind": "person", "by": "model.judge"}, "wrong-role"),
        ({"kind": "reference", "by": "grader", "corrected": "x"}, "wrong-role"),
        ({"kind": "model", "by": "ann"}, "wrong-principal"),
        ({"kind": "model", "by": "grader"}, "wrong-principal"),
    ],
)
def test_who_speaks_for_judge_models_is_never_taken_for_a_person(said: dict[str, Any], kind: str) -> None:
    """Whoever holds the grader's key can forge judge models, and nobody's word that releases an answer."""
    given = VerdictGiven.model_validate({"at_ms": NOW, "route": "r", "request_id": "q", **said})
    row = credential("grader").prove(
        codec.encode(given, event_id="e1", source="x", traceparent=ids.trace_parent(None, "e1")), at_ms=NOW
    )
    record = Record("ratchet.verdicts", partition_of(row.key, 4), 0, row.key, row.value, row.headers, NOW)
    with pytest.raises(Refused) as caught:
        decode(record, 4, Ears(ring_of({"grader": ("grader",)})))
    assert caught.value.kind == kind


async def test_a_judge_model_that_may_not_see_the_texts_is_not_asked() -> None:
    """The arms that may are those of the decision: one that is named as judge later is no way around the gate."""
    engine = Asked("1", "2")
    with pytest.raises(Refused, match="may not see this text") as refused:
        await grader(engine)(review("yes", "no", judges=("old",)))
    assert refused.value.kind == "confined"
    assert engine.calls == []
    assert len(await grader(engine)(review("yes", "no", judges=("judge", "old")))) == 1
