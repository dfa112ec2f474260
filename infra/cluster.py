"""Ray: engines as actors behind the engine port, and jobs that outlive whoever started them.

Actors are named, detached and in one namespace: an inference process that was killed finds its engines again, loaded, within
a second of its restart. Who ends the stack calls `RayEngines.shutdown`. A replica that died is restarted by Ray, is given the
arms last named, proves them by its live probes, and only then takes traffic; until then calls go to the others, or are Unavailable.

Ray's own jobs API needs its dashboard with extras that a bare installation has not; a job here is a detached actor named by the
order that runs the command as a subprocess with low priority.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUntypedFunctionDecorator=false

import asyncio
import ctypes
import logging
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, cast

import ray
from ray.exceptions import ActorDiedError, GetTimeoutError, RayActorError, RayError

from infra import affinity
from infra.adapters import AdapterVerifier
from infra.artifacts import DirectoryStore
from infra.clock import Clock, SystemClock
from infra.engine import ArmSpec, Engine, Generation, LoadOutcome
from infra.engine_scripted import Script, ScriptedEngine
from infra.engine_vllm import VllmEngine, VllmSettings, environment
from infra.settings import process_environment
from schemas.errors import Refused, Unavailable

_LOG = logging.getLogger(__name__)
NAMESPACE = "ratchet"
NICE = 10  # a job's priority: serving comes first
JobStatus = Literal["absent", "running", "succeeded", "failed", "stopped"]


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What each replica runs. `store_root` is the artifact directory, `public_keys` raw ed25519 keys by key id.

    `gpus` per replica may be a fraction; None: 1 where the cluster has GPUs, else none. `cpus` counts where there is no GPU.
    """

    kind: Literal["vllm", "scripted"]
    store_root: Path
    public_keys: Mapping[str, bytes]
    replicas: int = 1
    cpus: float = 1.0
    gpus: float | None = None
    name: str = "engine"
    vllm: VllmSettings = field(default_factory=VllmSettings)
    script: Script = field(default_factory=Script)
    ensure_timeout_s: float = 300.0


def connect(address: str, *, num_cpus: int | None = None) -> None:
    """Join the cluster at `address` (`host:port`), or start a private one for this process with "local". Quiet, repeatable."""
    if ray.is_initialized():
        return
    quiet: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == "local":
            ray.init(include_dashboard=False, num_cpus=num_cpus, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RayError, TimeoutError, RuntimeError) as exc:
        raise Unavailable(f"no Ray cluster answers at {address}: {exc}") from exc


def disconnect() -> None:
    """Leave the cluster; detached actors stay."""
    ray.shutdown()


# What an actor answers with: errors of ours as plain tuples, since Ray wraps exceptions in classes of its own.
_Answer: TypeAlias = (
    tuple[Literal["ok"], Generation]
    | tuple[Literal["refused"], tuple[str, str, str, str]]
    | tuple[Literal["unavailable", "empty"], str]
)


class EngineActor:
    """One replica: an engine of the process it runs in. Started empty, by the pool or again by Ray."""

    def __init__(self, settings: EngineSettings, replica: str) -> None:
        verifier = AdapterVerifier(DirectoryStore(settings.store_root), settings.public_keys)
        self._ensured = False
        self._replica = replica
        self._engine: Engine
        if settings.kind == "vllm":
            self._engine = VllmEngine(DirectoryStore(settings.store_root), verifier, settings.vllm, replica)
        else:
            self._engine = ScriptedEngine(settings.script, replica, verifier)

    async def ensure(self, arms: Sequence[ArmSpec]) -> Sequence[LoadOutcome]:
        outcomes = await self._engine.ensure(arms)
        self._ensured = True
        return outcomes

    async def generate(self, arm: str, text: str, request_id: str, timeout_s: float) -> _Answer:
        if not self._ensured:
            return "empty", f"replica {self._replica} was restarted and has no arms yet"
        try:
            return "ok", await self._engine.generate(arm, text, request_id, timeout_s)
        except Refused as fault:
            return "refused", (str(fault), fault.kind, fault.field, fault.accepted)
        except Unavailable as fault:
            if not await self._engine.healthy():
                os._exit(1)  # the engine's own process died: Ray starts this one anew, whole
            return "unavailable", str(fault)

    async def healthy(self) -> bool:
        return self._ensured and await self._engine.healthy()

    async def about(self) -> dict[str, Any]:
        """Where this replica runs: for pinning tests and `ratchet status`."""
        context = ray.get_runtime_context()
        return {
            "replica": self._replica,
            "pid": os.getpid(),
            "node": context.get_node_id(),
            "gpus": context.get_accelerator_ids().get("GPU", []),
        }


