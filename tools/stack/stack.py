"""The local stack as a whole: up, down, status.

`up` starts what is missing in the order of PLATFORM.md (an address that is set, Docker, this machine), records everything in
`.ratchet/stack.json` before it goes on, and writes `.ratchet/env` for its agents and for the command line. `down` stops exactly
what the record names. A second `up` joins; a stack of which something has died is refused with what to do.
"""

import asyncio
import contextlib
import fcntl
import http.client
import json
import os
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, SecretStr

from infra.clock import SystemClock
from infra.settings import Settings, env_name, load, ray_environment
from schemas.errors import Refused, Unavailable

from . import docker, witness
from .kafka import live_brokers, prepare_node
from .ports import LOOPBACK, free_ports, taken
from .processes import Running, alive, start, stop, sweep, wait_until
from .ray import ensure_token, fresh_temp_dir, ray_answers, start_ray
from .redis import start_redis, url_answers
from .roles import ROLE, ROLES, role_of
from .secure import IN_THE_CLEAR, INNER, SECURED, administration, certificates, establish, open_security
from .supervise import Child, Issuer, Spec, read_state
from .tls import ensure_certificates
from .vault import VaultServer, health, opened, start_vault, vault_program

ENV_FILE, RECORD, LOCK = "env", "stack.json", "lock"
TRAINING_ISSUER = Path("data") / "vault" / "training-issuer"
PRIVACY_TOKEN = Path("data") / "vault" / "privacy"
LEAST_FREE_BYTES = 2 << 30
AGENT_GROUPS = (
    ("router", "trust"),
    ("cases", "ladder", "judge", "estimator", "learner", "compliance"),
    ("inference",),
    ("trainer", "jobs", "grader"),
    ("evidence",),
    ("shredder",),
    ("observer",),
)
LANELESS = frozenset({"evidence", "observer"})
OF_OUR_OWN = "of this stack: no independent one"
STOP_ORDER = ("agents", "ray", "vault", "redis", "kafka")
Say = Callable[[str], None]


