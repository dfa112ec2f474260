"""The one composition root: settings in, a running process of agents out. Nothing else builds an adapter for an agent.

Each agent is imported by its builder: a process holds what it runs, and no more.
"""

import asyncio
import hashlib
import hmac
import logging
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.transport import transport
from infra.artifacts import DirectoryStore
from infra.clock import SystemClock
from infra.engine import Engine, EngineGuest
from infra.engine_mixed import MixedEngine
from infra.engine_scripted import Script, ScriptedEngine, ScriptedGuest
from infra.gate_keys import GateKeyring
from infra.kek import Kek, LocalKek, VaultKek
from infra.keys import Keyring, Voice
from infra.notary import LocalNotary, VaultNotary, verify
from infra.provider import Provider
from infra.secrets import ATTESTER_KEY, NOTARY_KEY, SecretSource, VaultSecrets, open_secrets
from infra.settings import Settings
from infra.telemetry import Telemetry, configure_logs
from schemas import topics
from schemas.errors import Refused, Unavailable
from schemas.payload import Payload
from schemas.tlog.policy import parse_policy
from schemas.tlog.strict import Malformed
from streams import snapshot
from streams.acl import principal_of
from streams.facts import Facts
from streams.fence import Fence, Publisher
from streams.kafka import KafkaBroker
from streams.reader import ByPlace, EveryOffset
from streams.runner import Runner, collect_rarely
from streams.shapes import AnyFold, Transform
from streams.wire import Decoder, Verify, speaker

if TYPE_CHECKING:
    from agents.evidence.quorum import Quorum
    from agents.screen import Screen
    from infra.store_redis import RedisStore

STREAM_AGENTS = (
    "router",
    "inference",
    "trust",
    "cases",
    "ladder",
    "judge",
    "trainer",
    "estimator",
    "learner",
    "compliance",
    "jobs",
    "grader",
    "shredder",
)
LISTENERS = frozenset(
    {"router", "cases", "ladder", "judge", "trainer", "estimator", "learner", "compliance", "shredder"}
)  # read what principals say; no other gets their keys
AGENTS = (*STREAM_AGENTS, "evidence", "observer")
ADAPTER_KEY = "adapters"
VIEW = "policies"
VIEWERS = (
    "router",
    "inference",
    "trust",
    "grader",
    "shredder",
)  # who holds it; a builder of another agent that asks for it is refused the topic
KEYRING = "keyring"
KEYLESS = frozenset(
    {"shredder"}
)  # who erases derives no pseudonym and no commitment: it may not read what they are made of
JOB_READS = ("cases", KEYRING, "policies")  # what a training job, which connects as `jobs`, reads without a group
log = logging.getLogger("ratchet")


class TenantKeys:
    """Keys per tenant, derived from one master by HMAC-SHA-256: every tenant has some, also one never seen before."""

    def __init__(self, master: bytes) -> None:
        self._master = master

    def _key(self, purpose: str, tenant: str) -> bytes:
        return hmac.new(self._master, f"{purpose}\x1f{tenant}".encode(), hashlib.sha256).digest()

    def commitment_key(self, tenant: str) -> bytes:
        return self._key("commitment", tenant)

    def pseudonym_key(self, tenant: str) -> bytes:
        return self._key("pseudonym", tenant)


@dataclass(slots=True)
class Process:
    """One process's adapters, opened once and closed together."""

    settings: Settings
    clock: SystemClock
    telemetry: Telemetry
    secrets: SecretSource
    keys: TenantKeys
    broker: KafkaBroker
    stack: AsyncExitStack
    companions: list[Callable[[], Coroutine[Any, Any, None]]] = field(
        default_factory=list[Callable[[], Coroutine[Any, Any, None]]]
    )
    _gate_keys: GateKeyring | None = None

    @property
    def artifacts(self) -> DirectoryStore:
        return DirectoryStore(self.settings.state_dir / "artifacts")

    async def store(self) -> "RedisStore":
        if self.settings.redis_url is None:
            raise Refused("REDIS_URL is not set; `ratchet up` writes it for its agents", kind="settings")
        from infra.store_redis import RedisStore  # heavy: most processes have no use for Redis

        store = RedisStore(self.settings.redis_url, timeout_s=self.settings.redis_timeout_ms / 1000)
        self.stack.push_async_callback(store.close)
        return store

    async def gate_keys(self) -> GateKeyring:
        """One ring for all agents of the process, followed for as long as it runs."""
        if self._gate_keys is None:
            self._gate_keys = await GateKeyring.open(self.secrets)
            self.companions.append(self._gate_keys.follow)
        return self._gate_keys

    async def facts(self, name: str) -> Facts:
        facts = Facts(self.broker, name)
        self.stack.push_async_callback(facts.stop)
        return facts


