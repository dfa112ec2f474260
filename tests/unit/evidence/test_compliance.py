"""The compliance Fold: a tenant's configuration becomes the gate's policy; incidents, their states and clock."""

from dataclasses import replace
from typing import Any

import pytest
from complying import HOUR, NOW, WHOLE, assess, complying, configured, incidents, said, step, violation
from folding import Folding

from agents.evidence import compliance
from agents.evidence.compliance import Compliance
from schemas.compliance import IncidentEvent, Notice, PolicyGate
from schemas.payload import Payload
from streams.shapes import Change, DeadLetter, KeyState


def last(fold: Folding) -> Any:
    return incidents(fold)[-1]


# a tenant's configuration


def test_a_tenants_configuration_becomes_the_gates_policy() -> None:
    """Whole, under `gate/<tenant>`, with a version that counts here, whatever the sender wrote; by whom is said."""
    fold = complying()
    (first,) = fold.take(configured(purposes={"support": ("contract",)}, version=7))
    (second,) = fold.take(configured(hipaa=True))
    assert isinstance(first, PolicyGate)
    assert isinstance(second, PolicyGate)
    assert (first.event_key(), first.version, first.settings.version, first.author) == ("gate/bank", 1, 1, "ana")
    assert (second.version, second.settings.version, second.settings.purposes) == (2, 2, {})
    assert fold.take(configured("shop"))[0].event_key() == "gate/shop"


def test_a_command_is_done_once() -> None:
    """The same record sent again is the same command; the same settings by another command are a new version."""
    fold = complying()
    assert len(fold.take(configured(), "one")) == 1
    assert fold.take(configured(), "one") == []
    assert fold.take(configured(), "two")[0].version == 2
    assert len(fold.take(step("detect"), "three")) == 1
    assert fold.take(step("detect"), "three") == []


def test_a_command_about_another_tenant_is_a_dead_letter() -> None:
    """And nothing changes, neither for the one nor for the other."""
    fold = complying()
    assert fold.take(configured("bank", of="shop")) == []
    assert [letter.kind for letter in fold.letters] == ["wrong-tenant"]
    assert "accepted: bank" in fold.letters[0].message
    assert not fold.cells


@pytest.mark.parametrize("command", [configured(), step("detect")])
def test_a_command_under_another_key_is_a_dead_letter(command: Payload) -> None:
    """It may lie on another tenant's lane: nothing is done there."""
    misplaced = replace(complying().event(command), key="shop")
    change = Compliance().fold(KeyState("bank", None, {}, None), misplaced)
    (letter,) = change.emits
    assert isinstance(letter, DeadLetter)
    assert (letter.kind, letter.record) == ("wrong-key", misplaced.record)
    assert change == Change(emits=(letter,))


# states


def test_an_incident_goes_through_its_states() -> None:
    """Each step is one event with the whole incident in it: who, when, until when, what was assessed."""
    fold = complying()
    steps = (
        step("detect"),
        assess(risk=True),
        step("notify", notice=WHOLE),
        step("tell"),
        step("contain"),
        step("close"),
    )
    assert said(fold, *steps) == ["detected", "assessed", "notified", "told", "contained", "closed"]
    event = last(fold)
    assert (event.incident, event.tenant, event.by, event.at_ms) == ("breach", "bank", "ana", NOW)
    assert (event.aware_at_ms, event.notify_by_ms) == (NOW, NOW + 72 * HOUR)
    assert (event.personal_data, event.high_risk) == (True, True)
    assert incidents(fold)[2].missing == ()


