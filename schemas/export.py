"""The contract as documents: a JSON Schema per event type and one AsyncAPI 3 document. Pure: models in, dicts out.

The documents speak only what JSON Schema draft-07 and 2020-12 both understand, so that either kind of reader does.
"""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from schemas import codec
from schemas.payload import ID_PATTERN, REGISTRY, Incoming, Payload, RequestEvent
from schemas.topics import BY_NAME, TOPICS, plans

Document = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
EVENT_MODULES = codec.MODULES  # importing them fills the registry

# Who sends an event type. One writer per type, but that a judge model gives verdicts as people do; a type that stands here not at
# all is refused by `asyncapi`.
SENDERS: dict[str, tuple[str, ...]] = {
    "upstream": ("request.submitted",),
    "reviewer": ("verdict.given",),
    "operator": (
        "command.apply",
        "command.promote",
        "command.reject",
        "command.rollback",
        "command.pause",
        "command.resume",
        "command.trust",
        "command.train",
        "command.cancel",
        "command.resend",
        "command.discard",
        "command.skip",
        "command.offsets",
        "export.made",
        "command.tenant",
        "command.incident",
        "command.erase",
        "access.checked",
        "config.observed",
        "drill.completed",
    ),
    "router": ("decision.routed", "shadow.ordered", "answer.refused"),
    "inference": (
        "result.completed",
        "result.failed",
        "policy.live",
        "adapter.live",
        "adapter.refused",
        "breaker.changed",
    ),
    "trust": ("score.assigned", "answer.released", "answer.withheld"),
    "cases": ("review.requested", "review.settled", "case.answered", "case.closed", "case.amended"),
    "ladder": ("policy.trust", "trust.changed"),
    "judge": (
        "promotion.opened",
        "promotion.evaluated",
        "promotion.approval_requested",
        "promotion.staged",
        "promotion.rejected",
        "model.promoted",
        "model.rolled_back",
        "policy.route",
        "policy.fleet",
    ),
    "grader": ("verdict.given",),
    "learner": ("policy.router",),
    "estimator": ("policy.capacity",),
    "trainer": ("training.ordered", "training.cancelled", "adapter.registered", "adapter.marked"),
    "jobs": ("training.progressed", "training.completed", "training.failed", "deid.applied"),
    "compliance": (
        "policy.gate",
        "incident.detected",
        "incident.assessed",
        "incident.notified",
        "incident.told",
        "incident.not_notifiable",
        "incident.contained",
        "incident.closed",
        "incident.overdue",
        "incident.refused",
    ),
    "shredder": ("key.removed", "key.erased", "subject.erased", "subject.kept", "command.forget"),
    "evidence": (
        "audit.checkpoint",
        "audit.finding",
        "audit.recorded",
        "compliance.violation",
        "key.wrapped",
        "key.removed",
    ),
}
OUTSIDE = ("upstream", "reviewer", "operator")
JOINT = frozenset({"verdict.given", "key.removed"})


class _Plain(GenerateJsonSchema):
    """pydantic's generator without invented titles: what is in the schema, somebody wrote."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema(model: type[Payload]) -> Document:
    """What a reader of this type accepts. `$id` names type and version."""
    body = model.model_json_schema(schema_generator=_Plain)
    head = {"$schema": DIALECT, "$id": f"urn:ratchet:schema:{model.TYPE}:v1", "title": model.ce_type()}
    return head | {key: value for key, value in body.items() if key != "title"}


def json_schemas() -> dict[str, Document]:
    """Type name to JSON Schema, for every type there is, by name."""
    return {name: json_schema(REGISTRY[name]) for name in sorted(REGISTRY)}


def sender_of(name: str) -> str:
    """The one sender of an event type, of a `JOINT` one the first. KeyError for a type that nobody is said to send."""
    found = [sender for sender, types in SENDERS.items() if name in types]
    if len(found) != 1 and not (found and name in JOINT):
        raise KeyError(f"event type {name!r} has senders {found}; accepted: exactly one in schemas.export.SENDERS")
    return found[0]


def _headers(model: type[Payload]) -> Document:
    """CloudEvents 1.0 attributes in Kafka's binary mode (protocol binding 1.0.2, 3.2)."""
    text = {"type": "string"}
    return {
        "type": "object",
        "required": ["ce_specversion", "ce_id", "ce_type", "ce_source", "ce_time"],
        "properties": {
            "ce_specversion": {"type": "string", "const": "1.0"},
            "ce_id": text | {"minLength": 1, "description": "Unique per source; a repeat is the same event."},
            "ce_type": {"type": "string", "const": model.ce_type()},
            "ce_source": text | {"minLength": 1, "description": "Who sent it, such as `ratchet/router`."},
            "ce_time": text | {"format": "date-time"},
            "content-type": {"type": "string", "const": "application/json"},
            "traceparent": text | {"description": "W3C trace context; made up when absent."},
        },
    }


