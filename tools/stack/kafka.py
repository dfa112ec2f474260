"""Apache Kafka as a process of this machine: jars from Maven Central, one KRaft node (or several), on loopback.

The fallback for a machine without Docker, and what integration tests start: the same broker as anywhere, with the internal
topics cut down to a laptop's size.
"""

import asyncio
import contextlib
import shutil
import struct
import subprocess
import tempfile
import uuid
from base64 import urlsafe_b64encode
from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.settings import load
from schemas.errors import Unavailable
from streams.security import MECHANISM, PLAINTEXT, Security, tls_context

from .ports import LOOPBACK, ask, free_ports, taken
from .processes import Running, kill, start, stop, wait_until
from .tls import ADMINISTRATOR, BROKER, Certificates

VERSION = "4.1.1"
_POM = Path(__file__).parent / "pom.xml"
_YEAR_MINUTES = 400 * 24 * 60


@dataclass(frozen=True)
class KafkaNode:
    """One node (broker and controller): what starts it and what it is reached by. Start it again on the same folder: same data."""

    config: Path
    jars: Path
    port: int
    log: Path
    heap: str = "512m"
    prefix: tuple[str, ...] = ()  # before `java`: for example into another mount namespace
    tls: Certificates | None = None
    inner_port: int = 0

    @property
    def administration(self) -> tuple[str, Security]:
        """Where the administrator of a secured node connects, and as whom: by certificate, a super user."""
        if self.tls is None:
            return self.bootstrap, PLAINTEXT
        return f"{LOOPBACK}:{self.inner_port}", administrator(self.tls)

    @property
    def bootstrap(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    def start(self, *, tag: str = "", timeout_s: float = 60.0, brokers: int = 1) -> Running:
        """Start the node and wait until it knows of `brokers` live brokers."""
        running = self.launch(tag=tag)
        try:
            self.wait(running, timeout_s=timeout_s, brokers=brokers)
        except Unavailable:
            kill(running)
            raise
        return running

    def launch(self, *, tag: str = "") -> Running:
        """Start the node, wait for nothing."""
        if taken(self.port):
            raise Unavailable(
                f"port {self.port} is taken, Kafka cannot listen there: stop what listens, or give another --kafka-port"
            )
        return start("kafka", [*self.prefix, *_java(self.heap), *_classpath(self.jars), "kafka.Kafka", str(self.config)],
                     log=self.log, tag=tag)  # fmt: skip

    def wait(self, running: Running | None, *, timeout_s: float = 60.0, brokers: int = 1) -> None:
        """Wait until the node names `brokers` live brokers."""
        ca = None if self.tls is None else self.tls.authority
        wait_until(lambda: live_brokers(self.bootstrap, ca) >= brokers, running, timeout_s=timeout_s, what="Kafka")


def jars(cache_dir: Path) -> Path:
    """The folder with Kafka's jars, fetched by Maven the first time. Two at once do not disturb each other: the last step is a rename."""
    home = cache_dir / f"kafka-{VERSION}"
    if home.is_dir():
        return home
    if shutil.which("mvn") is None:
        raise Unavailable(
            "Kafka is not here: neither KAFKA_BOOTSTRAP, nor a Docker daemon, nor Maven (mvn) to fetch its jars; "
            "install Maven and Java 17 (Debian: apt install maven openjdk-17-jre-headless), or start Docker"
        )
    cache_dir.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix="kafka-", dir=cache_dir))
    try:
        argv = ["mvn", "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies", f"-DoutputDirectory={work}"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=work)
        if done.returncode != 0 or not list(work.glob("kafka_2.13-*.jar")):
            ends = "\n".join((done.stdout + done.stderr).splitlines()[-8:])
            raise Unavailable(f"Maven could not fetch Kafka {VERSION}; it ended with:\n{ends}")
        work.chmod(0o755)
        with contextlib.suppress(OSError):  # another run was faster: its folder is as good as ours
            work.rename(home)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return home