class Service(BaseModel):
    """One part of the stack. `external`: it was there, and is never stopped by us."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Literal["external", "docker", "process"]
    address: str
    running: Running | None = None
    temp_dir: Path | None = None


class Record(BaseModel):
    """What `.ratchet/stack.json` holds."""

    tag: str
    started_at: str
    partitions: int
    vault: bool
    secure: bool = False
    complete: bool = False
    services: dict[str, Service] = {}
    metrics: dict[str, int] = {}  # agents' process name -> port
    witness: str = ""  # the URL of the stack's own


class StackStatus(BaseModel):
    """How the stack is: `state` is absent, whole or broken; `broken` names what does not answer and why.

    `evidence`: the policy file for auditors, and who watches the log; empty where no log is written.
    """

    state: Literal["absent", "whole", "broken"]
    services: dict[str, str]
    processes: dict[str, str]
    broken: list[str]
    evidence: dict[str, str] = {}


class Stack:
    """The stack of one state folder."""

    def __init__(self, settings: Settings, say: Say = lambda _: None) -> None:
        self.settings = settings.resolved()
        self.dir = self.settings.state_dir
        self.say = say
        self._record: Record | None = None
        self._token: SecretStr | None = None  # the command line's, for a Vault that was started here
        self._role_ids: dict[str, str] = {}  # of such a Vault

    # -- up ------------------------------------------------------------------------------------------------------------

    def up(
        self,
        *,
        vault: bool = False,
        secure: bool = False,
        agents: Sequence[Sequence[str]] = AGENT_GROUPS,
        prepare: Callable[[Settings], None] | None = None,
        ray: bool = True,
        ray_cpus: int = 8,
        ports: Mapping[str, int] | None = None,
        agent_timeout_s: float = 300.0,
    ) -> dict[str, str]:
        """Start what is missing and wait until each part answers; where everything is, name by name.

        `prepare` runs once Kafka answers: topics and groups. `ports` fixes some of kafka, redis, vault, ray, witness. `secure`: Kafka over
        TLS, a user with its own rights for each process.
        Whatever goes wrong, Ctrl-C included: what this call started is stopped again, and the reason raised.
        """
        with self._locked():
            held = self._read()
            if held is not None:
                return self._join(held, vault=vault, secure=secure)
            self._check_room()
            self._record = Record(
                tag=secrets.token_hex(8),
                started_at=_now(),
                partitions=self.settings.partitions,
                vault=vault,
                secure=secure,
            )
            self._write()
            try:
                self._start(vault, agents, prepare, ray, ray_cpus, dict(ports or {}), agent_timeout_s)
            except BaseException:
                self.say("stopping what was started")
                self._stop_all(self._record)
                raise
            self._record.complete = True
            self._write()
            return self.where(self._record)

    def _start(
        self,
        vault: bool,
        agents: Sequence[Sequence[str]],
        prepare: Callable[[Settings], None] | None,
        ray: bool,
        ray_cpus: int,
        ports: dict[str, int],
        agent_timeout_s: float,
    ) -> None:
        if self._held.secure:
            self._kafka_secured(ports.get("kafka"))
        else:
            self._kafka(ports.get("kafka"))
        self._redis(ports.get("redis"))
        issuer = self._vault(ports.get("vault")) if vault or self.settings.secrets == "vault" else None
        self._principals()
        if ray:
            self._ray(ports.get("ray"), ray_cpus)
        settings = self.agent_settings()
        self._write_env(settings)
        if self._held.secure:
            self.say("making Kafka's users and their rights")
            where = administration(self.dir)
            if where is not None:
                asyncio.run(establish(settings, *where, agents))
        if prepare is not None:
            self.say("creating topics and consumer groups")
            prepare(settings)
        if agents:
            self._agents(agents, settings, issuer, ports.get("witness"), agent_timeout_s)

    def _kafka(self, wanted: int | None) -> None:
        if self.settings.kafka_bootstrap is not None:
            if not live_brokers(self.settings.kafka_bootstrap, self.settings.kafka_ca):
                raise Unavailable(
                    f"no Kafka answers at KAFKA_BOOTSTRAP={self.settings.kafka_bootstrap}: start it, or unset the variable "
                    "to have one started here"
                )
            self._add(Service(name="kafka", kind="external", address=self.settings.kafka_bootstrap))
            return
        self.say("starting Kafka")
        port, controller = self._ports("kafka", 2, wanted)
        if docker.docker_answers():
            docker.compose_up(self.dir, {"kafka": port})
            self._add(Service(name="kafka", kind="docker", address=f"{LOOPBACK}:{port}"))
            return
        data = self.dir / "data" / "kafka"
        node = prepare_node(
            data, self.settings.cache_dir, port=port, controller_port=controller, log=self.dir / "logs" / "kafka.log"
        )
        running = node.launch(tag=self._tag)
        self._add(Service(name="kafka", kind="process", address=node.bootstrap, running=running))
        node.wait(running)

    def _kafka_secured(self, wanted: int | None) -> None:
        """Kafka from its jars with TLS, users and rights, also where Docker answers: the compose file's Kafka has none of it."""
        if self.settings.kafka_bootstrap is not None:
            raise Refused(
                "--secure makes a broker of its own, and KAFKA_BOOTSTRAP names one: unset it, or leave --secure and say how "
                "yours is reached by RATCHET_KAFKA_SECURITY and RATCHET_KAFKA_CA (docs/security.md)",
                kind="usage",
            )
        if self.settings.kafka_user is not None:
            raise Refused(
                f"--secure makes a user for each process, and RATCHET_KAFKA_USER={self.settings.kafka_user} names one for all: "
                "unset it",
                kind="usage",
            )
        self.say("starting Kafka, secured")
        port, controller = self._ports("kafka", 2, wanted)
        (inner,) = self._ports("kafka-inner", 1, None)
        tls = ensure_certificates(certificates(self.dir))
        node = prepare_node(
            self.dir / "data" / "kafka",
            self.settings.cache_dir,
            port=port,
            controller_port=controller,
            log=self.dir / "logs" / "kafka.log",
            tls=tls,
            inner_port=inner,
        )
        running = node.launch(tag=self._tag)
        self._add(Service(name="kafka", kind="process", address=node.bootstrap, running=running))
        self._add(Service(name=INNER, kind="process", address=node.administration[0]))
        node.wait(running)
        self.settings = self.settings.model_copy(update={"kafka_security": "sasl_ssl", "kafka_ca": tls.authority})

    def _redis(self, wanted: int | None) -> None:
        if self.settings.redis_url is not None:
            if not url_answers(self.settings.redis_url):
                raise Unavailable(
                    "no Redis answers at REDIS_URL: start it, or unset the variable to have one started here"
                )
            self._add(Service(name="redis", kind="external", address=self.settings.redis_url))
            return
        self.say("starting Redis")
        (port,) = self._ports("redis", 1, wanted)
        url = f"redis://{LOOPBACK}:{port}/0"
        if docker.docker_answers():
            docker.compose_up(self.dir, {"redis": port})
            self._add(Service(name="redis", kind="docker", address=url))
            return
        running = start_redis(self.dir / "data" / "redis", port, log=self.dir / "logs" / "redis.log", tag=self._tag)
        self._add(Service(name="redis", kind="process", address=url, running=running))

    def _vault(self, wanted: int | None) -> Issuer | None:
        if self.settings.vault_addr is not None:
            if health(self.settings.vault_addr) != 200:
                raise Unavailable(
                    f"no unsealed Vault answers at VAULT_ADDR={self.settings.vault_addr}: start and unseal it"
                )
            self._add(Service(name="vault", kind="external", address=self.settings.vault_addr))
            return (
                None  # its operator hands out the credentials: RATCHET_VAULT_ROLE_ID and the rest are taken as they are
            )
        self.say("starting Vault")
        (port,) = self._ports("vault", 1, wanted)
        folder = self.dir / "data" / "vault"
        if docker.docker_answers():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            docker.compose_up(self.dir, {"vault": port})
            addr = f"http://{LOOPBACK}:{port}"
            wait_until(lambda: health(addr) in {200, 501, 503}, None, timeout_s=30, what="Vault")
            server = opened(addr, folder / "keys.json")
            server.configure()
            self._add(Service(name="vault", kind="docker", address=addr))
        else:
            program = vault_program(self.settings.cache_dir, self.say)
            running, server = start_vault(program, folder, port, log=self.dir / "logs" / "vault.log", tag=self._tag)
            self._add(Service(name="vault", kind="process", address=server.addr, running=running))
        return self._issuer(server)

    def _principals(self) -> None:
        """Keys for who speaks to a local stack, so that nothing is taken unproven. A Vault of the user's own has its own."""
        held = self._held.services.get("vault")
        if held is not None and held.kind == "external":
            return

        from infra.keys import LOCAL, ensure  # heavy: every event's model
        from infra.secrets import open_secrets  # heavy: clients of Vault

        async def add(settings: Settings) -> tuple[str, ...]:
            source = await open_secrets(settings, lambda _: None)
            try:
                return await ensure(source, LOCAL, now_ms=SystemClock().now_ms())
            finally:
                await source.close()

        settings = self.settings
        if self._token is not None:
            settings = settings.model_copy(update={"vault_token": self._token})
        added = asyncio.run(add(settings))
        if added:
            self.say(f"keys made for {', '.join(added)}")

    def _issuer(self, server: VaultServer) -> Issuer:
        """Tokens that log in others: the supervisor's, for every role; that of who starts training jobs, for theirs."""
        file, lent = self.dir / "data" / "vault" / "issuer", self.dir / TRAINING_ISSUER
        _private(file, server.issuer_token())
        _private(lent, server.issuer_token("ratchet-training-issuer"))
        _private(self.dir / PRIVACY_TOKEN, server.privacy_token())
        self._role_ids = {role: server.role_id(role) for role in ROLES}
        self.settings = self.settings.model_copy(
            update={"secrets": "vault", "vault_addr": server.addr, "vault_role_id": self._role_ids[ROLE]}
        )
        folder, user = self.settings.kafka_credentials, self.settings.kafka_user
        server.allow(f"{folder}/{user or 'evidence'}", f"{folder}/{user or 'shredder'}")
        self._token = SecretStr(server.operator_token())
        return Issuer(addr=server.addr, token_file=file, lent=[lent])

    def _ray(self, wanted: int | None, num_cpus: int) -> None:
        if self.settings.ray_address is not None:
            if not ray_answers(self.settings.ray_address):
                raise Unavailable(
                    f"no Ray answers at RATCHET_RAY_ADDRESS={self.settings.ray_address}: start it, or unset the variable"
                )
            self._add(Service(name="ray", kind="external", address=self.settings.ray_address))
            return
        self.say("starting Ray")
        (port,) = self._ports("ray", 1, wanted)
        temp_dir = fresh_temp_dir()
        try:
            running = start_ray(
                port,
                log=self.dir / "logs" / "ray.log",
                token_file=ensure_token(self.dir / "ray-token"),
                num_cpus=num_cpus,
                tag=self._tag,
                temp_dir=temp_dir,
            )
        except BaseException:
            shutil.rmtree(temp_dir, ignore_errors=True)
            raise
        self._add(Service(name="ray", kind="process", address=f"{LOOPBACK}:{port}", running=running, temp_dir=temp_dir))

    def _watched(self, settings: Settings, issuer: Issuer | None, wanted: int | None) -> list[Child]:
        """Whoever goes by the log's keys is told of them. The stack's own witness to start, where the settings name no others."""
        own = settings if self._token is None else settings.model_copy(update={"vault_token": self._token})
        if not _many_logins(own):
            self.say("no witness is started: the one login that Vault's credentials are good for is the agents'")
            return []
        vkeys, witnesses = witness.log_keys(own), settings.witnesses
        started: list[Child] = []
        if witnesses is None:
            (port,) = self._ports("witness", 1, wanted)
            child = witness.child_of(settings, port, self._role_ids)
            child.log.parent.mkdir(parents=True, exist_ok=True)
            (self.dir / witness.FOLDER).mkdir(mode=0o700, exist_ok=True)
            self._held.witness = f"http://{LOOPBACK}:{port}"
            witnesses = witness.ask_of(self.dir, witness.vkey_of(child, issuer), self._held.witness)
            started = [child]
        witness.tell(self.dir, vkeys, witnesses)
        return started

    def _agents(
        self,
        groups: Sequence[Sequence[str]],
        settings: Settings,
        issuer: Issuer | None,
        witness_port: int | None,
        timeout_s: float,
    ) -> None:
        self.say("starting the agents")
        logs = self.dir / "logs"
        metrics = dict(zip(("-".join(g) for g in groups), free_ports(len(groups)), strict=True))
        common = settings.to_env()
        if settings.ray_token_file is not None:
            common |= ray_environment(settings.ray_token_file)

        logged = any("evidence" in group for group in groups)
        watchers = self._watched(settings, issuer, witness_port) if logged else []
        children = [
            *watchers,
            *(
                Child(
                    name="-".join(group),
                    argv=[sys.executable, "-m", "agents", *group],
                    env=common | self._own(group) | {"RATCHET_METRICS_PORT": str(metrics["-".join(group)])},
                    log=logs / f"{'-'.join(group)}.log",
                    role=None if issuer is None else role_of(group),
                )
                for group in groups
            ),
        ]
        spec, state = self.dir / "agents.json", self.dir / "agents-state.json"
        state.unlink(missing_ok=True)
        _private(spec, Spec(children=children, issuer=issuer).model_dump_json(indent=1))
        argv = [sys.executable, "-m", "tools.stack.supervise", str(spec), str(state)]
        running = start("agents", argv, log=logs / "supervisor.log", tag=self._tag)
        self._held.metrics = metrics
        self._add(Service(name="agents", kind="process", address=f"{len(children)} processes", running=running))
        if watchers:
            url = self._held.witness
            self._await("witness", running, lambda: witness.answers(url), timeout_s)
        for group in groups:
            name = "-".join(group)
            self._await(name, running, lambda g=group, n=name: ready(metrics[n], g, settings.partitions), timeout_s)

    def _await(self, name: str, running: Running, answers: Callable[[], bool], timeout_s: float) -> None:
        """Until a child of the supervisor answers; else `Unavailable` with the end of the child's own log."""
        self.say(f"waiting for {name.replace('-', ', ')}")
        try:
            wait_until(answers, running, timeout_s=timeout_s, what=f"process {name}")
        except Unavailable as fault:
            raise Unavailable(f"{fault}\n{_ends(self.dir / 'logs' / f'{name}.log')}") from fault

    def _own(self, group: Sequence[str]) -> dict[str, str]:
        """What only this process is given: whom the log asks for witness, and as whom one logs in to the stack's own Vault."""
        found: dict[str, str] = {}
        if "evidence" in group and self._held.witness:
            found[env_name("witnesses")] = str(self.dir / witness.POLICY)
        if self._role_ids:
            role = role_of(group)
            found |= {env_name("vault_role"): role, env_name("vault_role_id"): self._role_ids[role]}
            if "jobs" in group:  # each training job logs in by itself
                found[env_name("vault_issuer")] = str(self.dir / TRAINING_ISSUER)
        return found

    # -- down, status ----------------------------------------------------------------------------------------------------

    def down(self) -> list[str]:
        """Stop what the record names, in order; the names of what was stopped. Data and logs stay."""
        with self._locked():
            held = self._read()
            return [] if held is None else self._stop_all(held)

    def _stop_all(self, held: Record) -> list[str]:
        stopped: list[str] = []
        for name in STOP_ORDER:
            service = held.services.get(name)
            if service is None or service.kind == "external":
                continue
            self.say(f"stopping {name}")
            if service.kind == "docker":
                docker.compose_stop(self.dir, name)
                stopped.append(name)
            elif service.running is not None and self._stop_one(name, service.running):
                stopped.append(name)
            if service.temp_dir is not None:
                shutil.rmtree(service.temp_dir, ignore_errors=True)
        if sweep(held.tag):
            stopped.append("what was left behind")
        for file in (ENV_FILE, "agents.json", "agents-state.json", RECORD):
            (self.dir / file).unlink(missing_ok=True)
        return stopped

    def _stop_one(self, name: str, running: Running) -> bool:
        if name != "agents":
            return stop(running, grace_s=20.0)
        found = stop(running, grace_s=15.0)
        # A supervisor that was killed left its children: they are named in its file.
        state = read_state(self.dir / "agents-state.json")
        for child in state.children.values() if state is not None else ():
            if child.pid:
                orphan = Running(name=child.name, pid=child.pid, created=child.created, log=self.dir / "logs")
                found = stop(orphan, grace_s=5.0) or found
        return found

    def status(self) -> StackStatus:
        """What lives and what does not. Changes nothing."""
        held = self._read()
        if held is None:
            return StackStatus(state="absent", services={}, processes={}, broken=[])
        broken = self._broken(held)
        state = read_state(self.dir / "agents-state.json")
        processes = {
            child.name: f"pid {child.pid}, started {child.starts} times" if child.pid else child.said
            for child in (state.children.values() if state is not None else ())
        }
        services = {name: f"{service.address} ({service.kind})" for name, service in held.services.items()}
        return StackStatus(
            state="broken" if broken else "whole",
            services=services,
            processes=processes,
            broken=broken,
            evidence=self._evidence(held),
        )

    def _evidence(self, held: Record) -> dict[str, str]:
        """The policy file for auditors, and who watches the log."""
        if not any("evidence" in name.split("-") for name in held.metrics):
            return {}
        asked = self.settings.witnesses
        watched = f"{held.witness} ({OF_OUR_OWN})" if held.witness else "none" if asked is None else f"those of {asked}"
        told = next((file for file in (witness.AUDITORS, witness.OWN) if (self.dir / file).exists()), witness.OWN)
        return {"policy": str(self.dir / told), "witness": watched}

    def where(self, held: Record) -> dict[str, str]:
        """Where everything is."""
        found = {name: f"{service.address} ({service.kind})" for name, service in held.services.items()}
        if "vault" not in found:
            found["secrets"] = f"{self.dir / 'secrets.json'} (local file: for a first look only, never for production)"
        found["transport"] = (
            IN_THE_CLEAR if not held.secure and self.settings.kafka_security == "plaintext" else SECURED
        )
        found |= {f"evidence {name}": said for name, said in self._evidence(held).items()}
        found |= {f"metrics {name}": f"http://{LOOPBACK}:{port}/metrics" for name, port in held.metrics.items()}
        return found | {"state": str(self.dir), "logs": str(self.dir / "logs"), "settings": str(self.dir / ENV_FILE)}

    def agent_settings(self) -> Settings:
        """The settings of this stack's agents."""
        services = self._held.services
        known: dict[str, object] = {
            "kafka_bootstrap": services["kafka"].address,
            "redis_url": services["redis"].address,
            "state_dir": self.dir,
            "cache_dir": self.settings.cache_dir,
            "partitions": self.settings.partitions,
        }
        if "ray" in services:
            known["ray_address"] = services["ray"].address
            if services["ray"].kind == "process":
                known["ray_token_file"] = self.dir / "ray-token"
        given = {field: getattr(self.settings, field) for field in self.settings.model_fields_set}
        return Settings.model_validate(given | known)

    # -- inner -----------------------------------------------------------------------------------------------------------

    @property
    def _held(self) -> Record:
        if self._record is None:
            raise RuntimeError("no stack is being started")
        return self._record

    @property
    def _tag(self) -> str:
        return self._held.tag

    def _join(self, held: Record, *, vault: bool, secure: bool) -> dict[str, str]:
        broken = self._broken(held)
        if broken or not held.complete:
            why = "; ".join(broken) if broken else "it never came up"
            raise Refused(
                f"a stack of {held.started_at} is half dead in {self.dir}: {why}. `ratchet down` clears it away, then "
                "`ratchet up` starts anew on the same data",
                kind="half-dead",
            )
        if vault and not held.vault:
            raise Refused(
                "a stack without Vault runs here: `ratchet down` first, then `ratchet up --vault`", kind="differs"
            )
        if secure and not held.secure:
            raise Refused(
                "a stack whose Kafka is open runs here: `ratchet down` first, then `ratchet up --secure`",
                kind="differs",
            )
        if held.partitions != self.settings.partitions and "partitions" in self.settings.model_fields_set:
            raise Refused(
                f"a stack with {held.partitions} partitions runs here, {self.settings.partitions} were asked for: `ratchet "
                "down` first, and remove its data, for partitions of a topic that has records do not change",
                kind="differs",
            )
        if self._evidence(held):
            running = load({}, self.dir / ENV_FILE)
            witnesses = self.dir / witness.POLICY if held.witness else running.witnesses
            if _many_logins(running) and witness.tell(self.dir, witness.log_keys(running), witnesses):
                self.say("told the witness and auditors of the log's new key")
        self.say("joined the stack that runs")
        return self.where(held)

    def _broken(self, held: Record) -> list[str]:
        ca = certificates(self.dir) / "ca.pem" if held.secure else self.settings.kafka_ca
        answers: dict[str, Callable[[str], bool]] = {
            "kafka": lambda a: live_brokers(a, ca) > 0,
            "redis": url_answers,
            "vault": lambda a: health(a) == 200,
            "ray": ray_answers,
        }
        broken: list[str] = []
        for name, service in held.services.items():
            if service.running is not None and not alive(service.running):
                broken.append(f"{name} (pid {service.running.pid}) has ended")
            elif name in answers and not answers[name](service.address):
                broken.append(f"{name} does not answer at {service.address}")
        return broken

    def _check_room(self) -> None:
        try:
            self.dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            free = shutil.disk_usage(self.dir).free
        except OSError as fault:
            raise Unavailable(f"the state folder {self.dir} cannot be used: {fault.strerror}") from fault
        if free < LEAST_FREE_BYTES:
            raise Unavailable(
                f"{free / 2**30:.1f} GiB are free where {self.dir} lies, 2 GiB are needed: make room, or set RATCHET_STATE_DIR"
            )

    def _ports(self, name: str, count: int, wanted: int | None) -> list[int]:
        """Ports of the last time where they are free (a broker's address is in its own data), else new ones."""
        file = self.dir / "data" / "ports.json"
        known: dict[str, list[int]] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(file.read_bytes())
        if wanted is not None:
            if taken(wanted):
                raise Unavailable(
                    f"port {wanted} is taken, {name} cannot listen there: stop what listens, or give another"
                )
            chosen = [wanted, *free_ports(count - 1)]
        else:
            chosen = known.get(name, [])
            if len(chosen) != count or any(taken(port) for port in chosen):
                chosen = free_ports(count)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(known | {name: chosen}), encoding="utf-8")
        return chosen

    def _write_env(self, settings: Settings) -> None:
        told = settings if self._token is None else settings.model_copy(update={"vault_token": self._token})
        lines = [f"{name}={value}" for name, value in told.to_env().items()]
        head = "# Left by `ratchet up`, removed by `ratchet down`: the settings of the stack that runs here."
        _private(self.dir / ENV_FILE, "\n".join([head, *lines]) + "\n")

    def _add(self, service: Service) -> None:
        self._held.services[service.name] = service
        self._write()

    def _write(self) -> None:
        _private(self.dir / RECORD, self._held.model_dump_json(indent=1))

    def _read(self) -> Record | None:
        file = self.dir / RECORD
        try:
            return Record.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as fault:
            raise Refused(
                f"{file} is not a record of ours: see with `ps` what still runs of it, then remove the file",
                kind="record",
            ) from fault

    @contextlib.contextmanager
    def _locked(self) -> Generator[None, None, None]:
        try:
            self.dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = (self.dir / LOCK).open("w")
        except OSError as fault:
            raise Unavailable(f"the state folder {self.dir} cannot be used: {fault.strerror}") from fault
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as fault:
                raise Refused(
                    f"another `ratchet up` or `down` is at work in {self.dir}: wait for it", kind="locked"
                ) from fault
            yield


