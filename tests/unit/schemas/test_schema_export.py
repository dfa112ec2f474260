"""The generated documents: one schema per type, valid for both dialects, and an AsyncAPI 3 document that holds together."""

import json
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from schemas.export import JOINT, OUTSIDE, SENDERS, asyncapi, json_schema, json_schemas, sender_of
from schemas.payload import REGISTRY, Incoming
from schemas.topics import BY_NAME

DOCUMENT = asyncapi()
REF = {
    "type": "object",
    "required": ["$ref"],
    "properties": {"$ref": {"type": "string"}},
    "additionalProperties": False,
}
# The parts of the AsyncAPI 3.0.0 specification that the document uses ("Schema" section, fixed fields per object).
ASYNCAPI_3: dict[str, Any] = {
    "type": "object",
    "required": ["asyncapi", "info"],
    "additionalProperties": False,
    "properties": {
        "asyncapi": {"const": "3.0.0"},
        "info": {
            "type": "object",
            "required": ["title", "version"],
            "properties": {"license": {"type": "object", "required": ["name"]}},
        },
        "defaultContentType": {"type": "string"},
        "channels": {
            "additionalProperties": {
                "type": "object",
                "required": ["address", "messages"],
                "patternProperties": {"^x-": {}},
                "additionalProperties": False,
                "properties": {
                    "address": {"type": "string"},
                    "description": {"type": "string"},
                    "messages": {"additionalProperties": REF, "minProperties": 1},
                    "bindings": {
                        "properties": {
                            "kafka": {
                                "additionalProperties": False,
                                "properties": {
                                    "topic": {"type": "string"},
                                    "partitions": {"type": "integer"},
                                    "replicas": {"type": "integer"},
                                    "bindingVersion": {"const": "0.5.0"},
                                    "topicConfiguration": {
                                        "properties": {
                                            "cleanup.policy": {
                                                "type": "array",
                                                "items": {"enum": ["compact", "delete"]},
                                            },
                                            "retention.ms": {"type": "integer"},
                                        }
                                    },
                                },
                            }
                        }
                    },
                },
            }
        },
        "operations": {
            "additionalProperties": {
                "type": "object",
                "required": ["action", "channel"],
                "additionalProperties": False,
                "properties": {
                    "action": {"enum": ["send", "receive"]},
                    "channel": REF,
                    "messages": {"type": "array", "items": REF, "minItems": 1},
                    "summary": {"type": "string"},
                },
            }
        },
        "components": {
            "properties": {
                "messages": {
                    "additionalProperties": {
                        "type": "object",
                        "required": ["name", "payload", "headers"],
                        "patternProperties": {"^x-": {}},
                        "additionalProperties": False,
                        "properties": {
                            "name": {"type": "string"},
                            "title": {"type": "string"},
                            "summary": {"type": "string"},
                            "contentType": {"type": "string"},
                            "headers": {"type": "object", "properties": {"type": {"const": "object"}}},
                            "payload": REF,
                            "correlationId": {"type": "object", "required": ["location"]},
                            "bindings": {"type": "object"},
                        },
                    }
                }
            }
        },
    },
}


def keywords(schema: Any, *, names: bool = False) -> set[str]:
    """Every JSON Schema keyword used, field names left out."""
    found: set[str] = set()
    if isinstance(schema, dict):
        for key, value in schema.items():
            found |= set() if names else {key}
            if names or key not in {"default", "enum", "const"}:
                found |= keywords(value, names=not names and key in {"properties", "$defs"})
    elif isinstance(schema, list):
        for value in schema:
            found |= keywords(value)
    return found


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_a_schema_is_valid_in_both_dialects(name: str) -> None:
    """draft-07 and 2020-12 readers understand every schema alike: no keyword is new in the later one."""
    schema = json_schema(REGISTRY[name])
    Draft202012Validator.check_schema(schema)
    Draft7Validator.check_schema({key: value for key, value in schema.items() if key != "$schema"})
    later = {"prefixItems", "dependentRequired", "dependentSchemas", "unevaluatedProperties", "unevaluatedItems"}
    assert not keywords(schema) & later


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_only_what_people_and_upstream_send_refuses_unknown_fields(name: str) -> None:
    """`additionalProperties: false` stands exactly in the schemas of incoming events."""
    assert (json_schema(REGISTRY[name]).get("additionalProperties") is False) == issubclass(REGISTRY[name], Incoming)


def test_the_document_has_the_shape_of_asyncapi_3() -> None:
    """Every object of the document has the fields that AsyncAPI 3.0.0 gives it, and no other."""
    Draft202012Validator(ASYNCAPI_3).validate(DOCUMENT)


def test_every_reference_leads_somewhere() -> None:
    """References inside the document resolve, and those to files name a schema that is exported."""
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                found.append(value["$ref"])
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(DOCUMENT)
    files = {f"./json/{name}.v1.json" for name in json_schemas()}
    for ref in found:
        if ref.startswith("#/"):
            target: Any = DOCUMENT
            for part in ref[2:].split("/"):
                target = target[part]
        else:
            assert ref in files
    assert files <= set(found)


def test_operations_send_only_what_their_channel_carries() -> None:
    """An operation's messages are messages of its channel (AsyncAPI 3.0.0, Operation Object)."""
    for operation in DOCUMENT["operations"].values():
        for message in operation["messages"]:
            assert message["$ref"].startswith(operation["channel"]["$ref"] + "/messages/")


def test_every_type_has_one_sender_and_outsiders_send_what_is_incoming() -> None:
    """One writer per event type, but for verdicts; people and upstream send exactly the types that refuse unknown fields."""
    sent = [name for types in SENDERS.values() for name in types]
    assert sorted(set(sent)) == sorted(REGISTRY)
    assert {name for name in sent if sent.count(name) > 1} == JOINT
    assert {n for n in REGISTRY if sender_of(n) in OUTSIDE} == {
        n for n in REGISTRY if issubclass(REGISTRY[n], Incoming)
    }
    with pytest.raises(KeyError, match=r"no\.such.*exactly one"):
        sender_of("no.such")


def test_channels_are_the_topics_with_their_retention() -> None:
    """A channel's address, clean-up and retention are those of the topics table."""
    for name, channel in DOCUMENT["channels"].items():
        kafka = channel["bindings"]["kafka"]["topicConfiguration"]
        assert channel["address"] == BY_NAME[name].full
        assert kafka["cleanup.policy"] == ["compact" if BY_NAME[name].kept == "compact" else "delete"]
        assert ("retention.ms" in kafka) == (BY_NAME[name].kept != "compact")


def test_exporting_twice_gives_the_same_text() -> None:
    """The export is a function of the models alone."""
    assert json.dumps(asyncapi()) == json.dumps(DOCUMENT)
