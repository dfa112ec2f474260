"""What `ratchet dlq` and `ratchet offsets` share: places as they are typed, agents, who acts, the bus of one who may repair."""

import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

from agents.wiring import FOLDS, groups
from infra import keys
from infra.clock import SystemClock
from schemas.errors import Refused
from schemas.payload import ID_PATTERN
from schemas.principal import PROVEN, SPEAKS, Role
from schemas.topics import BY_NAME, PREFIX
from streams.letters import Prove
from streams.port import Broker
from streams.shapes import Place
from tools.cli import place
from tools.cli.bus import Bus
from tools.voice import open_store

CLOCK = SystemClock()
COMMANDS = BY_NAME["commands"].full
_PLACE = re.compile(r"([A-Za-z0-9._-]{1,249})(?:\[(\d{1,6})\]@|/(\d{1,6})/)(\d{1,18})")


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent that reads in a group: its inputs in full, and whether it is a Fold."""

    name: str
    inputs: tuple[str, ...]
    fold: bool


def agent_of(name: str) -> Agent:
    """Raises `Refused` that names them all."""
    known = {group.removeprefix(PREFIX): topics for group, topics in groups().items()}
    if name not in known:
        raise Refused(f"agent {name!r}: accepted: {', '.join(known)}", kind="usage", field="agent")
    return Agent(name, known[name], name in FOLDS)


def full(topic: str) -> str:
    return topic if topic.startswith(PREFIX) else PREFIX + topic


def place_of(text: str) -> Place:
    """`requests.dlq[0]@12`, or `requests.dlq/0/12` where a shell takes brackets for its own. Raises `Refused`."""
    found = _PLACE.fullmatch(text)
    if found is None:
        raise Refused(
            f"place {text!r}: accepted: topic[partition]@offset or topic/partition/offset, for example requests.dlq/0/12",
            kind="usage",
            field="place",
        )
    return Place(full(found[1]), int(found[2] or found[3]), int(found[4]))


@dataclass(frozen=True, slots=True)
class By:
    """Who acts and why; `prove` puts the operator's proof on the command."""

    name: str
    reason: str
    prove: Prove | None = None


async def speaking(given: str | None, reason: str) -> By:
    """As whom an operator commands: a principal with its proof; where no key was ever set, the user under the login name."""
    voice = await place.voice("operator", given)
    return By(voice.name, reason, voice.prove)


async def vouching(topic: str, value: bytes | None, given: str | None) -> Prove | None:
    """The proof of what goes back to a topic where principals speak: of `given`, else of whom its payload names.

    Raises `Refused` where that one is no principal in the role, or its key is not in the secret store.
    """
    if topic not in PROVEN:
        return None
    name = given if given is not None else _named(topic, value)
    return (await place.voice(await _role(name, topic), name)).prove


def _named(topic: str, value: bytes | None) -> str | None:
    """Who speaks in a verdict or a command; None in what cannot be read."""
    field = {BY_NAME["verdicts"].full: "by", BY_NAME["commands"].full: "operator"}.get(topic)
    try:
        said = json.loads(value or b"")
    except ValueError:
        return None
    found = cast("dict[str, Any]", said).get(field or "") if isinstance(said, dict) else None
    return found if isinstance(found, str) else None


_NARROWEST: tuple[Role, ...] = ("reviewer", "operator", "upstream")


async def _role(name: str | None, topic: str) -> Role:
    """The role in which a principal writes to a topic: of those that may, one that it has."""
    able: list[Role] = [role for role in _NARROWEST if topic in SPEAKS[role]]
    async with open_store(place.settings()) as source:
        known = {} if source is None or name is None else await keys.principals(source)
    own = known[name].roles if name in known else ()
    for role in able:
        if role in own:
            return role
    return able[0]


def tenant_of(value: object) -> str:
    """The tenant that a payload names, the default one where it names none."""
    return value if isinstance(value, str) and re.match(ID_PATTERN, value) else "default"


@asynccontextmanager
async def opened(user: str) -> AsyncGenerator[tuple[Broker, Bus], None]:
    """The broker, and a bus on it, as one of Kafka's users: `operator` looks, `repair` changes."""
    found = place.settings()
    broker = await place.open_broker(found, user=user)
    async with Bus(broker, found.kafka_bootstrap or "") as bus:
        yield broker, bus
