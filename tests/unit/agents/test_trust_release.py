"""What of an answer goes out: what the gate lets out, with values back in their places, marked; else nothing."""

import logging
import time
from collections.abc import Sequence
from typing import Any

import pytest
from answering import KEYS, NOW, SECRET, SUBJECT, VALUES, clinic, event_of, result, route, sealed, settled, trust
from gatekeeping import Table

from agents.rules import ai_mark, answers
from agents.rules.masking import MaskMap
from infra.clock import ManualClock
from infra.sealing import GateKeys
from infra.store import MemoryStore
from schemas.errors import Unavailable
from schemas.events import AnswerReleased, AnswerWithheld, ScoreAssigned
from schemas.findings import Finding, Kind
from schemas.payload import Payload
from streams.shapes import DeadLetter, Emit

OWN = "Write to otto@example.com, or ask [EMAIL_1]."


async def given(told: Payload, *policies: Payload, **more: Any) -> list[Any]:
    emits = await trust(Table(*policies), ManualClock(NOW), **more)(event_of(told))
    return [emit.payload for emit in emits if isinstance(emit, Emit)]


async def released(told: Payload, *policies: Payload, **more: Any) -> AnswerReleased:
    found = (await given(told, *(policies or (route(), clinic())), **more))[-1]
    assert isinstance(found, AnswerReleased)
    return found


async def withheld(told: Payload, *policies: Payload, **more: Any) -> AnswerWithheld:
    found = (await given(told, *(policies or (route(), clinic())), **more))[-1]
    assert isinstance(found, AnswerWithheld)
    assert found.reason == "gate"
    assert found.gate is not None
    assert found.gate.action == "deny"
    assert found.subject == SUBJECT
    return found


def origins(**changes: Any) -> ai_mark.Origins:
    told: dict[str, Any] = {
        "tenant": "clinic",
        "request_id": "r1",
        "result_id": "x1",
        "arm": "a",
        "adapter": "sha256:7",
        "by": "model",
    }
    told |= {"review": "none", **changes}
    return ai_mark.Origins(**told)


def holds(answer: AnswerReleased, expected: ai_mark.Origins) -> bool:
    assert answer.marked
    assert answer.mark is not None
    found = ai_mark.Mark(answer.mark.statement, answer.mark.binding)
    return ai_mark.holds(found, expected, answer.text, KEYS.mark_key(answer.tenant))


@pytest.mark.parametrize("make", [result, settled])
async def test_values_come_back_and_the_models_own_are_gone(make: Any) -> None:
    """What the request held stands in its places again; an address that the model wrote itself does not go out."""
    answer = await released(make(OWN, mask_map=sealed()))
    assert answer.text == "Write to [EMAIL], or ask anna@example.org."
    assert answer.gate is not None
    assert (answer.gate.action, answer.gate.masked, answer.gate.found["email"]) == ("mask", ("email",), 1)
    assert (answer.gate.tenant_version, answer.gate.scan) == (3, "whole")
    assert answer.subject == SUBJECT


async def test_without_placeholders_nothing_changes() -> None:
    """A clean answer of a request of which nothing was replaced goes out as it is, with what the gate said."""
    answer = await released(result("Forty-two. [EMAIL_1] stays."))
    assert answer.text == "Forty-two. [EMAIL_1] stays."
    assert answer.gate is not None
    assert answer.gate.action == "allow"
    assert answer.gate.rules_digest.startswith("sha256:")