def log_dir(settings: Settings) -> Path:
    """Where the evidence log lies."""
    return settings.state_dir / "evidence"


def open_notary(settings: Settings, secrets: SecretSource) -> LocalNotary | VaultNotary:
    """Who signs checkpoints: Vault's transit key where secrets come from Vault, else the first-look key file."""
    if isinstance(secrets, VaultSecrets):
        return VaultNotary(
            secrets.client, key=NOTARY_KEY, origin=f"ratchet/{settings.instance}", mount=settings.vault_transit
        )
    return LocalNotary.create(settings.state_dir / "notary.key", f"dev.ratchet/{settings.instance}")


async def open_kek(settings: Settings, secrets: SecretSource) -> Kek:
    """Who wraps subjects' keys: Vault's transit keys where secrets come from Vault, else keys derived from the local file."""
    if isinstance(secrets, VaultSecrets):
        return VaultKek(secrets.client, settings.vault_transit)
    return LocalKek(await secrets.commitment_key("kek"))


async def open_quorum(process: Process) -> "Quorum | None":
    """The witnesses of the policy file that the settings name; None, and nobody has to witness, where they name none."""
    from agents.evidence.quorum import Quorum
    from infra.witness_client import HttpWitnesses

    file = process.settings.witnesses
    if file is None:
        return None
    try:
        policy = parse_policy(await asyncio.to_thread(file.read_text, encoding="utf-8"))
    except (OSError, UnicodeDecodeError, Malformed) as exc:
        raise Refused(
            f"RATCHET_WITNESSES={file}: {exc}; accepted: a tlog-policy file with witness … URL, group and quorum lines",
            kind="settings",
        ) from exc
    witnesses = HttpWitnesses(policy, verify)
    process.stack.push_async_callback(witnesses.close)
    return Quorum(policy, witnesses, process.clock)


async def open_engine(process: Process) -> MixedEngine:
    """Providers, and for arms of our own: vLLM in Ray actors; or, only where the settings say so by name, the scripted engine."""
    settings = process.settings
    public = {ADAPTER_KEY: await process.secrets.public_key(ADAPTER_KEY)}

    async def own() -> Engine:
        if settings.engine == "scripted":
            log.warning("the engine is scripted: answers come from a hash, for tests and load only")
            return ScriptedEngine(Script(), replica=f"scripted-{settings.ordinal}")
        from infra.cluster import EngineSettings, RayEngines, connect  # heavy: only the process that serves loads Ray

        await asyncio.to_thread(connect, settings.ray_address or "local")
        ours = EngineSettings("vllm", settings.state_dir / "artifacts", public, max_replicas=settings.max_replicas)
        return RayEngines(ours, process.clock)

    return MixedEngine(own, open_providers(process), process.clock)


def open_providers(process: Process) -> dict[str, Provider]:
    """Every provider that an arm may name. In production a stand-in refuses."""
    from infra.provider_anthropic import Anthropic  # heavy: clients of HTTP
    from infra.provider_http import HttpCaller
    from infra.provider_keys import ProviderKeys
    from infra.provider_openai import Azure, OpenAiHttp
    from infra.provider_stand_in import NoStandIn, StandIn

    settings, clock = process.settings, process.clock
    caller = HttpCaller(
        ProviderKeys(process.secrets, clock),
        clock,
        plain_http=frozenset(settings.provider_http.split(",")) - {""},
        ca=settings.provider_ca,
    )
    process.stack.push_async_callback(caller.close)
    made: list[Provider] = [
        OpenAiHttp(caller),
        OpenAiHttp(caller, Azure()),
        Anthropic(caller),
        NoStandIn() if settings.production else StandIn(clock),
    ]
    return {provider.name: provider for provider in made}


