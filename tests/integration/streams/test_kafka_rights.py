"""A real broker with TLS, SCRAM and ACLs on: every principal can do its declared work, and the broker refuses it everything else."""

import asyncio
import contextlib
from collections.abc import Awaitable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAuthorizationFailedError
from erasing import SEGMENT_MS, command, policy, route, wrapped

from agents import wiring
from agents.evidence.shredder import Shredder
from agents.observer import app as observer
from infra.clock import SystemClock
from infra.settings import Settings
from schemas.compliance import SubjectErased
from schemas.events import AdapterLive, AuditCheckpoint
from schemas.export import SENDERS
from schemas.payload import REGISTRY
from schemas.principal import Prove
from schemas.topics import DAY_MS, PREFIX, deferred_topic, order_topic, plans, recorded, state_topic
from streams.acl import Acl, Right, Work, compare, rights
from streams.admin import ensure_groups, ensure_topics
from streams.facts import Facts
from streams.fence import Fence, Publisher
from streams.kafka import KafkaBroker
from streams.kafka_acl import KafkaAccess
from streams.port import TP, BrokerError, Denied, Outgoing, TopicSpec
from streams.reader import EveryOffset
from streams.runner import Runner, RuntimeSettings
from streams.security import PLAINTEXT, Security
from streams.standing import Standing
from streams.wire import decode
from tools.access import agents_work, generated, outside_work, principals
from tools.stack.kafka import KafkaNode, running_kafka
from tools.stack.tls import ensure_certificates

TOPICS = tuple(plan.full for plan in plans())
AGENTS = tuple(agents_work())
LANED = tuple(name for name, work in agents_work().items() if work.shape in {"transform", "fold"})
OUTSIDE = tuple(outside_work())
WORKS = agents_work() | outside_work()
RECORD = Outgoing(b"key", b"value")


@dataclass(frozen=True)
class Secured:
    """The broker, and how one comes in."""

    node: KafkaNode
    ca: Path

    def as_(self, user: str, password: str = "") -> KafkaBroker:
        """The cluster as a user sees it."""
        return KafkaBroker(self.node.bootstrap, Security("sasl_ssl", self.ca, user, password or f"password of {user}"))


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory, cache_dir: Path) -> Iterator[Secured]:
    """All topics (one partition), groups, users and rights, as `ratchet up --secure` and `ratchet acl apply` make them."""
    folder = tmp_path_factory.mktemp("secured")
    tls = ensure_certificates(folder / "tls")

    async def prepare(where: str, administrator: Security) -> None:
        await ensure_topics(where, 1, 1, security=administrator)
        await ensure_groups(where, wiring.groups(), security=administrator)
        async with KafkaAccess(where, administrator) as access:
            await access.set_passwords({user: f"password of {user}" for user in principals(())})
            await access.allow(generated(()))

    with running_kafka(folder / "kafka", cache_dir, tls=tls) as node:
        asyncio.run(prepare(*node.administration))
        yield Secured(node, tls.authority)


def allowed(user: str, operation: str, resource: str = "topic") -> set[str]:
    """What a user may do to which literal names."""
    return {
        right.name
        for right in rights(WORKS[user])
        if (right.operation, right.resource, right.pattern) == (operation, resource, "literal")
    }


class Silent:
    """A voice where no key was ever set."""

    async def prover(self) -> Prove:
        return lambda row: row


class Members:
    """A listener that tells when partitions came."""

    def __init__(self) -> None:
        self.came = asyncio.Event()

    async def assigned(self, partitions: Collection[TP]) -> None:
        self.came.set()

    async def revoked(self, partitions: Collection[TP]) -> None:
        return


async def join(broker: KafkaBroker, group: str, topics: Collection[str]) -> None:
    """Become a member and be given partitions."""
    members = Members()
    reader = broker.group_reader(topics, group, f"{group}-test", members)
    try:
        await reader.start()
        async with asyncio.timeout(8):
            while not members.came.is_set():
                await reader.poll(timeout_s=0.1, max_records=1)
    finally:
        await reader.stop()


async def read(broker: KafkaBroker, topics: Collection[str], *, polls: int = 2) -> None:
    """Read from the start without a group."""
    reader = broker.reader({(topic, 0): 0 for topic in topics})
    try:
        await reader.start()
        for _ in range(polls):
            await reader.poll(timeout_s=0.1, max_records=500)
    finally:
        await reader.stop()