def test_contained_before_it_was_notified_is_as_good() -> None:
    """Both have to be there before it is closed, in whichever order."""
    fold = complying()
    assert said(fold, step("detect"), assess(), step("contain"), step("close"), step("notify", notice=WHOLE), step("close")) == [
        "detected", "assessed", "contained", "refused", "notified", "closed",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("before", "command", "why", "state"),
    [
        ([], assess(), "unknown", ""),
        ([], step("detect", incident="v-7"), "taken", ""),
        ([step("detect")], step("detect"), "taken", "detected"),
        ([step("detect")], step("notify"), "order", "detected"),
        ([step("detect")], step("contain"), "order", "detected"),
        ([step("detect")], step("not_notifiable"), "order", "detected"),
        ([step("detect")], step("assess", personal_data=True), "answers", "detected"),
        ([step("detect"), assess()], step("tell"), "risk", "assessed"),
        ([step("detect"), assess()], step("not_notifiable"), "reason", "assessed"),
        ([step("detect"), assess(risk=True)], step("not_notifiable", reason="hm"), "risk", "assessed"),
        ([step("detect"), assess()], step("close"), "order", "assessed"),
        ([step("detect"), assess(), step("contain")], step("contain"), "again", "contained"),
        ([step("detect"), assess(), step("notify", notice=WHOLE)], step("notify", notice=WHOLE), "again", "notified"),
        ([step("detect"), assess(), step("notify")], step("not_notifiable", reason="x"), "order", "notified"),
        ([step("detect"), assess(), step("notify"), step("contain"), step("close")], assess(), "order", "closed"),
    ],
)  # fmt: skip
def test_a_step_that_is_not_allowed_changes_nothing(
    before: list[Payload], command: Payload, why: str, state: str
) -> None:
    """It is said, with the state and why; incidents and clock stay as they are."""
    fold = complying()
    said(fold, *before)
    cell = fold.cells.get("bank")
    entries, due = (dict(cell.entries), cell.due_ms) if cell else ({}, None)
    assert said(fold, command) == ["refused"]
    assert (last(fold).why, last(fold).state) == (why, state)
    assert (fold.cells["bank"].entries, fold.cells["bank"].due_ms) == (entries, due)


def test_where_no_personal_data_is_concerned_nobody_has_to_be_notified() -> None:
    """The clock runs until a person says so, and not after."""
    fold = complying()
    assert said(fold, step("detect"), assess(personal=False)) == ["detected", "assessed"]
    assert last(fold).notify_by_ms == NOW + 72 * HOUR
    assert fold.cells["bank"].due_ms is not None
    assert said(fold, step("not_notifiable")) == ["not_notifiable"]
    assert last(fold).notify_by_ms == 0
    assert fold.cells["bank"].due_ms is None
    assert said(fold, step("contain"), step("close")) == ["contained", "closed"]


def test_a_breach_that_is_unlikely_to_be_a_risk_need_not_be_notified_where_somebody_says_why() -> None:
    """GDPR Art. 33(1)."""
    fold = complying()
    assert said(fold, step("detect"), assess(), step("not_notifiable", reason="the disk was encrypted")) == [
        "detected", "assessed", "not_notifiable",
    ]  # fmt: skip


def test_a_later_assessment_takes_a_not_notifiable_back() -> None:
    """With the clock as it was: it ran all the time."""
    fold = complying()
    said(fold, step("detect"), assess(personal=False), step("not_notifiable"))
    assert said(fold, assess(NOW + 100 * HOUR), step("close", NOW + 100 * HOUR)) == ["assessed", "refused"]
    assert last(fold).notify_by_ms == NOW + 72 * HOUR
    assert [event.TYPE for event in fold.tick(NOW + 100 * HOUR)] == ["incident.overdue"]


# the notice


def test_a_notice_says_what_it_lacks_and_may_follow_in_phases() -> None:
    """It is taken all the same (Art. 33(4)); in time no reason of a delay is asked for."""
    fold = complying()
    said(fold, step("detect"), assess(), step("notify", notice=Notice(nature=True, contact=True)))
    assert last(fold).missing == ("consequences", "measures")
    assert said(fold, step("notify", NOW + 100 * HOUR, notice=Notice(consequences=True, measures=True))) == ["notified"]
    assert (last(fold).missing, last(fold).late) == ((), False)


def test_a_late_notice_is_taken_and_must_say_why() -> None:
    """Late by the broker's clock: what a sender claims does not date it back."""
    fold = complying()
    said(fold, step("detect"), assess())
    assert said(fold, step("notify", NOW + 72 * HOUR + 1, notice=WHOLE)) == ["notified"]
    assert (last(fold).late, last(fold).missing) == (True, ("delay_reason",))
    said(fold, step("notify", NOW + 90 * HOUR, notice=Notice(delay_reason=True)))
    assert (last(fold).late, last(fold).missing) == (True, ())


# the clock


