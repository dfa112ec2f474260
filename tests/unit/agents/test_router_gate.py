"""The gate in front of the router: what is denied goes nowhere, what goes on is masked, and only where it may."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from gatekeeping import (
    CARD,
    CHOSEN,
    HEALTH,
    MAIL,
    NAMES,
    NOW,
    SECRET,
    TENANT,
    Ward,
    event_of,
    no_flows,
    opened,
    policies,
    request,
    route,
)
from gates import finding
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.router import decide, gate
from agents.router.observed import Observed, Policies
from agents.rules.gate_standard import BOOK
from infra.detect import detect, named
from schemas.compliance import PolicyGate
from schemas.events import AnswerRefused, DecisionRouted, ResultCompleted, ScoreAssigned, ShadowOrdered
from schemas.findings import Finding
from schemas.gate import Exemption, Scan
from schemas.payload import Payload
from schemas.policies import PolicyFleet, PolicyRoute


def refused(made: Sequence[Payload]) -> AnswerRefused:
    [one] = made
    assert isinstance(one, AnswerRefused), one
    assert one.kind == "gate"
    assert one.gate is not None
    assert one.gate.action == "deny"
    return one


async def test_what_is_found_is_replaced_everywhere_behind_the_gate() -> None:
    """Decision and shadows hold placeholders, the values stand in the sealed map alone, and what was found makes it personal."""
    ward = Ward()
    made = await ward.ask(f"Charge {CARD}, then write to {MAIL}.", subject="p-1")
    decision = made[0]
    assert isinstance(decision, DecisionRouted)
    assert decision.messages[0].content == "Charge [CARD_1], then write to [EMAIL_1]."
    assert any(isinstance(one, ShadowOrdered) for one in made)
    for one in made[1:]:
        assert isinstance(one, ShadowOrdered)
        assert one.messages == decision.messages
        assert one.subject == decision.subject
    assert opened(decision) == {"[CARD_1]": CARD, "[EMAIL_1]": MAIL}
    assert decision.routing is not None
    assert decision.routing.sensitivity == "personal"
    assert decision.routing.features == ""
    assert decision.gate is not None
    assert (decision.gate.action, decision.gate.found) == ("mask", {"card": 1, "email": 1})
    assert decision.gate.registered
    assert (decision.gate.purpose, decision.gate.legal_basis, decision.gate.origin) == ("care", "consent", "eu")
    assert (decision.gate.rules_digest, decision.gate.tenant_version) == (BOOK.digest, TENANT.version)
    assert [(ref.kind, ref.name) for ref in decision.policies if ref.kind == "gate"] == [("gate", "clinic")]


async def test_a_clean_text_goes_on_as_it_is() -> None:
    """No map, no raised sensitivity, every arm that a flow leads to; the one that no flow leads to is masked by the gate."""
    decision = await Ward().decided("How do I reset my password?")
    assert decision.messages[0].content == "How do I reset my password?"
    assert decision.mask_map == ""
    assert decision.gate is not None
    assert decision.gate.action == "allow"
    assert decision.routing is not None
    assert decision.routing.sensitivity == "internal"
    assert {row.arm for row in decision.arms if "gate" in row.masks} == {"nowhere"}
    assert (decision.second_arm, decision.shadows) == ("abroad", ("abroad",))
    assert {"abroad", "own"} <= {*decision.chain}
    assert decision.hedges


async def test_what_a_sender_types_like_a_placeholder_is_a_value_itself() -> None:
    """Nobody types a placeholder and gets the value of another one back."""
    decision = await Ward().decided(f"[EMAIL_1] and {MAIL}")
    assert decision.messages[0].content == "[LITERAL_1] and [EMAIL_1]"
    assert opened(decision) == {"[LITERAL_1]": "[EMAIL_1]", "[EMAIL_1]": MAIL}


async def test_the_same_value_has_one_number_in_all_turns() -> None:
    """Every message is scanned, whoever wrote it."""
    decision = await Ward().decided(f"I am {MAIL}", f"Hello {MAIL}", f"Call 415-555-2671, not {MAIL}")
    assert [one.content for one in decision.messages] == [
        "I am [EMAIL_1]",
        "Hello [EMAIL_1]",
        "Call [PHONE_1], not [EMAIL_1]",
    ]


@pytest.mark.parametrize(
    "trick",
    [
        "4\u200b111 1111\u2060 1111 11\ufeff11",
        "４１１１ １１１１ １１１１ １１１１",
        "4111 1111 1111 111l",
        "𝟒𝟏𝟏𝟏 𝟏𝟏𝟏𝟏 𝟏𝟏𝟏𝟏 𝟏𝟏𝟏𝟏",
        "4111‐1111–1111−1111",
        "٤١١١ ١١١١ ١١١١ ١١١١",
        "4\u00ad111 1111 1111 1111",
    ],
    ids=["zero width", "full width", "look-alike letter", "mathematical", "dashes", "another script", "soft hyphen"],
)
async def test_no_trick_of_unicode_gets_a_card_through(trick: str) -> None:
    """The number is found whatever it is written with, goes into the map as it was typed, and no digit of it goes on."""
    decision = await Ward().decided(f"my card {trick} is lost")
    assert decision.messages[0].content == "my card [CARD_1] is lost"
    assert opened(decision) == {"[CARD_1]": trick}


async def test_confined_means_private_arms_for_everything() -> None:
    """Arm, chain, shadows, second arm, hedges and emergency arm: all of them private where a text may only go there."""
    made = await Ward(*policies(rollout_bp=10_000)).ask(HEALTH)
    decision = made[0]
    assert isinstance(decision, DecisionRouted)
    assert decision.gate is not None
    assert decision.gate.action == "confine"
    assert decision.gate.exemptions == ("consent-health",)
    assert decision.arm == "own"
    assert (decision.chain, decision.shadows, decision.second_arm, decision.hedges) == ((), (), None, ())
    assert len(made) == 1
    assert {row.arm for row in decision.arms if "gate" in row.masks} == set(NAMES) - {"own"}
    assert all(row.propensity == 0 for row in decision.arms if row.masks)


async def test_a_private_arm_that_is_away_is_waited_for() -> None:
    """What is confined goes nowhere else meanwhile, the emergency arm included; no mask of the gate is taken back."""
    live = policies(made=route())
    less = live[2].model_copy(update={"arms": tuple(row for row in live[2].arms if row.arm != "own")})  # type: ignore[attr-defined]
    ward = Ward(*live[:2], less, *live[3:])
    with pytest.raises(decide.Unavailable, match="'own' is masked: not_live"):
        await ward.ask(HEALTH)


@pytest.mark.parametrize(
    ("change", "field", "rule"),
    [
        ({"purpose": None}, "purpose", "gate-purpose"),
        ({"basis": None}, "legal_basis", "gate-basis"),
        ({"notice": None}, "notice", "gdpr-5"),
        ({"flows": ()}, "origin", "gdpr-44"),
        ({"origin": None}, "origin", "gdpr-44"),
        ({"purpose": "marketing"}, "purpose", "gdpr-5"),
        ({"basis": "public_task"}, "legal_basis", "gdpr-6"),
    ],
)
async def test_what_is_not_configured_is_refused(change: dict[str, Any], field: str, rule: str) -> None:
    """Purpose, basis, notice, origin: each that neither request nor tenant names denies, and names the field."""
    told = refused(await Ward(*policies(TENANT.model_copy(update=change))).ask("hi"))
    assert told.field == field
    assert told.gate is not None
    assert rule in told.gate.rules
    assert told.accepted
    assert rule in told.reason


async def test_a_tenant_that_nobody_configured_is_refused() -> None:
    """Nothing is permitted that nobody permitted."""
    told = refused(await Ward(*policies(None)).ask("hi"))
    assert (told.field, told.reason) == ("tenant", told.reason)
    assert told.gate is not None
    assert "gate-tenant" in told.gate.rules
    assert told.gate.tenant_version == 0


async def test_the_configuration_of_another_tenant_is_none() -> None:
    """A policy under the tenant's key that speaks of another tenant permits nothing."""
    stranger = TENANT.model_copy(update={"tenant": "bank"})
    row = PolicyGate(at_ms=NOW, version=1, tenant="clinic", settings=stranger)
    told = refused(await Ward(*policies(None), row).ask("hi"))
    assert told.gate is not None
    assert "gate-tenant" in told.gate.rules