@dataclass(slots=True)
class _Replica:
    name: str
    actor: Any = None
    ready: bool = False
    in_flight: int = 0
    by_arm: Counter[str] = field(default_factory=Counter[str])
    arms: frozenset[str] = frozenset()
    reviving: "asyncio.Task[None] | None" = None


class RayEngines:
    """The engine port over the replicas of a cluster. Each call goes to a replica where its arm is live, to the same ones while they have
    room (affinity.py); or to the one of `places` that the caller names.
    """

    def __init__(self, settings: EngineSettings, clock: Clock | None = None) -> None:
        self._settings = settings
        self._clock = clock or SystemClock()
        self._replicas = [_Replica(f"{settings.name}-{i}") for i in range(settings.replicas)]
        self._arms: tuple[ArmSpec, ...] = ()
        self._known: dict[str, str] = {}  # arm -> what its calls are kept together by
        self._loading = asyncio.Lock()
        self._closed = False

    async def ensure(self, arms: Sequence[ArmSpec]) -> Sequence[LoadOutcome]:
        """As the port says; a replica that is away is reported as not live, and is given the arms once it is back."""
        async with self._loading:
            self._arms = tuple(arms)
            self._known = {spec.arm: f"{spec.arm}/{spec.adapter}" for spec in arms}
            outcomes = await asyncio.gather(*(self._ensure(replica) for replica in self._replicas))
        return [outcome for per_replica in zip(*outcomes, strict=True) for outcome in per_replica]

    async def _ensure(self, replica: _Replica) -> Sequence[LoadOutcome]:
        try:
            if replica.actor is None:
                replica.actor = await asyncio.to_thread(self._actor, replica.name)
            async with asyncio.timeout(self._settings.ensure_timeout_s):
                outcomes = cast("Sequence[LoadOutcome]", await replica.actor.ensure.remote(list(self._arms)))
        except (RayError, TimeoutError) as exc:
            _LOG.warning("%s cannot be loaded: %s", replica.name, exc)
            self._lost(replica, forget=isinstance(exc, ActorDiedError))
            reason = f"replica is away: {type(exc).__name__}"
            return [LoadOutcome(s.arm, s.adapter, replica.name, False, reason, 0.0) for s in self._arms]
        replica.arms = frozenset(outcome.arm for outcome in outcomes if outcome.live)
        replica.ready = True
        return outcomes

    def places(self, arm: str) -> tuple[str, ...]:
        """The replicas where the arm is live, the one to ask first in front."""
        live = [replica for replica in self._replicas if replica.ready and arm in replica.arms]
        if len(live) < 2:
            return tuple(replica.name for replica in live)
        own = sum(replica.by_arm[arm] for replica in live)
        return affinity.order(self._known.get(arm, arm), {replica.name: replica.in_flight for replica in live}, own)

    async def generate(self, arm: str, text: str, request_id: str, timeout_s: float) -> Generation:
        found = self.places(arm)
        return await self.generate_at(found[0] if found else "", arm, text, request_id, timeout_s)

    async def generate_at(self, place: str, arm: str, text: str, request_id: str, timeout_s: float) -> Generation:
        """As `generate`, at this replica; `Unavailable` where the arm is not live there any more."""
        started = self._clock.monotonic()
        replica = next((one for one in self._replicas if one.name == place and one.ready and arm in one.arms), None)
        if replica is None:
            if arm not in self._known:
                raise Refused(
                    f"arm {arm!r} is not loaded", kind="unknown_arm", field="arm", accepted=str(sorted(self._known))
                )
            raise Unavailable(f"no replica answers for arm {arm!r} now", retry_after_s=1.0)
        replica.in_flight += 1
        replica.by_arm[arm] += 1
        try:
            # The engine keeps the deadline; the margin is for an actor that does not come back at all.
            async with asyncio.timeout(timeout_s + 1.0):
                answer = cast("_Answer", await replica.actor.generate.remote(arm, text, request_id, timeout_s))
        except TimeoutError as exc:
            raise Unavailable(f"{replica.name} did not answer within {timeout_s} s") from exc
        except RayActorError as exc:
            self._lost(replica, forget=isinstance(exc, ActorDiedError))
            raise Unavailable(f"{replica.name} died: {type(exc).__name__}", retry_after_s=1.0) from exc
        except RayError as exc:
            raise Unavailable(f"{replica.name}: {type(exc).__name__}") from exc
        finally:
            replica.in_flight -= 1
            replica.by_arm -= Counter({arm: 1})  # an arm without calls is not kept
        if answer[0] == "empty":
            self._lost(replica, forget=False)
        return _generation(answer, self._clock.monotonic() - started)

    async def healthy(self) -> bool:
        """Whether at least one replica answers."""
        return any(await asyncio.gather(*(self._answers(replica) for replica in self._replicas)))

    async def _answers(self, replica: _Replica) -> bool:
        if replica.actor is None or not replica.ready:
            return False
        try:
            async with asyncio.timeout(5.0):
                well = bool(await replica.actor.healthy.remote())
        except TimeoutError:
            return False
        except RayError as exc:
            self._lost(replica, forget=isinstance(exc, ActorDiedError))
            return False
        if not well:
            self._lost(replica, forget=False)
        return well

    async def about(self) -> list[dict[str, Any]]:
        """Node, GPUs and process of every replica that answers."""
        return [
            cast("dict[str, Any]", await replica.actor.about.remote())
            for replica in self._replicas
            if replica.actor is not None
        ]

    async def close(self) -> None:
        self._closed = True
        tasks = [replica.reviving for replica in self._replicas if replica.reviving is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def shutdown(self) -> None:
        """End the replicas for good."""
        await self.close()
        for replica in self._replicas:
            replica.ready, replica.actor = False, None
            await asyncio.to_thread(kill_actor, replica.name)

    def _lost(self, replica: _Replica, *, forget: bool) -> None:
        replica.ready = False
        if forget:
            replica.actor = None  # Ray gave this actor up: the next one has the same name
        if not self._closed and (replica.reviving is None or replica.reviving.done()):
            replica.reviving = asyncio.get_running_loop().create_task(self._revive(replica))

    async def _revive(self, replica: _Replica) -> None:
        pause = 0.2
        while not self._closed and not replica.ready:
            await self._clock.sleep(pause)
            pause = min(pause * 2, 5.0)
            async with self._loading:
                await self._ensure(replica)

    def _actor(self, name: str) -> Any:
        settings = self._settings
        total = ray.cluster_resources().get("GPU", 0.0)
        gpus = settings.gpus if settings.gpus is not None else (1.0 if total > 0 else 0.0)
        variables = {}
        if settings.kind == "vllm":
            variables = environment(settings.vllm, os.cpu_count() or 1)
        remote = ray.remote(EngineActor).options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0 if gpus else settings.cpus,
            num_gpus=gpus,
            max_restarts=-1,
            max_task_retries=0,
            max_concurrency=1000,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": variables},
        )
        return remote.remote(settings, name)


