"""What `ratchet dlq` and `ratchet offsets` share: places as they are typed, agents, who acts, the bus of one who may repair."""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from agents.wiring import FOLDS, groups
from infra.clock import SystemClock
from schemas.errors import Refused
from schemas.payload import ID_PATTERN
from schemas.topics import BY_NAME, PREFIX
from streams.letters import Prove
from streams.port import Broker
from streams.shapes import Place
from tools.cli import place
from tools.cli.bus import Bus

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
    """As whom an operator commands."""
    return By(place.operator(given), reason)


async def vouching(topic: str, value: bytes | None, given: str | None) -> Prove | None:
    """The proof of what goes back to a topic where principals speak: of `given`, else of whom its payload names."""
    return None


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