async def test_the_requests_own_words_count_before_the_tenants() -> None:
    """A request may name purpose, basis, notice and origin, and data classes that nothing detects."""
    ward = Ward()
    decision = await ward.decided("hi", purpose="care", legal_basis="contract", notice="notice-2", origin="eu")
    assert decision.gate is not None
    assert decision.gate.legal_basis == "contract"
    assert refused(await ward.ask("hi", purpose="marketing")).field == "purpose"
    assert refused(await ward.ask("hi", notice="notice-9")).field == "notice"
    assert refused(await ward.ask("hi", origin="mars")).field == "origin"
    assert refused(await ward.ask("hi", classes=("religion",))).field == "classes"
    told = refused(await ward.ask("hi", purpose="canary-purpose"))
    assert "canary" not in told.model_dump_json()


def slow(ward_clock: list[float]) -> Any:
    def found(text: str) -> Sequence[Finding]:
        ward_clock[0] += 0.0201
        return ()

    return found


def breaks(text: str) -> Sequence[Finding]:
    raise RuntimeError(f"cannot read {text}")


def miscounts(text: str) -> Sequence[Finding]:
    return [finding("email", 0, 10_000)]


async def test_whatever_fails_denies() -> None:
    """A detector that raises, one that miscounts, one that takes more than 20 ms, a text that is too long, no gatekeeper at all."""
    late = [0.0]
    for ward, rule in (
        (Ward(found=breaks), "gate-detector"),
        (Ward(found=miscounts), "gate-detector"),
        (Ward(found=slow(late), monotonic=lambda: late[0]), "gate-time"),
        (Ward(keeps=False), "gate-detector"),
    ):
        told = refused(await ward.ask("hi"))
        assert told.gate is not None
        assert rule in told.gate.rules
        assert (told.field, told.gate.found) == ("messages", {})
        assert "new id" in told.accepted
    told = refused(await Ward(*policies(made=route(max_chars=500_000))).ask("a" * 50_001))
    assert told.gate is not None
    assert {rule for rule in told.gate.rules if not rule.startswith("gdpr-44")} == {"soc2-pi1.2"}