def _message(name: str, model: type[Payload]) -> Document:
    topic = BY_NAME[model.TOPIC]
    message: Document = {
        "name": model.ce_type(),
        "title": name,
        "contentType": "application/json",
        "headers": _headers(model),
        "payload": {"$ref": f"./json/{name}.v1.json"},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": topic.key},
                "bindingVersion": "0.5.0",
            }
        },
        "x-sender": sender_of(name),
        "x-unknown-fields": "refused" if issubclass(model, Incoming) else "ignored",
    }
    if model.__doc__:
        message["summary"] = " ".join(model.__doc__.split())
    if issubclass(model, RequestEvent):
        message["correlationId"] = {"location": "$message.payload#/request_id"}
    return message


def _channel(name: str, types: list[str]) -> Document:
    topic = BY_NAME[name]
    config = next(plan.config for plan in plans() if plan.full == topic.full)
    configuration: Document = {"cleanup.policy": [config["cleanup.policy"]]}
    if "retention.ms" in config:
        configuration["retention.ms"] = int(config["retention.ms"])
    return {
        "address": topic.full,
        "description": f"Key: {topic.key}. Placed by murmur2 of the key, as Kafka's own default partitioner does.",
        "messages": {kind: {"$ref": f"#/components/messages/{kind}"} for kind in types},
        "bindings": {
            "kafka": {"topic": topic.full, "topicConfiguration": configuration, "bindingVersion": "0.5.0"},
        },
        "x-kept": topic.kept,
        "x-dead-letters": topic.dlq if topic.dead_letters else None,
    }


def asyncapi(version: str = "1.0.0") -> Document:
    """The AsyncAPI 3.0 document, told from Ratchet's side: it receives what upstream, reviewers and operators send."""
    by_topic: dict[str, list[str]] = {}
    by_sender: dict[tuple[str, str], list[str]] = {}
    for name in sorted(REGISTRY):
        topic = REGISTRY[name].TOPIC
        by_topic.setdefault(topic, []).append(name)
        for sender in SENDERS:
            if name in SENDERS[sender]:
                by_sender.setdefault((sender, topic), []).append(name)
    operations = {
        f"{sender}.{topic}": {
            "action": "receive" if sender in OUTSIDE else "send",
            "channel": {"$ref": f"#/channels/{topic}"},
            "messages": [{"$ref": f"#/channels/{topic}/messages/{name}"} for name in types],
            "summary": f"{sender} sends {', '.join(types)}.",
        }
        for (sender, topic), types in sorted(by_sender.items())
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Ratchet",
            "version": version,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
            "description": "Events of the loop. CloudEvents 1.0 in Kafka's binary content mode. "
            f"Ids match {ID_PATTERN}. Generated from the models: do not edit.",
        },
        "defaultContentType": "application/json",
        "channels": {
            topic.name: _channel(topic.name, by_topic[topic.name]) for topic in TOPICS if topic.name in by_topic
        },
        "operations": operations,
        "components": {"messages": {name: _message(name, REGISTRY[name]) for name in sorted(REGISTRY)}},
    }