def prepare_node(
    data: Path,
    cache_dir: Path,
    *,
    port: int,
    controller_port: int,
    node_id: int = 1,
    voters: Mapping[int, tuple[str, int]] | None = None,
    cluster_id: str = "",
    settings: Mapping[str, str] | None = None,
    log: Path | None = None,
    heap: str = "512m",
    tls: Certificates | None = None,
    inner_port: int = 0,
) -> KafkaNode:
    """Write the node's configuration and format its log folder, once: data that is there stays.

    `voters` maps node id to (directory id, controller port) of every node of a larger cluster. With `tls` clients must come
    over TLS and prove a password, brokers and controllers a certificate (`inner_port`), and what no ACL allows is refused.
    """
    if shutil.which("java") is None:
        raise Unavailable(
            "Java is not on the path, Kafka needs 17 or newer: Debian: apt install openjdk-17-jre-headless"
        )
    library = jars(cache_dir)
    data.mkdir(parents=True, exist_ok=True)
    config = data / "server.properties"
    many = voters is not None and len(voters) > 1
    values = _node_settings(data, port, controller_port, node_id, many=many)
    if voters is not None and many:
        values["controller.quorum.bootstrap.servers"] = ",".join(f"{LOOPBACK}:{p}" for _, p in voters.values())
    if tls is not None:
        values |= _secured(tls, port, inner_port, controller_port)
    values.update(settings or {})
    config.write_text("".join(f"{k}={v}\n" for k, v in values.items()), encoding="utf-8")
    node = KafkaNode(config, library, port, log or data / "kafka.log", heap, tls=tls, inner_port=inner_port)
    if not (data / "logs" / "meta.properties").exists():
        quorum = (
            ["--initial-controllers", ",".join(f"{i}@{LOOPBACK}:{p}:{d}" for i, (d, p) in voters.items())]
            if voters is not None and many
            else ["--standalone"]
        )
        argv = [*_java("128m"), *_classpath(library), "kafka.tools.StorageTool", "format", *quorum,
                "-t", cluster_id or kafka_uuid(), "-c", str(config)]  # fmt: skip
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Unavailable(f"Kafka's storage at {data} could not be formatted: {done.stderr.strip()[-600:]}")
    return node


def kafka_uuid() -> str:
    """A new id as Kafka writes them."""
    return urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "x")  # noqa: TID251  a cluster's name


def live_brokers(bootstrap: str, ca: Path | None = None) -> int:
    """How many brokers the first address that answers names as live; 0 when none answers. One Metadata request, no client.

    With `ca`, over TLS: 1 where a broker answers, for before it knows who asks it tells no more than its versions.
    """
    if ca is not None:
        return _answers_tls(bootstrap, ca)
    request = struct.pack(">hhih7si", 3, 1, 1, 7, b"ratchet", 0)
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        answer = ask(host, int(port), struct.pack(">i", len(request)) + request, enough=12)
        if len(answer) >= 12 and answer[4:8] == b"\0\0\0\1":
            return struct.unpack_from(">i", answer, 8)[0]
    return 0


def _answers_tls(bootstrap: str, ca: Path) -> int:
    request = struct.pack(">hhih7s", 18, 0, 1, 7, b"ratchet")  # ApiVersions
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        answer = ask(host, int(port), struct.pack(">i", len(request)) + request, enough=10, context=tls_context(ca))
        if answer[4:10] == b"\0\0\0\1\0\0":
            return 1
    return 0


def administrator(tls: Certificates) -> Security:
    """The super user of a secured local broker, by certificate; it comes in by the inner listener only."""
    return Security("ssl", tls.authority, f"CN={ADMINISTRATOR}", certificate=tls.administrator)


@contextlib.contextmanager
def running_kafka(
    folder: Path,
    cache_dir: Path,
    *,
    settings: Mapping[str, str] | None = None,
    heap: str = "512m",
    tls: Certificates | None = None,
) -> Generator[KafkaNode, None, None]:
    """A fresh single broker in `folder` for the length of a `with`, killed at its end."""
    port, controller, inner = free_ports(3)
    node = prepare_node(
        folder,
        cache_dir,
        port=port,
        controller_port=controller,
        settings=settings,
        heap=heap,
        tls=tls,
        inner_port=inner,
    )
    running = node.start()
    try:
        yield node
    finally:
        kill(running)


@contextlib.asynccontextmanager
async def kafka_server(
    folder: Path, cache_dir: Path | None = None, *, settings: Mapping[str, str] | None = None
) -> AsyncGenerator[str, None]:
    """`async with kafka_server(tmp_path) as bootstrap`: the same for asyncio; the event loop goes on meanwhile."""
    context = running_kafka(folder, cache_dir or load().resolved().cache_dir, settings=settings)
    node = await asyncio.to_thread(context.__enter__)
    try:
        yield node.bootstrap
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