def up(
    *,
    vault: bool = False,
    secure: bool = False,
    partitions: int | None = None,
    say: Say = lambda _: None,
    settings: Settings | None = None,
    agents: Sequence[Sequence[str]] = AGENT_GROUPS,
    prepare: Callable[[Settings], None] | None = None,
    ports: Mapping[str, int] | None = None,
    ray: bool = True,
    ray_cpus: int = 8,
    agent_timeout_s: float = 300.0,
) -> dict[str, str]:
    """Start or join the stack of the state folder; where everything is, name by name. Topics and groups as the table says."""
    chosen = load() if settings is None else settings
    if partitions is not None:
        chosen = Settings.model_validate(
            {f: getattr(chosen, f) for f in chosen.model_fields_set} | {"partitions": partitions}
        )
    return Stack(chosen, say).up(
        vault=vault,
        secure=secure,
        agents=agents,
        prepare=create_topics if prepare is None else prepare,
        ports=ports,
        ray=ray,
        ray_cpus=ray_cpus,
        agent_timeout_s=agent_timeout_s,
    )


def down(*, say: Say = lambda _: None, settings: Settings | None = None) -> list[str]:
    """Stop exactly what `up` started; the names of what was stopped."""
    return Stack(load() if settings is None else settings, say).down()


def status(settings: Settings | None = None) -> StackStatus:
    """How the stack of the state folder is."""
    return Stack(load() if settings is None else settings).status()