async def test_off_means_that_nobody_looks() -> None:
    """A route may say that it has no gate: then nothing is scanned, replaced or refused by it."""

    def never(text: str) -> Sequence[Finding]:
        raise AssertionError("a route without a gate is scanned")

    decision = await Ward(*policies(None, route(compliance="off")), found=never).decided(f"my card {CARD}")
    assert decision.messages[0].content == f"my card {CARD}"
    assert (decision.gate, decision.mask_map) == (None, "")


async def test_an_exemption_lets_through_what_it_names() -> None:
    """Under its id, for its kinds; the rest is replaced as ever."""
    exempt = Exemption(id="mail-ok", rule="soc2-p6.1", then="allow", kinds=("email",), until_ms=NOW + 1)
    plain = TENANT.model_copy(update={"hipaa": False, "baa": None, "exemptions": (exempt,)})
    decision = await Ward(*policies(plain)).decided(f"{MAIL} and {CARD}")
    assert decision.messages[0].content == f"{MAIL} and [CARD_1]"
    assert decision.gate is not None
    assert decision.gate.exemptions == ("mail-ok",)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"request_id": "card-4111111111111111"}, "request_id"),
        ({"session_id": "4111111111111111"}, "session_id"),
        ({"subject": "DE89370400440532013000"}, "subject"),
        ({"notice": "4111-1111-1111-1111"}, "notice"),
        ({"needs": ("vision", MAIL)}, "needs"),
        ({"needs": (SECRET,)}, "needs"),
    ],
)
async def test_an_id_is_no_place_for_a_person_or_an_account(changes: dict[str, Any], field: str) -> None:
    """The field is named, what it holds is repeated nowhere: not by the answer, not in the store."""
    ward = Ward()
    told = refused(await ward.ask("hi", **changes))
    assert told.field == field
    assert told.gate is not None
    assert "gate-id" in told.gate.rules
    for value in ("4111", "DE8937", MAIL, SECRET):
        assert value not in told.model_dump_json()
        assert value not in ward.held()


def test_usual_ids_pass() -> None:
    """UUIDs, numbers, slugs: what ids are made of is not taken for somebody's."""
    names = [f"req-{number:012d}" for number in range(300)]
    names += [f"{number:08x}-1f2a-4c3b-9d4e-{number * 7919:012x}" for number in range(300)]
    names += [f"1700000{number:06d}" for number in range(300)]
    bad = [name for name in names if named(name)]
    assert bad == []