async def transact(
    broker: KafkaBroker, name: str, topics: Collection[str], group: str, inputs: Collection[str]
) -> None:
    """A lane's transaction: a record to each topic, offsets of the inputs, commit."""
    producer = broker.transactional(name)
    try:
        await producer.start()
        await producer.begin()
        for topic in topics:
            for sent in await producer.send(topic, 0, [RECORD]):
                await sent
        if inputs:
            await producer.offsets({(topic, 0): 0 for topic in inputs}, group)
        await producer.commit()
    finally:
        await producer.stop(2.0)


async def write(broker: KafkaBroker, topics: Collection[str]) -> set[str]:
    """The topics that the broker took a record for, of those tried one by one. Who may write nothing is given no producer id."""
    producer = broker.producer()
    taken: set[str] = set()
    try:
        await producer.start()
    except Denied:
        return taken
    try:
        for topic in topics:
            with contextlib.suppress(Denied):
                await producer.send(topic, 0, [RECORD])
                taken.add(topic)
    finally:
        await producer.stop()
    return taken


async def refused(attempt: Awaitable[object], naming: str) -> None:
    """The broker denies it within seconds, and the message names who and what."""
    with pytest.raises(Denied, match=naming):
        async with asyncio.timeout(8):
            await attempt


def lane_topics(agent: str) -> tuple[set[str], set[str]]:
    """What an agent's lanes read and write, told by STREAMS.md's shapes and not by the rights: inputs, letters, state, order, deferred."""
    inputs = {topic for topic in wiring.groups()[f"{PREFIX}{agent}"] if topic != deferred_topic(agent)}
    own = {state_topic(agent)} if agent in wiring.FOLDS else {deferred_topic(agent)}
    view = {f"{PREFIX}policies"} if agent in {"router", "inference", "trust", "shredder"} else set[str]()
    view |= {f"{PREFIX}keyring"} if agent == "shredder" else set[str]()
    sent = {PREFIX + REGISTRY[name].TOPIC for name in SENDERS.get(agent, ())}
    order = {order_topic(agent)} if agent in wiring.FOLDS else set[str]()
    return inputs | own | view, sent | own | order | {f"{topic}.dlq" for topic in inputs}


@pytest.mark.parametrize("agent", LANED)
async def test_a_lane_does_its_work(secured: Secured, agent: str) -> None:
    """It joins its group on all its inputs, reads what it reads, and commits outputs, state, letters and offsets in one transaction."""
    broker, group, inputs = secured.as_(agent), f"{PREFIX}{agent}", wiring.groups()[f"{PREFIX}{agent}"]
    reads, writes = lane_topics(agent)
    await join(broker, group, inputs)
    await read(broker, reads)
    await transact(broker, f"{group}-0", writes, group, inputs)
    admin = broker.admin()
    await admin.start()
    try:
        tps = [(topic, 0) for topic in inputs]
        assert await admin.committed(group, tps) == dict.fromkeys(tps, 0)
        assert set(await admin.ends(tps)) == set(tps)
        assert await admin.partitions(inputs) == dict.fromkeys(inputs, 1)
    finally:
        await admin.stop()


@pytest.mark.parametrize("user", [*AGENTS, *OUTSIDE])
async def test_keys_are_written_by_who_makes_and_who_removes_them(secured: Secured, user: str) -> None:
    """The keyring: evidence and the shredder, nobody else; wrapped keys are read by those two and whom the table names."""
    assert bool(await write(secured.as_(user), ["ratchet.keyring"])) == (user in {"evidence", "shredder"})
    if user not in {"evidence", "shredder"} and "ratchet.keyring" not in allowed(user, "read"):
        await refused(read(secured.as_(user), ["ratchet.keyring"], polls=20), f"User:{user} may not .*ratchet.keyring")


async def test_facts_need_no_right_beyond_their_topics(secured: Secured) -> None:
    """An idempotent producer of an agent that states facts: no right of the cluster, no transactional id."""
    facts = Facts(secured.as_("inference"), "inference")
    try:
        await facts.send(AdapterLive(at_ms=1, route="r", arm="a", adapter=None, instance="i", load_ms=1.0), "one")
    finally:
        await facts.stop()