def create_topics(settings: Settings) -> None:
    """Topics from the table, groups with explicit offsets. Safe to repeat. A secured Kafka of ours: by its administrator."""
    from agents.wiring import groups
    from streams.admin import ensure_groups, ensure_topics

    async def work(bootstrap: str) -> None:
        where = administration(settings.state_dir)
        bootstrap, security = where or (bootstrap, await open_security(settings, "administrator"))
        await ensure_topics(bootstrap, settings.partitions, settings.replication, security=security)
        await ensure_groups(bootstrap, groups(), security=security)

    if settings.kafka_bootstrap is None:
        raise Refused(f"{env_name('kafka_bootstrap')} is not set", kind="settings")
    asyncio.run(work(settings.kafka_bootstrap))


def ready(port: int, agents: Sequence[str], partitions: int) -> bool:
    """Whether the process with this metrics port has opened every lane of its agents."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2)
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        text = response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    if response.status != 200:
        return False
    opened_lanes = {
        (match[1], match[2])
        for match in re.finditer(
            r'^ratchet_lanes_opened_total\{agent="([^"]+)",partition="(\d+)"\}', text, re.MULTILINE
        )
    }
    return all(
        (agent, str(number)) in opened_lanes
        for agent in agents
        if agent not in LANELESS
        for number in range(partitions)
    )


def _many_logins(settings: Settings) -> bool:
    """Whether logging in once more takes nothing away from the agents: a wrapped secret id would."""
    return settings.secrets != "vault" or settings.vault_token is not None or settings.vault_issuer is not None


def _ends(log: Path) -> str:
    from .processes import tail

    return f"{log} ends:\n{tail(log)}"


def _now() -> str:
    return datetime.fromtimestamp(SystemClock().now_ms() / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _private(file: Path, text: str) -> None:
    """Replace the file whole, mode 0600."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as sink:
        sink.write(text)
    fresh.replace(file)