def _generation(answer: "_Answer", spent_s: float) -> Generation:
    """What an actor answered, or raised."""
    if answer[0] == "ok":
        return answer[1]
    if answer[0] == "refused":
        message, kind, where, accepted = answer[1]
        raise Refused(message, kind=kind, field=where, accepted=accepted)
    raise Unavailable(f"{answer[1]} (after {spent_s:.1f} s)", retry_after_s=1.0)


class RayGuest:
    """Asks the replicas of a cluster that inference starts and loads, the one with least of our calls. Connects at the first call."""

    def __init__(self, settings: EngineSettings, address: str | None, clock: Clock | None = None) -> None:
        self._address = address
        self._clock = clock or SystemClock()
        self._in_flight = {f"{settings.name}-{i}": 0 for i in range(settings.replicas)}

    async def generate(self, spec: ArmSpec, text: str, request_id: str, timeout_s: float) -> Generation:
        started = self._clock.monotonic()
        if not ray.is_initialized():
            if self._address is None:
                raise Unavailable("RATCHET_RAY_ADDRESS is not set: it names the cluster whose engines inference loads")
            await asyncio.to_thread(connect, self._address)
        name = min(self._in_flight, key=lambda row: self._in_flight[row])
        self._in_flight[name] += 1
        try:
            actor = cast("Any", await asyncio.to_thread(ray.get_actor, name, namespace=NAMESPACE))
            async with asyncio.timeout(timeout_s + 1.0):
                answer = cast("_Answer", await actor.generate.remote(spec.arm, text, request_id, timeout_s))
        except ValueError as exc:
            raise Unavailable(f"no engine {name} runs: inference starts it", retry_after_s=1.0) from exc
        except TimeoutError as exc:
            raise Unavailable(f"{name} did not answer within {timeout_s} s") from exc
        except RayError as exc:
            raise Unavailable(f"{name}: {type(exc).__name__}", retry_after_s=1.0) from exc
        finally:
            self._in_flight[name] -= 1
        if answer[0] == "refused" and answer[1][1] == "unknown_arm":
            raise Unavailable(f"arm {spec.arm!r} is not loaded: inference loads it", retry_after_s=1.0)
        return _generation(answer, self._clock.monotonic() - started)