@pytest.mark.parametrize("text", [f"key {SECRET}", f"{HEALTH} {SECRET} {CARD}"])
async def test_a_denied_text_is_nowhere(text: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in what is answered nor in the store nor in a log line; the answer names rules, and the subject's pseudonym."""
    ward = Ward()
    with caplog.at_level(logging.DEBUG):
        told = refused(await ward.ask(text, subject="p-1"))
    assert told.subject is not None
    assert len(told.subject) == 32
    assert "soc2-cc6.7" in told.reason
    assert told.accepted == "a text in which no rule finds what it denies (docs/gate.md)"
    for word in (SECRET, CARD, "diagnosed", "insulin"):
        for place in (told.model_dump_json(), ward.held(), caplog.text):
            assert word not in place


async def test_the_store_sees_masked_texts_only() -> None:
    """Neither ids seen, nor answers kept, nor questions for those like them hold a value that was replaced."""
    ward = Ward()
    await ward.ask(f"How do I pay with {CARD}?", session_id="s-1")
    await ward.ask("How do I pay with a card?", session_id="s-1")
    assert CARD not in ward.held()
    assert MAIL not in ward.held()
    assert "pay with a card" in ward.held()


async def test_kept_answers_belong_to_the_rules_they_were_made_under() -> None:
    """Another version of the tenant's configuration reads none of them; of what was found in a request nothing is kept."""
    first = await Ward().decided("hello there")
    assert first.cache_key
    again = await Ward().decided("hello there")
    assert again.cache_key == first.cache_key
    newer = await Ward(*policies(TENANT.model_copy(update={"version": 4}))).decided("hello there")
    assert newer.cache_key != first.cache_key
    assert (await Ward().decided(f"hello {MAIL}")).cache_key == ""


async def test_the_same_request_gives_the_same_bytes() -> None:
    """Decided again, the decision is the same, its sealed map included."""
    one, two = [await Ward().decided(f"{MAIL} {CARD}", request_id="r1") for _ in range(2)]
    assert one == two
    assert one.mask_map


async def test_nothing_is_permitted_by_dating_back() -> None:
    """An exemption counts at the router's time, whatever time the request says."""
    ended = tuple(row.model_copy(update={"until_ms": NOW - 1}) for row in TENANT.exemptions)
    ward = Ward(*policies(TENANT.model_copy(update={"exemptions": ended})))
    assert "gdpr-9" in refused(await ward.ask(HEALTH, at_ms=NOW - 86_400_000)).reason


async def test_refusals_behind_the_gate_say_what_it_said() -> None:
    """A request that passed the gate and finds no arm is refused as ever, with the gate's masks among the others."""
    ward = Ward()
    [told] = await ward.ask("hi", needs=("vision",))
    assert isinstance(told, AnswerRefused)
    assert (told.kind, told.field) == ("no-arm", "route")
    assert told.gate is not None
    assert told.gate.action == "allow"
    assert told.masks["nowhere"] == ("gate", "capability")


async def test_no_flow_denies_by_name() -> None:
    """Flows that lead elsewhere leave no arm."""
    told = refused(await Ward(*policies(no_flows())).ask("hi"))
    assert told.gate is not None
    assert {"gate-no-arm", "gdpr-44"} <= {*told.gate.rules}
    assert told.gate.registered is False or told.gate.rules


def test_decide_does_not_go_round_the_gate() -> None:
    """A request of a route with a gate that nobody asked is not decided on."""
    known = policies()
    rows = [event_of(row, "ratchet.policies") for row in known[:2]]
    assert isinstance(rows[0].data, PolicyRoute)
    assert isinstance(rows[1].data, PolicyFleet)
    with pytest.raises(AssertionError, match="gate"):
        decide.decide(event_of(request("hi")), Policies(rows[0], rows[1]), Observed(NOW, "d"))


def score(decision: DecisionRouted) -> ScoreAssigned:
    told: dict[str, Any] = {
        "tenant": "clinic", "at_ms": NOW, "route": "ward", "request_id": decision.request_id, "request_partition": 2,
        "request_offset": 1, "request_at_ms": NOW, "arm": "near", "shadow": False, "decision_id": "d1", "result_id": "res",
        "action": "escalate", "score": 0.1, "z": 0.0, "scorer": "s", "threshold": 0.9, "certified": False, "review": False,
        "sampled": False, "label_propensity": 0.0, "gated": False, "assigned_at_ms": NOW, "window_end_ms": NOW + 10**6,
        "result_partition": 2, "result_offset": 5,
    }  # fmt: skip
    return ScoreAssigned.model_validate(told)


def result(decision: DecisionRouted) -> ResultCompleted:
    told: dict[str, Any] = {
        "tenant": "clinic", "at_ms": NOW, "route": "ward", "request_id": decision.request_id, "request_partition": 2,
        "request_offset": 1, "arm": "near", "shadow": False, "final": True, "decision_id": "d1", "assigned_at_ms": NOW,
        "window_end_ms": NOW + 10**6, "latency_ms": 1, "text": "Ask [EMAIL_1].", "tokens_in": 3, "tokens_out": 2, "ttft_ms": 1,
        "engine_ms": 1, "finish_reason": "stop", "logprobs": (), "engine": "e", "mask_map": decision.mask_map,
    }  # fmt: skip
    return ResultCompleted.model_validate(told)


async def second(ward: Ward, decision: DecisionRouted) -> DecisionRouted:
    ward.again.rows[event_of(result(decision), "ratchet.results", 5).place] = event_of(result(decision), "r").record
    [made] = await ward.take(event_of(score(decision), "ratchet.scores", 9))
    assert isinstance(made, DecisionRouted)
    return made


async def test_the_second_decision_passes_the_gate_too() -> None:
    """Masked alike, its arms among those that the gate leaves."""
    cascade = {"below": 0.5, "arms": ("near", "nowhere", "abroad")}
    made = route(routing={"arms": CHOSEN, "cascade": cascade})
    ward = Ward(*policies(made=made))
    first = await ward.decided(f"write to {MAIL}", subject="p-1")
    again = await second(ward, first)
    assert (again.attempt, again.arm, again.chain) == (2, "abroad", ())
    assert again.messages == first.messages
    assert again.gate == first.gate
    assert again.subject == first.subject
    assert opened(again) == {"[EMAIL_1]": MAIL}


async def test_a_second_decision_that_is_denied_keeps_the_first_answer() -> None:
    """What was permitted then and is not now goes to no model; the kept answer has the placeholders that it was written with."""
    cascade = {"below": 0.5, "arms": ("near", "own")}
    made = route(routing={"arms": CHOSEN, "cascade": cascade})
    first = await Ward(*policies(made=made)).decided(f"write to {MAIL}", request_id="r1")
    later = Ward(*policies(no_flows(), made))
    await later.ask(f"write to {MAIL}", request_id="r1")
    again = await second(later, first)
    assert again.gate is not None
    assert again.gate.action == "deny"
    assert again.cached is not None
    assert again.cached.kind == "kept"
    assert again.chain == ()
    assert again.mask_map == first.mask_map
    assert MAIL not in again.model_dump_json()
    assert [one.content for one in again.messages] == [gate.GONE]


async def test_a_second_scan_that_fails_is_tried_again() -> None:
    """A text that cannot be scanned now is waited for: nothing is decided meanwhile."""
    first = await Ward().decided(f"write to {MAIL}", request_id="r1")
    ward = Ward(found=breaks)
    await ward.ask(f"write to {MAIL}", request_id="r1")
    with pytest.raises(decide.Unavailable, match="scanned again"):
        await second(ward, first)


VALUES = st.sampled_from(
    [CARD, "5500-0000-0000-0004", MAIL, "bob@test.io", SECRET, "DE89 3704 0044 0532 0130 00", "219-09-9999"]
)
WORDS = st.text(st.sampled_from("abc é[]_1.,\n\u200b"), max_size=8)


@settings(deadline=None, max_examples=60)
@given(parts=st.lists(st.tuples(WORDS, VALUES), min_size=1, max_size=4), turns=st.integers(1, 3))
def test_no_emit_contains_a_found_value(parts: list[tuple[str, str]], turns: int) -> None:
    """Whatever is in the texts: what detectors find for a rule that replaces or denies stands in no emit of the router."""
    texts = ["x " + " ".join(f"{word} {value} " for word, value in parts) for _ in range(turns)]
    made = asyncio.run(Ward().ask(*texts))
    values = {text[one.start : one.end] for text in texts for one in detect(text) if one.kind not in ("date", "domain")}
    assert made
    for payload in made:
        told = payload.model_dump_json()
        for value in values:
            assert value not in told
            assert value not in repr(payload)


def test_a_scan_of_other_texts_has_failed() -> None:
    """As many findings as texts, ids included, or the request is denied."""
    known = policies()
    held = Policies(event_of(known[0], "p"), event_of(known[1], "p"), gate=event_of(known[-1], "p"))
    for findings in ((), ((),), ((), (), ())):
        told = gate.gated(request("hi"), held, Scan(findings, 2, 5), NOW, "r1")
        assert told.denied is not None
        assert told.seen.scan == "failed"
    assert gate.gated(request("hi"), held, Scan(((), ()), 2, 5), NOW, "r1").denied is None