async def open_guest(process: Process) -> EngineGuest:
    """Who asks the engines that inference loads: in Ray from wherever it runs, of the scripted kind one of its own."""
    settings = process.settings
    if settings.engine == "scripted":
        return ScriptedGuest(ScriptedEngine(Script(), replica=f"scripted-{settings.ordinal}"))
    from infra.cluster import EngineSettings, RayGuest  # heavy

    public = {ADAPTER_KEY: await process.secrets.public_key(ADAPTER_KEY)}
    ours = EngineSettings("vllm", settings.state_dir / "artifacts", public)
    return RayGuest(ours, settings.ray_address, process.clock)


async def open_screen(clock: SystemClock) -> "Screen":
    """The gate's detectors, by the time that the scanning thread computes, and warm: the first text is scanned like any other."""
    from agents.screen import Screen
    from infra.detect import detect, named, warm

    await asyncio.to_thread(warm)
    return Screen(detect, clock.computed, named)


async def _router(process: Process, runner: Runner) -> Transform:
    from agents.router.actor import Gatekeeper, Router
    from agents.router.around import StoreAround

    store = await process.store()
    around = StoreAround(store, process.clock, f"{process.settings.instance}-{process.settings.ordinal}")
    again = ByPlace(process.broker)
    process.stack.push_async_callback(again.stop)
    keys = await process.gate_keys()
    return Router(
        runner.view(VIEW),
        store,
        around,
        again,
        process.clock,
        process.keys.pseudonym_key,
        artifact=process.artifacts.get_bytes,
        gatekeeper=Gatekeeper(await open_screen(process.clock), keys.seal_map),
    )


async def _inference(process: Process, runner: Runner) -> Transform:
    from agents.inference.actor import Inference

    engine = await open_engine(process)
    process.stack.push_async_callback(engine.close)
    instance = f"{process.settings.instance}-{process.settings.ordinal}"
    agent = Inference(
        runner.view(VIEW),
        engine,
        await process.store(),
        await process.facts("inference"),
        process.clock,
        instance,
        engine,
        scaling=engine,
    )

    async def follow() -> None:
        await runner.ready.wait()
        await agent.follow()

    process.companions.append(follow)
    return agent


async def _trust(process: Process, runner: Runner) -> Transform:
    from agents.trust.actor import Trust

    store = None if process.settings.redis_url is None else await process.store()
    screen, keys = await open_screen(process.clock), await process.gate_keys()
    return Trust(runner.view(VIEW), process.clock, screen, keys, store, keys.learn)


async def _jobs(process: Process, runner: Runner) -> Transform:
    from agents.trainer.actor import Jobs
    from infra.cluster import connect
    from infra.jobs import RayJobs

    settings = process.settings
    await asyncio.to_thread(connect, settings.ray_address or "local")
    job = settings.model_copy(update={"vault_wrapped_secret_id": None})  # ours is spent: a job logs in by the issuer
    return Jobs(RayJobs(settings.state_dir, job.to_env()))


async def _grader(process: Process, runner: Runner) -> Transform:
    from agents.cases.actor import Grader

    voice = Voice(process.secrets, "grader", "grader", process.clock)
    return Grader(runner.view(VIEW), await open_guest(process), voice, process.clock)


async def _shredder(process: Process, runner: Runner) -> Transform:
    from agents.evidence.shredder import Shredder
    from streams.standing import Standing

    standing = Standing(process.broker)
    process.stack.push_async_callback(standing.stop)
    voice = Voice(process.secrets, "shredder", "shredder", process.clock)
    backup_ms = process.settings.backup_days * topics.DAY_MS
    agent = Shredder(runner.view(VIEW), runner.view(KEYRING), standing, voice, process.clock, backup_ms)

    async def touch() -> None:
        await runner.ready.wait()
        await agent.keep_touching()

    async def expire() -> None:
        await runner.ready.wait()
        await agent.keep_expiring(partial(process.artifacts.expire, snapshot.BEGINS))

    process.companions += (touch, expire)
    return agent