@pytest.mark.parametrize("make", [result, settled])
async def test_a_denied_answer_says_nothing_of_itself(make: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the events nor a log line hold the secret that the model wrote; the rule is named, in words."""
    with caplog.at_level(logging.DEBUG):
        made = await given(make(f"the key is {SECRET}"), route(), clinic())
    answer = made[-1]
    assert isinstance(answer, AnswerWithheld)
    assert answer.reason == "gate"
    assert answer.gate is not None
    assert answer.gate.rules == ("soc2-cc6.7",)
    assert "soc2-cc6.7" in answer.detail
    assert SECRET not in "".join(row.model_dump_json() for row in made) + caplog.text


async def test_a_withheld_answer_is_scored_shown_to_nobody_and_not_kept() -> None:
    """Its score let it out and says that it was withheld; nobody reviews it, and no request is answered from it."""
    store = MemoryStore()
    told = result(f"the key is {SECRET}", cache_key="answer:1")
    score, answer = await given(told, route(routing={"cache": {"exact": True, "ttl_s": 100}}), clinic(), store=store)
    assert isinstance(score, ScoreAssigned)
    assert (score.action, score.withheld, score.review, score.sampled, score.label_propensity) == (
        "release", True, False, False, 0.0,
    )  # fmt: skip
    assert isinstance(answer, AnswerWithheld)
    assert await store.get("answer:1") is None


async def test_what_is_kept_is_masked() -> None:
    """The store holds the answer with its placeholders, and no value."""
    store = MemoryStore()
    told = result("ask [EMAIL_1]", cache_key="answer:1", mask_map=sealed())
    answer = await released(told, route(routing={"cache": {"exact": True, "ttl_s": 100}}), clinic(), store=store)
    assert answer.text == "ask anna@example.org"
    entry = await store.get("answer:1")
    assert entry is not None
    assert b"anna" not in entry
    found = answers.decode(entry, "answer:1")
    assert found is not None
    assert found.text == "ask [EMAIL_1]"


async def test_a_cached_answer_has_the_values_of_this_request() -> None:
    """The same text to two people: each has the own value back."""
    texts: list[str] = []
    for name in ("anna", "otto"):
        known = MaskMap({"[EMAIL_1]": f"{name}@example.org"})
        told = result("ask [EMAIL_1]", source="cache", request_id=name, mask_map=sealed(name, known))
        texts.append((await released(told)).text)
    assert texts == ["ask anna@example.org", "ask otto@example.org"]


def broken(text: str) -> Sequence[Finding]:
    raise RuntimeError(f"cannot read {text}")


def slow(text: str) -> Sequence[Finding]:
    time.sleep(0.03)
    return ()


def miscounting(text: str) -> Sequence[Finding]:
    return [Finding(Kind.EMAIL, 0, len(text) + 5, "test", 1.0)]


@pytest.mark.parametrize("size", [0, 5_000])
@pytest.mark.parametrize(("look", "rule"), [(broken, "gate-detector"), (miscounting, "gate-detector")])
async def test_a_detector_that_fails_denies(look: Any, rule: str, size: int, caplog: pytest.LogCaptureFixture) -> None:
    """One that raises, or finds outside the text, inline or on a thread: nothing goes out, and no log line holds the text."""
    answer = await withheld(result("canary-7731 " + "x" * size), look=look)
    assert answer.gate is not None
    assert rule in answer.gate.rules
    assert answer.gate.scan == "failed"
    assert "canary" not in caplog.text + answer.model_dump_json()


async def test_a_detector_that_takes_too_long_denies() -> None:
    """More than the rules' 20 ms: not known to be clean."""
    answer = await withheld(result("hello"), look=slow, monotonic=time.monotonic)
    assert answer.gate is not None
    assert (answer.gate.rules, answer.gate.scan) == (("gate-time",), "late")


async def test_what_is_not_known_denies() -> None:
    """No configuration for the tenant; a route that nobody knows; a text that is too long."""
    for told, policies, rule in (
        (result("hello"), (route(),), "gate-tenant"),
        (settled("hello"), (route().model_copy(update={"route": "other"}),), "gate-tenant"),
        (result("x " * 25_001), (route(), clinic()), "soc2-pi1.2"),
    ):
        answer = await withheld(told, *policies)
        assert answer.gate is not None
        assert rule in answer.gate.rules


@pytest.mark.parametrize("compliance", ["standard", "off"])
@pytest.mark.parametrize(
    "mask_map", [sealed("r2"), sealed(tenant="other"), "garbage", sealed()[:-8] + "AAAAAAA=",
                 GateKeys(bytes(32)).seal_map("clinic", "r1", "x0", VALUES)]
)  # fmt: skip
async def test_a_map_that_does_not_open_withholds(mask_map: str, compliance: str) -> None:
    """Another request's, another tenant's, another key's, damaged: nothing goes out, with a gate or without."""
    answer = await withheld(result("ask [EMAIL_1]", mask_map=mask_map), route(compliance=compliance), clinic())
    assert answer.gate is not None
    assert "gate-map" in answer.gate.rules
    assert answer.detail == "gate-map: What placeholders stand for could not be opened."


LATER = NOW - 1000
ROTATED = GateKeys(bytes(range(32)), {LATER: bytes(range(32, 64))})
UNKNOWN = ROTATED.seal_map("clinic", "r1", "x0", VALUES, LATER)


async def test_after_a_rotation_both_keys_maps_open_and_the_new_one_marks() -> None:
    """What was sealed before goes out as what is sealed now does."""
    for mask_map in (sealed(), UNKNOWN):
        answer = await released(result("ask [EMAIL_1]", mask_map=mask_map), keys=ROTATED)
        assert answer.text == "ask anna@example.org"
        assert answer.mark is not None
        assert answer.mark.binding.startswith(f"{LATER}:")
        found = ai_mark.Mark(answer.mark.statement, answer.mark.binding)
        assert ai_mark.holds(found, origins(), answer.text, ROTATED.mark_key("clinic", LATER))
        assert not ai_mark.holds(found, origins(), answer.text, ROTATED.mark_key("clinic"))


@pytest.mark.parametrize("compliance", ["standard", "off"])
async def test_an_unknown_or_retired_key_withholds_and_says_so(compliance: str) -> None:
    """As any map that does not open; the key is named by its time, and nothing of what it sealed."""
    retired = GateKeys(bytes(32), retired=[LATER])
    for keys, why in ((KEYS, f"The gate has no key-{LATER}."), (retired, f"The gate's key-{LATER} was retired.")):
        answer = await withheld(
            result("ask [EMAIL_1]", mask_map=UNKNOWN), route(compliance=compliance), clinic(), keys=keys
        )
        assert answer.gate is not None
        assert answer.gate.rules[-1:] == ("gate-map",)
        assert answer.detail == f"gate-map: What placeholders stand for could not be opened. {why}"


async def test_a_key_is_asked_for_before_an_answer_is_withheld() -> None:
    """A router may have learned of it first: trust learns it, and the answer goes out. Where nothing was replaced nobody is asked."""
    held = KEYS
    asked: list[str] = []

    class Ring:
        def key_at(self, at_ms: int) -> int:
            return held.key_at(at_ms)

        def mark_key(self, tenant: str, key_id: int) -> bytes:
            return held.mark_key(tenant, key_id)

        def open_map(self, tenant: str, request_id: str, sealed: str) -> bytes:
            return held.open_map(tenant, request_id, sealed)

    async def learn(sealed: str) -> None:
        nonlocal held
        asked.append(sealed)
        held = ROTATED

    await released(result("hello"), keys=Ring(), learn=learn)
    assert asked == []
    answer = await released(result("ask [EMAIL_1]", mask_map=UNKNOWN), keys=Ring(), learn=learn)
    assert (answer.text, asked) == ("ask anna@example.org", [UNKNOWN])


async def test_while_nobody_says_whether_there_is_the_key_the_answer_waits() -> None:
    """It is neither withheld nor lost: tried again, and at last a dead letter that can be sent back."""

    async def away(sealed: str) -> None:
        raise Unavailable("Vault does not serve: it is sealed")

    shell = trust(Table(route(), clinic()), ManualClock(NOW), learn=away)
    event = event_of(result("ask [EMAIL_1]", mask_map=UNKNOWN))
    with pytest.raises(Unavailable) as fault:
        await shell(event)
    (letter,) = shell.expired(event, fault.value)
    assert isinstance(letter, DeadLetter)
    assert (letter.record, letter.kind) == (event.record, "unavailable")


async def test_a_route_without_a_gate_marks_and_puts_back_and_does_not_look() -> None:
    """Compliance off: no detector runs, nothing is redacted, and no tenant has to be known."""
    answer = await released(result(OWN, mask_map=sealed()), route(compliance="off"), look=broken)
    assert answer.text == "Write to otto@example.com, or ask anna@example.org."
    assert answer.gate is None
    assert holds(answer, origins())


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (result("ask [EMAIL_1]", mask_map=sealed()), {}),
        (settled("ask [EMAIL_1]", mask_map=sealed()), {"result_id": "x9", "review": "approved"}),
        (settled("ask [EMAIL_1]", "failed", mask_map=sealed()), {"result_id": "x9"}),
        (
            settled("ask [EMAIL_1]", "corrected", mask_map=sealed(), result_id="", arm="", adapter=None),
            {"result_id": "", "arm": "", "adapter": None, "by": "person"},
        ),
    ],
)
async def test_every_answer_is_marked(told: Payload, expected: dict[str, Any]) -> None:
    """A machine's, an approved one, one that stands in, a person's: the mark says so, and holds for the text that went out alone."""
    answer = await released(told)
    assert answer.text == "ask anna@example.org"
    assert holds(answer, origins(**expected))
    assert not holds(answer.model_copy(update={"text": "ask [EMAIL_1]"}), origins(**expected))