async def test_evidence_does_its_work(secured: Secured) -> None:
    """It reads every offset of all that is recorded, takes its fence, and publishes a checkpoint with its cursor."""
    broker = secured.as_("evidence")
    reader, fence, publisher = (
        EveryOffset(broker, recorded(), lambda _: ""),
        Fence(broker),
        Publisher(broker, 1),
    )
    try:
        await reader.seek({})
        await reader.poll(0.3)
        await fence.start()
        await fence.commit()
        assert await publisher.start() is None
        await publisher.publish(
            [(AuditCheckpoint(at_ms=1, log_index=0, origin="o", size=1, root="r", note="n"), "o/1")], 1
        )
    finally:
        for part in (reader, fence, publisher):
            await part.stop()


async def test_the_observer_does_its_work(secured: Secured, tmp_path: Path) -> None:
    """The faust application itself, as its user: it joins its group and writes what it sees."""
    stop = asyncio.Event()
    settings = Settings(kafka_bootstrap=secured.node.bootstrap, state_dir=tmp_path)
    running = asyncio.ensure_future(observer.serve(settings, stop, security=secured.as_("observer").security))
    admin = KafkaBroker(*secured.node.administration).admin()
    await admin.start()
    try:
        async with asyncio.timeout(20):
            while not await admin.members(observer.NAME):
                assert not running.done(), running.exception()
                await asyncio.sleep(0.2)
        stop.set()
        await running
    finally:
        await admin.stop()
    assert (tmp_path / observer.SNAPSHOT).exists()


@pytest.mark.parametrize("user", [*AGENTS, *OUTSIDE])
async def test_nobody_writes_or_reads_another_topic(secured: Secured, user: str) -> None:
    """Every topic there is is tried: written only where declared; of those that may not be read, the first and last are denied by name."""
    broker = secured.as_(user)
    assert await write(broker, TOPICS) == allowed(user, "write")
    closed = sorted(set(TOPICS) - allowed(user, "read"))
    assert closed
    for topic in (closed[0], closed[-1]):
        await refused(read(broker, [topic], polls=20), f"User:{user} may not .*{topic}")


@pytest.mark.parametrize("agent", AGENTS)
async def test_nobody_takes_another_group_or_transactional_id(secured: Secured, agent: str) -> None:
    """Offsets of another's group are neither read nor moved, and its lanes' ids cannot be fenced away."""
    broker = secured.as_(agent)
    others = [name for name in LANED if name != agent]
    group, inputs = f"{PREFIX}{others[0]}", wiring.groups()[f"{PREFIX}{others[0]}"]
    admin = broker.admin()
    await admin.start()
    try:
        for name in others:
            await refused(admin.committed(f"{PREFIX}{name}", [(inputs[0], 0)]), f"{PREFIX}{name}")
        await refused(admin.set_offsets(group, {(inputs[0], 0): 0}), group)
    finally:
        await admin.stop()
    mine = sorted(allowed(agent, "read"))
    await refused(join(broker, group, mine[:1]), f"consumer group {group}")
    for name in [
        *(f"{PREFIX}{other}-0" for other in others),
        *(["ratchet.evidence.fence"] if agent != "evidence" else []),
    ]:
        await refused(transact(broker, name, (), "", ()), f"transactional id {name}")
    if agent in LANED:
        own = transact(broker, f"{PREFIX}{agent}-0", sorted(allowed(agent, "write"))[:1], group, mine[:1])
        await refused(own, group)


@pytest.mark.parametrize("user", ["router", "judge", "evidence", "upstream", "operator", "repair"])
async def test_nobody_changes_topics_users_or_rights(secured: Secured, user: str) -> None:
    """Creating a topic, more partitions, other retention, deletion, a user, a right: each is refused, whoever asks."""
    broker = secured.as_(user)
    admin = broker.admin()
    await admin.start()
    try:
        await refused(admin.create([TopicSpec("ratchet.new", 1, 1, {})]), "topic ratchet.new")
    finally:
        await admin.stop()
    async with KafkaAccess(broker.bootstrap, broker.security) as access:
        wish = Acl(f"User:{user}", Right("topic", "ratchet.keyring", "read"))
        await refused(access.allow([wish]), "create ACLs")
        await refused(access.withdraw([wish]), "delete ACLs")
        await refused(access.set_passwords({"router": "stolen"}), "set passwords")
    client = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap, **broker.security.client())
    await client.start()
    topic = "ratchet.requests"
    try:
        with pytest.raises(TopicAuthorizationFailedError):
            await client.create_partitions({topic: NewPartitions(2)})
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, configs={"retention.ms": "1"})
        (changed,) = await client.alter_configs([resource])
        assert [row[0] for row in changed.resources] == [29]
        gone = await client.delete_topics([topic])
        assert [code for _, code in gone.topic_error_codes] == [29]
    finally:
        await client.close()


