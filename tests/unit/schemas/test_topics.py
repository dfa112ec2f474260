"""The topics table: complete, consistent with the payload classes, and planned with the right retention."""

import pytest

from schemas import codec
from schemas.payload import REGISTRY
from schemas.topics import BY_NAME, DAY_MS, FOLDS, TOPICS, TRANSFORMS, plans, recorded

PLANS = {plan.full: plan.config for plan in plans()}


def test_every_event_has_a_topic_of_the_table() -> None:
    """No payload class names a topic that would not be created."""
    assert codec.MODULES
    assert {model.TOPIC for model in REGISTRY.values()} <= BY_NAME.keys()


def test_every_topic_is_planned_once() -> None:
    """The table, its dead letters and each agent's internal topics, none twice."""
    names = [plan.full for plan in plans()]
    assert len(names) == len(set(names))
    assert {topic.full for topic in TOPICS} <= set(names)
    assert {topic.dlq for topic in TOPICS if topic.dead_letters} <= set(names)
    assert {f"ratchet.{agent}.{kind}" for agent in FOLDS for kind in ("state", "order")} <= set(names)
    assert {f"ratchet.{agent}.deferred" for agent in TRANSFORMS} <= set(names)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("ratchet.requests", {"cleanup.policy": "delete", "retention.ms": str(31 * DAY_MS)}),
        ("ratchet.audit", {"cleanup.policy": "delete", "retention.ms": str(400 * DAY_MS)}),
        ("ratchet.policies", {"cleanup.policy": "compact", "min.compaction.lag.ms": str(31 * DAY_MS)}),
    ],
)
def test_a_topic_is_kept_as_the_table_says(name: str, config: dict[str, str]) -> None:
    """`time`, `long` and `compact` become broker settings; a policy outlives the decisions that name it."""
    assert config.items() <= PLANS[name].items()


def test_a_dead_letter_has_room_for_its_headers() -> None:
    """A record of the greatest size still fits with its reason headers."""
    assert int(PLANS["ratchet.requests.dlq"]["max.message.bytes"]) > 1_048_588


def test_the_audit_topic_is_not_evidence_of_itself() -> None:
    """What goes into the log leaves out what the log itself publishes and what is internal."""
    names = recorded()
    assert "ratchet.requests" in names
    assert "ratchet.requests.dlq" in names
    assert not {"ratchet.audit", "ratchet.keyring"} & set(names)