async def open_proof(process: Process) -> Verify:
    """Who may speak, kept up to date for as long as the process runs."""
    keyring = await Keyring.open(process.secrets, process.settings.state_dir / "principals.seen")
    if keyring.ring.since_ms is None:
        log.warning("no principal's key is set: requests, verdicts and commands are taken unproven")
    process.companions.append(keyring.follow)
    return lambda record: speaker(keyring.ring, record)


TRANSFORMS: dict[str, Callable[[Process, Runner], Awaitable[Transform]]] = {
    "router": _router,
    "inference": _inference,
    "trust": _trust,
    "jobs": _jobs,
    "grader": _grader,
    "shredder": _shredder,
}


def _cases() -> AnyFold:
    from agents.cases.fold import Cases

    return Cases()


def _ladder() -> AnyFold:
    from agents.trust.fold import Ladder

    return Ladder()


def _judge() -> AnyFold:
    from agents.judge.fold import Judge

    return Judge()


def _trainer() -> AnyFold:
    from agents.trainer.fold import Trainer

    return Trainer()


def _learner() -> AnyFold:
    from agents.router.fold import Learner

    return Learner()


def _estimator() -> AnyFold:
    from agents.router.estimator import Estimator

    return Estimator()


def _compliance() -> AnyFold:
    from agents.evidence.compliance import Compliance

    return Compliance()


FOLDS: dict[str, Callable[[], AnyFold]] = {
    "cases": _cases,
    "ladder": _ladder,
    "judge": _judge,
    "trainer": _trainer,
    "estimator": _estimator,
    "learner": _learner,
    "compliance": _compliance,
}
WORKERS = {"inference": 128, "grader": 16, "shredder": 1}


@asynccontextmanager
async def open_process(
    settings: Settings, name: str, *, user: str, keyed: bool = True
) -> AsyncGenerator[Process, None]:
    """Logs, telemetry and secrets of a process, and Kafka as `user`. Raises Refused or Unavailable before any work.

    Not `keyed`: tenants' keys are not read, and those that it has are nobody's.
    """
    configure_logs(settings.log_level, name)
    if settings.kafka_bootstrap is None:
        raise Refused("KAFKA_BOOTSTRAP is not set; `ratchet up` writes it for its agents", kind="settings")
    async with AsyncExitStack() as stack:
        telemetry = Telemetry(name)
        telemetry.open(settings.metrics_host, settings.metrics_port)
        stack.callback(telemetry.close)
        secrets = await open_secrets(settings, log.warning)
        stack.push_async_callback(secrets.close)
        keys = TenantKeys(await secrets.commitment_key("tenants") if keyed else os.urandom(32))
        broker = KafkaBroker(settings.kafka_bootstrap, await transport(settings, secrets, user))
        yield Process(settings, SystemClock(), telemetry, secrets, keys, broker, stack)


async def _evidence(process: Process, stop: asyncio.Event) -> None:
    """Read everything, log it, sign it, have it witnessed, announce it; until `stop`."""
    from agents.evidence.actor import Collector
    from agents.evidence.attest import SigningAttestor
    from agents.evidence.keyring import Keyring as SubjectKeys
    from agents.evidence.log import LogDirectory
    from agents.evidence.record import Draft
    from agents.evidence.sequencer import Sequencer
    from agents.evidence.trust import key_id

    settings, broker, clock = process.settings, process.broker, process.clock
    notary = await asyncio.to_thread(open_notary, settings, process.secrets)
    attester = await process.secrets.public_key(ATTESTER_KEY)
    quorum = await open_quorum(process)
    fence = Fence(broker, "evidence")
    await fence.start()
    process.stack.push_async_callback(fence.stop)
    publisher = Publisher(broker, settings.partitions)
    process.stack.push_async_callback(publisher.stop)
    makes_keys = Publisher(broker, settings.partitions, owner="keys")
    process.stack.push_async_callback(makes_keys.stop)
    keyring = SubjectKeys(broker, await open_kek(settings, process.secrets), clock, makes_keys)
    process.stack.push_async_callback(keyring.stop)
    reader = EveryOffset(broker, topics.recorded(), lambda record: Draft(record).id, topics.compacted())
    process.stack.push_async_callback(reader.stop)
    store = await asyncio.to_thread(LogDirectory, log_dir(settings))
    sequencer = await Sequencer.open(store, notary=notary, fence=fence, check=verify, attester=attester, quorum=quorum)
    process.stack.callback(sequencer.close)
    attestor = SigningAttestor(sequencer.origin, key_id(attester), partial(process.secrets.sign, ATTESTER_KEY))
    collector = Collector(
        sequencer, reader, process.keys, keyring, publisher, clock, attestor, payload_days=settings.payload_days
    )
    collect_rarely()
    await collector.run(stop)