def kill_actor(name: str) -> bool:
    """End a named actor for good, with what it started; False when there is none."""
    try:
        ray.kill(ray.get_actor(name, namespace=NAMESPACE), no_restart=True)
    except ValueError:
        return False
    return True


class JobActor:
    """Runs one command as a subprocess of its own session; dies and the command dies with it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def start(self, argv: Sequence[str], env: Mapping[str, str], log: str | None, cwd: str | None) -> str:
        status = self.status()
        if status in ("running", "succeeded", "stopped"):
            return status
        output: IO[bytes] | int = subprocess.DEVNULL
        if log is not None:
            Path(log).parent.mkdir(parents=True, exist_ok=True)
            output = Path(log).open("ab")  # noqa: SIM115  the child holds it, we close ours below
        try:
            self._process = subprocess.Popen(
                list(argv),
                env={**process_environment(), **env},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  it takes no lock: two system calls
            )
        finally:
            if not isinstance(output, int):
                output.close()
        return "running"

    def status(self) -> str:
        if self._stopped:
            return "stopped"
        if self._process is None:
            return "absent"
        code = self._process.poll()
        if code is None:
            return "running"
        return "succeeded" if code == 0 else "failed"

    def stop(self, grace_s: float) -> str:
        """TERM to the whole group, KILL after `grace_s`. What was stopped does not start again under this id."""
        if self.status() == "running" and self._process is not None:
            self._stopped = True
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            try:
                self._process.wait(grace_s)
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        elif self._process is None:
            self._stopped = True
        return self.status()


_LIBC = ctypes.CDLL(None)


def _die_with_parent() -> None:
    _LIBC.prctl(
        1, signal.SIGKILL
    )  # PR_SET_PDEATHSIG: a job must not go on when its actor is gone and it may start again
    _LIBC.nice(NICE)


async def submit_job(
    job_id: str,
    argv: Sequence[str],
    env: Mapping[str, str] | None = None,
    *,
    log: Path | None = None,
    cwd: Path | None = None,
    cpus: float = 0.0,
    gpus: float = 0.0,
) -> JobStatus:
    """Start the job named `job_id`, or find it: running, done or stopped it is left alone, failed it starts again.

    `env` comes on top of the cluster's environment. Raises Unavailable when the cluster does not answer.
    """
    job = await _job(job_id, create=True, cpus=cpus, gpus=gpus)
    where = None if log is None else str(log)
    status = await _ask_job(job.start.remote(list(argv), dict(env or {}), where, None if cwd is None else str(cwd)))
    return cast("JobStatus", status)


async def job_status(job_id: str) -> JobStatus:
    """`absent`: never started, or its node is gone: submit it again."""
    job = await _job(job_id, create=False)
    return "absent" if job is None else cast("JobStatus", await _ask_job(job.status.remote()))


async def stop_job(job_id: str, grace_s: float = 5.0) -> JobStatus:
    """Stop the job and all that it started."""
    job = await _job(job_id, create=False)
    return "absent" if job is None else cast("JobStatus", await _ask_job(job.stop.remote(grace_s)))


async def forget_job(job_id: str) -> None:
    """Kill the job if it runs and free its actor."""
    await asyncio.to_thread(kill_actor, _job_name(job_id))


def _job_name(job_id: str) -> str:
    return f"job-{job_id}"


async def _job(job_id: str, *, create: bool, cpus: float = 0.0, gpus: float = 0.0) -> Any:
    def find() -> Any:
        if not create:
            try:
                return ray.get_actor(_job_name(job_id), namespace=NAMESPACE)
            except ValueError:
                return None
        remote = ray.remote(JobActor).options(
            name=_job_name(job_id),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=cpus,
            num_gpus=gpus,
            max_restarts=0,
        )
        return remote.remote()

    try:
        return await asyncio.to_thread(find)
    except (RayError, ConnectionError, GetTimeoutError) as exc:
        raise Unavailable(f"Ray does not answer for job {job_id}: {exc}") from exc


async def _ask_job(call: Any) -> object:
    try:
        async with asyncio.timeout(60.0):
            return await call
    except (RayError, TimeoutError) as exc:
        raise Unavailable(f"the job's actor does not answer: {type(exc).__name__}") from exc