@dataclass
class KafkaCluster:
    """Several nodes of one cluster on this machine, each of which can be killed, frozen out and started again."""

    nodes: dict[int, KafkaNode]
    running: dict[int, Running]

    @property
    def bootstrap(self) -> str:
        return ",".join(node.bootstrap for node in self.nodes.values())

    def kill(self, node_id: int) -> None:
        """SIGKILL to one broker."""
        kill(self.running.pop(node_id))

    def stop(self, node_id: int) -> None:
        """SIGTERM to one broker: a controlled shutdown."""
        stop(self.running.pop(node_id), grace_s=30)

    def start(self, node_id: int) -> None:
        """Start a broker that was killed or stopped, on the data that it left."""
        self.running[node_id] = self.nodes[node_id].start(brokers=len(self.running) + 1)


@contextlib.contextmanager
def running_cluster(
    folder: Path, cache_dir: Path, *, size: int = 3, settings: Mapping[str, str] | None = None
) -> Generator[KafkaCluster, None, None]:
    """`size` brokers, replication 3 or as many as there are, `min.insync.replicas` one less."""
    ports = free_ports(2 * size)
    voters = {i + 1: (kafka_uuid(), ports[2 * i + 1]) for i in range(size)}
    cluster_id = kafka_uuid()
    replicas = str(min(3, size))
    common = {
        "default.replication.factor": replicas,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "share.coordinator.state.topic.replication.factor": replicas,
        "transaction.state.log.min.isr": str(max(1, min(3, size) - 1)),
        "min.insync.replicas": str(max(1, min(3, size) - 1)),
    }
    cluster = KafkaCluster({}, {})
    for i in range(size):
        cluster.nodes[i + 1] = prepare_node(
            folder / f"node-{i + 1}",
            cache_dir,
            port=ports[2 * i],
            controller_port=ports[2 * i + 1],
            node_id=i + 1,
            voters=voters,
            cluster_id=cluster_id,
            settings=common | dict(settings or {}),
            heap="384m",
        )
    try:
        for i, node in cluster.nodes.items():
            cluster.running[i] = node.launch()
        for i, node in cluster.nodes.items():
            node.wait(cluster.running[i], brokers=size, timeout_s=120)
        yield cluster
    finally:
        for running in cluster.running.values():
            kill(running)


def _java(heap: str) -> list[str]:
    """A JVM for a broker on a small machine: the second compiler would take half of its first minutes, so the first one is all."""
    return ["java", f"-Xmx{heap}", "-Xms64m", "-XX:+ExitOnOutOfMemoryError", "-XX:TieredStopAtLevel=1",
            "-Djava.awt.headless=true", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS"]  # fmt: skip


def _classpath(library: Path) -> list[str]:
    return ["-cp", f"{library}/*"]


def _node_settings(data: Path, port: int, controller_port: int, node_id: int, *, many: bool) -> dict[str, str]:
    values = {
        "process.roles": "broker,controller",
        "node.id": str(node_id),
        "listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{port},CONTROLLER://{LOOPBACK}:{controller_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.bootstrap.servers": f"{LOOPBACK}:{controller_port}",
        "log.dirs": str(data / "logs"),
        "auto.create.topics.enable": "false",  # a misspelt topic is an error, not a new topic
        "group.initial.rebalance.delay.ms": "0",
        # Groups are created with explicit offsets, and a missing offset is an error: so they must not expire with the idle group.
        "offsets.retention.minutes": str(_YEAR_MINUTES),
        # An orphan transaction blocks read_committed readers until it is found: look every 2 s, not every 10.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "2000",
        "offsets.topic.num.partitions": "8",
        "transaction.state.log.num.partitions": "8",
        "share.coordinator.state.topic.num.partitions": "1",
        "num.network.threads": "2",
        "num.io.threads": "4",
        "log.cleaner.dedupe.buffer.size": "16777216",
        "log.index.size.max.bytes": "2097152",
        "message.max.bytes": "1048588",
    }
    if not many:
        values |= {
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
        }
    return values


def _secured(tls: Certificates, port: int, inner_port: int, controller_port: int) -> dict[str, str]:
    """TLS everywhere, SCRAM for clients, certificates among brokers; refused is what no ACL allows."""
    listeners = f"CLIENT://{LOOPBACK}:{port},BROKER://{LOOPBACK}:{inner_port},CONTROLLER://{LOOPBACK}:{controller_port}"
    return {
        "listeners": listeners,
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "CLIENT:SASL_SSL,BROKER:SSL,CONTROLLER:SSL",
        "inter.broker.listener.name": "BROKER",
        "sasl.enabled.mechanisms": MECHANISM,
        f"listener.name.client.{MECHANISM.lower()}.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "listener.name.broker.ssl.client.auth": "required",
        "listener.name.controller.ssl.client.auth": "required",
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(tls.broker),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(tls.authority),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:CN={BROKER};User:CN={ADMINISTRATOR}",
        "allow.everyone.if.no.acl.found": "false",
    }