async def serve(names: Sequence[str], settings: Settings) -> None:
    """Run the named agents in this process until SIGTERM or SIGINT, then finish what was accepted and leave.

    Any agent's crash ends the process: the log makes restarting safe, and who started it starts it again.
    """
    unknown = sorted(set(names) - set(AGENTS))
    if unknown or not names:
        raise Refused(f"unknown agents {unknown}; known are {', '.join(AGENTS)}", kind="usage")
    keyed = not KEYLESS.issuperset(names)
    async with open_process(settings, "+".join(names), user=principal_of(names), keyed=keyed) as process:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        runner = Runner(
            process.broker,
            process.clock,
            ordinal=settings.ordinal,
            observe=process.telemetry.observe,
            state_dir=settings.state_dir / "runner",
            decoder=Decoder(await open_proof(process)) if LISTENERS & set(names) else None,
            artifacts=process.artifacts,
        )
        for name in names:
            if name in TRANSFORMS:
                runner.add_transform(await TRANSFORMS[name](process, runner), workers=WORKERS.get(name))
            elif name in FOLDS:
                runner.add_fold(FOLDS[name]())
        work = [asyncio.create_task(companion()) for companion in process.companions]
        if any(name in STREAM_AGENTS for name in names):
            work.append(asyncio.create_task(_run(runner, stop)))
        if "evidence" in names:
            work.append(asyncio.create_task(_evidence(process, stop)))
        log.info("agents are starting: %s; metrics on port %d", ", ".join(names), process.telemetry.port)
        stopping = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([*work, stopping], return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        failures = [task.exception() for task in done if task is not stopping and task.exception() is not None]
        companions = work[: len(process.companions)]
        for task in companions:
            task.cancel()
        await asyncio.wait([*work, stopping])
        if failures and failures[0] is not None:
            raise failures[0]


async def _run(runner: Runner, stop: asyncio.Event) -> None:
    """The runner until `stop`, then drained."""

    async def end() -> None:
        await stop.wait()
        await runner.stop()

    ending = asyncio.create_task(end())
    collect_rarely()
    try:
        await runner.run()
    finally:
        ending.cancel()


INPUTS = {
    "router": ("requests", "scores"),
    "inference": ("decisions", "shadows"),
    "trust": ("results", "reviews"),
    "jobs": ("training",),
    "grader": ("reviews",),
    "shredder": ("commands",),
}


def groups() -> dict[str, tuple[str, ...]]:
    """Consumer group -> input topics of every agent: what `ratchet up` gives explicit offsets."""
    found: dict[str, tuple[str, ...]] = {
        f"ratchet.{name}": (*(topics.PREFIX + topic for topic in inputs), topics.deferred_topic(name))
        for name, inputs in INPUTS.items()
    }
    for name, fold in FOLDS.items():
        found[f"ratchet.{name}"] = tuple(topics.PREFIX + topic.removeprefix(topics.PREFIX) for topic in fold().inputs)
    return found


def away(error: BaseException) -> bool:
    """Whether a process ended because the world is away, so that starting again may help."""
    return isinstance(error, Unavailable)


__all__ = ["AGENTS", "Payload", "Process", "groups", "open_process", "serve"]