async def test_upstream_asks_and_reads_answers_in_a_group_of_its_own(secured: Secured) -> None:
    """A producer of requests and a consumer of answers; the group's name begins with the user's."""
    broker = secured.as_("upstream")
    await join(broker, "upstream.shop", ["ratchet.answers"])
    await refused(join(broker, "shop", ["ratchet.answers"]), "consumer group shop")
    await refused(read(broker, ["ratchet.decisions"], polls=20), "ratchet.decisions")


async def test_an_auditor_subscribes_and_nothing_else(secured: Secured) -> None:
    """Promotions and checkpoints, in a group; not one record of anybody's text."""
    broker = secured.as_("auditor")
    await join(broker, "auditor.bank", ["ratchet.audit", "ratchet.promotions"])
    assert await write(broker, TOPICS) == set()
    await refused(read(broker, ["ratchet.requests"], polls=20), "ratchet.requests")


async def test_an_operator_sees_lag_and_settings_and_moves_no_offset(secured: Secured) -> None:
    """`ratchet status` and `doctor` need groups' offsets, topics' counts and their configuration."""
    admin = secured.as_("operator").admin()
    await admin.start()
    try:
        for group, topics in wiring.groups().items():
            assert len(await admin.committed(group, [(topic, 0) for topic in topics])) == len(topics)
        assert set(await admin.partitions(TOPICS)) == set(TOPICS)
        assert set(await admin.configs(TOPICS)) == set(TOPICS)
        await refused(admin.set_offsets("ratchet.router", {("ratchet.requests", 0): 0}), "ratchet.router")
    finally:
        await admin.stop()


async def test_repair_moves_offsets_and_sends_letters_back(secured: Secured) -> None:
    """The one user outside who may do in an agent's place what a person decided."""
    broker = secured.as_("repair")
    admin = broker.admin()
    await admin.start()
    try:
        await admin.set_offsets("ratchet.judge", {("ratchet.cases", 0): 0})
    finally:
        await admin.stop()
    topics = ["ratchet.cases.dlq", state_topic("judge")]
    await transact(broker, "ratchet.judge-0", topics, "ratchet.judge", ["ratchet.cases"])


async def start(broker: KafkaBroker) -> None:
    """Come in and leave again."""
    admin = broker.admin()
    await admin.start()
    await admin.stop()


async def test_who_comes_in_wrongly_is_told_why(secured: Secured, tmp_path: Path) -> None:
    """A wrong password, no user, another authority, the clear: refused at once, and no password is in the words."""
    where, other = secured.node.bootstrap, ensure_certificates(tmp_path)
    for user, password in (("router", "guessed-password"), ("nobody", "guessed-password")):
        with pytest.raises(Denied, match=f"does not know User:{user} with this password") as told:
            await start(secured.as_(user, password))
        assert "guessed-password" not in str(told.value)
    with pytest.raises(Denied, match=rf"is not trusted.*RATCHET_KAFKA_CA={other.authority}"):
        await start(KafkaBroker(where, Security("sasl_ssl", other.authority, "router", "x")))
    with pytest.raises(Denied, match=r"speaks TLS.*RATCHET_KAFKA_SECURITY=sasl_ssl"):
        await start(KafkaBroker(where, PLAINTEXT))
    with pytest.raises(BrokerError):  # the administrator's door is for certificates
        await start(KafkaBroker(secured.node.administration[0], secured.as_("router").security))


