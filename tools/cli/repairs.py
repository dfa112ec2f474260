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
from schemas.principal import KINDS, PRINCIPAL, PROVEN, SPEAKS, Prove, Role
from schemas.topics import BY_NAME, PREFIX, full
from streams.letters import Letter
from streams.port import Broker
from streams.shapes import Place
from tools.cli import place
from tools.cli.bus import Bus
from tools.voice import open_store

CLOCK = SystemClock()
COMMANDS = BY_NAME["commands"].full
_ROLES: tuple[Role, ...] = (
    "reviewer",
    "upstream",
    "operator",
    "grader",
    "shredder",
)  # of two that may speak on a topic the narrower one
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
    """Who acts and why; `prove` puts the operator's proof on the command. `tenants`: for whom alone, none named: for every one."""

    name: str
    reason: str
    prove: Prove | None = None
    tenants: tuple[str, ...] = ()

    def check(self, tenant: str | None) -> None:
        """Raises `Refused` where agents would refuse the command: another tenant's letter, or (None) a deed that concerns all."""
        if self.tenants and tenant not in self.tenants:
            what = "what concerns every tenant" if tenant is None else f"tenant {tenant!r}"
            raise Refused(
                f"{self.name!r} does not speak for {what}; accepted: a principal who does (--as NAME)",
                kind="foreign-tenant",
                field="tenant",
            )


async def speaking(given: str | None, reason: str) -> By:
    """As whom an operator commands."""
    voice = await place.voice("operator", given)
    if voice.credential is None:
        return By(voice.name, reason)
    async with open_store(place.settings()) as source:
        tenants = () if source is None else (await keys.principals(source))[voice.name].tenants
    return By(voice.name, reason, voice.prove, tenants)


async def vouching(letter: Letter, value: bytes | None, given: str | None) -> Prove | None:
    """The proof of what goes back to a topic where principals speak: of `given`, else of whoever proved it before or is named in it.

    Refused where the record became a dead letter because nobody had proved it: then somebody must be named.
    """
    topic = letter.record.topic
    if topic not in PROVEN:
        if given is not None:
            raise Refused(f"--sender: nobody proves what lies on {topic}", kind="usage", field="sender")
        return None
    async with open_store(place.settings()) as source:
        known = {} if source is None else await keys.principals(source)
    if not any(row.keys for row in known.values()):
        return None
    if given is None and letter.kind in KINDS:
        raise Refused(
            f"{letter.place} was refused because its proof did not hold ({letter.kind}); accepted: --sender NAME, who vouches for it",
            kind="unproven",
            field="sender",
        )
    name = given or _named(topic, letter, value)
    held: tuple[Role, ...] = known[name].roles if name is not None and name in known else ()
    return (await place.voice(_role(topic, held), name)).prove


def _role(topic: str, held: tuple[Role, ...]) -> Role:
    """In which of its roles a principal may speak on a topic; one that may where it has none, so that the refusal names it."""
    able: list[Role] = [role for role in _ROLES if topic in SPEAKS[role]]
    for role in able:
        if role in held:
            return role
    return able[0]


def _named(topic: str, letter: Letter, value: bytes | None) -> str | None:
    """Who says it, as the payload or the former proof tells."""
    said = payload_of(value)
    name = said.get({"ratchet.verdicts": "by", COMMANDS: "operator"}.get(topic, ""))
    if isinstance(name, str):
        return name
    proven = dict(letter.record.headers).get(PRINCIPAL)
    return None if proven is None else proven.decode("utf-8", "replace")


def payload_of(value: bytes | None) -> dict[str, Any]:
    """The payload where it is a JSON object, else nothing."""
    try:
        said: object = json.loads(value or b"")
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", said) if isinstance(said, dict) else {}


def tenant_of(letter: Letter) -> str:
    """The tenant that a letter's payload names, the default one where it names none."""
    value = payload_of(letter.record.value).get("tenant")
    return value if isinstance(value, str) and re.match(ID_PATTERN, value) else "default"


@asynccontextmanager
async def opened(user: str) -> AsyncGenerator[tuple[Broker, Bus], None]:
    """The broker, and a bus on it, as one of Kafka's users: `operator` looks, `repair` changes."""
    found = place.settings()
    broker = await place.open_broker(found, user=user)
    async with Bus(broker, found.kafka_bootstrap or "") as bus:
        yield broker, bus