async def test_what_is_settled_as_withheld_is_not_looked_at() -> None:
    """There is no text: the reason of the case stands."""
    (answer,) = await given(settled("", "window_ended", outcome="withheld"), route(), clinic(), look=broken)
    assert isinstance(answer, AnswerWithheld)
    assert (answer.reason, answer.gate, answer.subject) == ("window_ended", None, SUBJECT)


async def test_what_does_not_go_out_is_not_looked_at() -> None:
    """A shadow's answer, and one that waits for a person: no detector runs, no map is opened."""
    for told, policy in (
        (result("x", shadow=True, mask_map="garbage"), route()),
        (result("x"), route(release="gated")),
    ):
        (score,) = await given(told, policy, clinic(), look=broken)
        assert isinstance(score, ScoreAssigned)
        assert not score.withheld
        assert score.subject == SUBJECT


async def test_scores_and_settled_answers_name_the_tenants_configuration() -> None:
    """So that a replay decides by the same."""
    score = (await given(result("hello"), route(), clinic()))[0]
    answer = (await given(settled("hello"), route(), clinic()))[0]
    for told in (score, answer):
        assert [(ref.kind, ref.name, ref.version) for ref in told.policies] == [
            ("route", "ward", 1),
            ("gate", "clinic", 3),
        ]