async def test_a_right_withdrawn_is_a_difference_and_bites_at_once(secured: Secured) -> None:
    """Who lost a right is told by the comparison and refused by the broker; given back, all is as generated."""
    right = Acl("User:ladder", Right("topic", "ratchet.policies", "write"))
    stray = Acl("User:ladder", Right("topic", "ratchet.keyring", "read"))
    async with KafkaAccess(*secured.node.administration) as access:
        await access.withdraw([right])
        await access.allow([stray])
        found = compare(generated(()), await access.acls())
        assert (found.missing, found.extra) == ((right,), (stray,))
        assert await write(secured.as_("ladder"), ["ratchet.policies"]) == set()
        await access.allow(found.missing)
        await access.withdraw(found.extra)
        assert compare(generated(()), await access.acls()).same
    assert await write(secured.as_("ladder"), ["ratchet.policies"]) == {"ratchet.policies"}


async def test_a_password_rotates_under_a_connection(secured: Secured) -> None:
    """Who is connected stays; the old password opens nothing new; a dropped user comes in no more."""
    user = "upstream"
    held = secured.as_(user).producer()
    await held.start()
    try:
        await held.send("ratchet.requests", 0, [RECORD])
        async with KafkaAccess(*secured.node.administration) as access:
            await access.set_passwords({user: "the next one"})
            await held.send("ratchet.requests", 0, [RECORD])
            await start(secured.as_(user, "the next one"))
            await refused(start(secured.as_(user)), "does not know")
            await access.drop_user(user)
            await refused(start(secured.as_(user, "the next one")), "does not know")
            await access.set_passwords({user: f"password of {user}"})
    finally:
        await held.stop()


async def test_a_wider_right_of_the_work_is_a_wider_right_of_the_broker(secured: Secured) -> None:
    """The tests can fail: with one more output declared and applied, the broker takes what it refused."""
    more = Work("upstream", "outside", outputs=("verdicts",))
    (right,) = rights(more)
    assert await write(secured.as_("upstream"), ["ratchet.verdicts"]) == set()
    async with KafkaAccess(*secured.node.administration) as access:
        await access.allow([Acl("User:upstream", right)])
        assert await write(secured.as_("upstream"), ["ratchet.verdicts"]) == {"ratchet.verdicts"}
        await access.withdraw([Acl("User:upstream", right)])


async def test_the_shredder_erases(secured: Secured) -> None:
    """The agent itself, as its user: it reads where requests end and how topics stand, and commits an erasure in one transaction."""
    broker, admin_broker = secured.as_("shredder"), KafkaBroker(*secured.node.administration)
    requests, clock = secured.as_("shredder"), SystemClock()
    await refused(read(requests, ["ratchet.requests"], polls=20), "ratchet.requests")
    admin = admin_broker.admin()
    await admin.start()
    (end,) = (await admin.ends([("ratchet.requests", 0)])).values()
    for user, payload in (("compliance", policy()), ("judge", route("cards")), ("evidence", wrapped(1))):
        facts = Facts(secured.as_(user), user)
        await facts.send(payload, payload.event_key())
        await facts.stop()
    runner, standing = Runner(broker, clock, settings=RuntimeSettings(linger_s=0.002)), Standing(broker)
    agent = Shredder(runner.view("policies"), runner.view("keyring"), standing, Silent(), clock)
    runner.add_transform(agent, workers=1)
    task = asyncio.create_task(runner.run())
    reader = admin_broker.reader(await admin.ends([("ratchet.observations", 0)]))
    await reader.start()
    try:
        said = Facts(secured.as_("operator"), "operator")
        await said.send(command(), "erase")
        await said.stop()
        found: list[SubjectErased] = []
        async with asyncio.timeout(90):  # a static member of an earlier test keeps its lane until its session ends
            while not found:
                assert not task.done(), task.exception()
                rows = (await reader.poll(timeout_s=0.2, max_records=100)).values()
                payloads = [decode(row, 1).data for some in rows for row in some if row.value != b"value"]
                found = [payload for payload in payloads if isinstance(payload, SubjectErased)]
        (receipt,) = found
        assert [(row.partition, row.offset) for row in receipt.cut] == [(0, end)]
        assert (receipt.keys, receipt.hold_checked) == (1, True)
        assert DAY_MS < receipt.effective_at_ms - clock.now_ms() < 100 * DAY_MS
        assert receipt.horizons.payload_ms - receipt.at_ms >= 31 * DAY_MS + int(SEGMENT_MS)
        await standing.touch("keyring")
    finally:
        await runner.stop()
        await task
        for part in (reader, standing, admin):
            await part.stop()