def test_an_overdue_notice_is_said_once() -> None:
    """Not on the last millisecond, but after it; a notice that follows is late."""
    fold = complying()
    said(fold, step("detect"))
    end = NOW + 72 * HOUR
    assert fold.tick(end) == []
    (event,) = fold.tick(end + 1)
    assert (event.TYPE, event.by, event.incident, event.notify_by_ms) == ("incident.overdue", "", "breach", end)
    assert fold.tick(end + HOUR) == []
    said(fold, assess(end + HOUR), step("notify", end + HOUR, notice=WHOLE))
    assert last(fold).late


@pytest.mark.parametrize("ends", [step("notify"), step("not_notifiable")])
def test_nothing_is_overdue_once_it_was_answered(ends: Payload) -> None:
    """Notified, or not notifiable: no tick says anything."""
    fold = complying()
    said(fold, step("detect"), assess(personal=False), ends)
    assert fold.cells["bank"].due_ms is None
    assert fold.tick(NOW + 1000 * HOUR) == []


def test_the_hours_are_the_tenants_when_the_incident_opens() -> None:
    """A change moves no clock that runs; each incident of several has its own."""
    fold = complying()
    said(
        fold, configured(notify_hours=24), step("detect"), configured(notify_hours=96), step("detect", incident="other")
    )
    assert [event.notify_by_ms - NOW for event in incidents(fold)] == [24 * HOUR, 96 * HOUR]
    assert [event.incident for event in fold.tick(NOW + 25 * HOUR) if isinstance(event, IncidentEvent)] == ["breach"]
    assert [event.incident for event in fold.tick(NOW + 97 * HOUR) if isinstance(event, IncidentEvent)] == ["other"]


def test_aware_is_when_somebody_came_to_know_but_never_later_than_it_was_said() -> None:
    """An earlier time lets the clock begin earlier, a later one nothing later."""
    fold = complying()
    said(fold, step("detect", aware_at_ms=NOW - HOUR), step("detect", incident="ahead", aware_at_ms=NOW + HOUR))
    assert [event.aware_at_ms for event in incidents(fold)] == [NOW - HOUR, NOW]


def test_a_time_that_no_clock_shows_breaks_nothing() -> None:
    """The greatest time that an event may have: its deadline is that time."""
    fold = complying()
    greatest = (1 << 53) - 1
    assert said(fold, violation(greatest, greatest), step("detect", greatest)) == ["detected", "detected"]
    assert [event.notify_by_ms for event in incidents(fold)] == [greatest, greatest]
    assert fold.tick(greatest) == []


# violations


def test_a_violation_opens_an_incident_of_the_systems() -> None:
    """Named by its place in the log, with what it violates; somebody is aware of it when it was found."""
    fold = complying()
    assert said(fold, violation(41, NOW - 5)) == ["detected"]
    event = last(fold)
    assert (event.incident, event.violation, event.log_index, event.controls, event.by) == (
        "v-41", "offset-gap", 41, ("hipaa-164.312.b",), "",
    )  # fmt: skip
    assert (event.aware_at_ms, event.notify_by_ms) == (NOW - 5, NOW - 5 + 72 * HOUR)


def test_later_violations_of_its_kind_join_it_while_it_is_open() -> None:
    """Without an event; another kind has its own, and so has the same kind once it is closed."""
    fold = complying()
    assert said(fold, violation(1), violation(2), violation(2), violation(1), violation(3, finding="range-lost")) == [
        "detected", "detected",
    ]  # fmt: skip
    kept = fold.cells["bank"].entries["v-1"]
    assert (kept.joined, kept.joined_index) == (1, 2)
    named = {"incident": "v-1"}
    said(fold, assess(**named), step("notify", notice=WHOLE, **named), step("contain", **named), step("close", **named))
    assert said(fold, violation(1)) == []
    assert said(fold, violation(9)) == ["detected"]
    assert last(fold).incident == "v-9"


def test_of_closed_incidents_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """State does not grow for ever; what is open stays."""
    monkeypatch.setattr(compliance, "CLOSED_KEPT", 2)
    fold = complying()
    said(fold, step("detect", incident="open"))
    for n in range(4):
        named, at = f"old-{n}", NOW + n
        said(fold, *(one for one in (
            step("detect", at, named), assess(at, named), step("notify", at, named), step("contain", at, named), step("close", at, named),
        )))  # fmt: skip
    assert sorted(fold.cells["bank"].entries) == ["old-2", "old-3", "open"]
