"""Commands meet every fold that takes them: done once, for the route's own tenant, on the route's own key."""

from dataclasses import replace

import pytest
from folding import Folding

from agents.judge.fold import Judge
from agents.router.estimator import Estimator
from agents.rules.commands import REMEMBERED, objection, remembered
from agents.trainer.fold import Trainer
from agents.trust.fold import Ladder
from schemas.events import (
    Command,
    CommandApply,
    CommandPause,
    CommandResume,
    CommandTrain,
    CommandTrust,
    TrainingFailed,
    TrustChanged,
)
from schemas.policies import PolicyFleet, PolicyRoute, PolicyTrust
from schemas.routes import Arm, Route

FOLDS = (Judge, Trainer, Ladder, Estimator)


def apply(tenant="a", route="bank", settings_tenant=None, at=1, **changes):
    arms = (Arm(arm="base", base="sha256:0"),)
    told = Route(route=route, compliance="off", tenant=settings_tenant or tenant, arms=arms, champion="base", **changes)
    return CommandApply(tenant=tenant, at_ms=at, route="bank", operator="op", settings=told)


def said(kind: type[Command], tenant="a", at=2, **more):
    return kind(tenant=tenant, at_ms=at, route="bank", operator="op", **more)


def applied(fold):
    folding = Folding(fold())
    folding.take(apply(), "first")
    return folding


@pytest.mark.parametrize("fold", FOLDS)
@pytest.mark.parametrize(
    "command",
    [
        apply(tenant="b"),
        apply(settings_tenant="b"),
        apply(route="other"),
        said(CommandPause, tenant="b"),
        said(CommandTrust, tenant="b", action="grant"),
        said(CommandTrain, tenant="b"),
    ],
    ids=["another tenant", "its settings", "another route", "pause", "trust", "train"],
)
def test_nobody_touches_a_route_of_another_tenant(fold, command):
    """No fold moves; the judge alone says so, as a dead letter that names what is wrong."""
    folding = applied(fold)
    before = {key: cell.record for key, cell in folding.cells.items()}
    assert folding.take(command) == []
    assert {key: cell.record for key, cell in folding.cells.items()} == before
    kinds = [letter.kind for letter in folding.letters]
    wanted = (
        "wrong-route" if isinstance(command, CommandApply) and command.settings.route == "other" else "wrong-tenant"
    )
    assert kinds == ([wanted] if fold is Judge else [])


@pytest.mark.parametrize("fold", FOLDS)
def test_a_command_under_another_key_is_not_done(fold):
    """A route's commands meet its state on one partition: under another key they would meet an empty one and begin anew."""
    folding = Folding(fold())
    event = replace(folding.event(apply()), key="bunk")
    assert folding._fold("bank", event) == []
    assert [letter.kind for letter in folding.letters] == (["wrong-key"] if fold is Judge else [])
    assert not folding.cells


def test_a_command_sent_again_is_done_once():
    """Pause, resume, and the first record of pause again: the route stays resumed. A new pause pauses."""
    judge = applied(Judge)
    judge.take(said(CommandPause), "pause")
    judge.take(said(CommandResume), "resume")
    assert judge.take(said(CommandPause), "pause") == []
    assert not judge.of(PolicyFleet)[-1].paused
    judge.take(said(CommandPause), "pause again")
    assert judge.of(PolicyFleet)[-1].paused
    assert judge.take(apply(), "first") == []
    assert len(judge.of(PolicyRoute)) == 1


def test_a_grant_sent_again_after_its_withdrawal_grants_nothing():
    """Not even one that changed nothing when it first came."""
    ladder = applied(Ladder)
    ladder.take(said(CommandTrust, action="grant", threshold=0.9), "one")
    ladder.take(said(CommandTrust, action="grant", threshold=0.9), "two")
    ladder.take(said(CommandTrust, action="withdraw"), "three")
    for again in ("one", "two"):
        assert ladder.take(said(CommandTrust, action="grant", threshold=0.9), again) == []
    assert ladder.of(PolicyTrust)[-1].mode == "SHADOW"
    assert len(ladder.of(TrustChanged)) == 2
    assert ladder.take(apply(trust_threshold=0.5), "first") == []


def test_an_order_sent_again_orders_nothing():
    """The same `command.train` record again asks for nothing; a new one does (and fails here: there are no rows)."""
    trainer = applied(Trainer)
    assert [type(made) for made in trainer.take(said(CommandTrain), "train")] == [TrainingFailed]
    assert trainer.take(said(CommandTrain), "train") == []
    assert len(trainer.take(said(CommandTrain), "another")) == 1


def test_as_many_commands_are_remembered_as_are_needed_and_no_more():
    """The newest few by a short digest: the state of a route stays small."""
    known: tuple[str, ...] = ()
    for n in range(3 * REMEMBERED):
        known = remembered(known, f"e{n}") or ()
    assert len(known) == REMEMBERED
    assert remembered(known, f"e{3 * REMEMBERED - 1}") is None
    assert remembered(known, "e0") is not None
    assert sum(map(len, known)) < 400


def test_a_first_apply_may_name_any_tenant_but_one():
    """Before its first apply a route is nobody's; command and settings must agree."""
    assert objection(apply(tenant="b"), "bank", None) is None
    assert objection(apply(tenant="b", settings_tenant="c"), "bank", None) is not None
