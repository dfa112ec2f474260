"""Entries into a log on disk, signed by a real Vault and cosigned by a real witness; beside each batch a plain loop over its bytes."""

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agents.evidence.building import built, items
from agents.evidence.coverage import FULL_EVERY, Batch
from agents.evidence.keyring import Keyring
from agents.evidence.log import LogDirectory
from agents.evidence.payloads import files_of
from agents.evidence.quorum import Quorum
from agents.evidence.sequencer import Sequencer
from agents.wiring import open_kek, open_notary
from infra.clock import SystemClock
from infra.kek import Kek
from infra.notary import LocalNotary, VaultNotary, verify
from infra.secrets import open_secrets
from infra.settings import Settings, process_environment
from infra.witness_client import HttpWitnesses
from schemas.errors import Unavailable
from schemas.tlog.policy import Policy, parse_policy
from streams.fence import Publisher
from streams.memory import MemoryBroker
from streams.shapes import Record
from tools.bench.evidence_data import KEY
from tools.stack.ports import LOOPBACK, free_ports, taken
from tools.stack.processes import kill, start, wait_until
from tools.stack.roles import EVIDENCE_ROLE
from tools.stack.vault import vault_server

WITNESS = "dev.bench-witness"
ATTESTER = bytes(31) + b"\x01"
"""No statement is signed here: any bytes do."""


@dataclass(slots=True)
class Appended:
    """What was appended, and the seconds of each batch."""

    entries: int = 0
    bytes: int = 0
    payload_bytes: int = 0
    """Of the sealed payloads beside the log."""
    building_s: list[float] = field(default_factory=list[float])
    checkpoint_s: list[float] = field(default_factory=list[float])
    raw_s: list[float] = field(default_factory=list[float])
    """The plain loop over the same entries: SHA-256 of each, one file of them all, fsync of file and folder."""


class _Keys:
    """One key for every tenant."""

    def commitment_key(self, tenant: str) -> bytes:
        return KEY

    pseudonym_key = commitment_key


_KEYS = _Keys()


class _NoFence:
    """A benchmark without Kafka: there is nobody to be fenced by."""

    async def commit(self) -> None:
        return


@asynccontextmanager
async def servers(folder: Path, cache_dir: Path) -> AsyncGenerator[tuple[VaultNotary | LocalNotary, Kek, Policy], None]:
    """The notary over a Vault server's key and who wraps subjects' keys there, with a login of their own; a listening witness's policy."""
    async with AsyncExitStack() as stack:
        vault = await stack.enter_async_context(vault_server(folder / "vault", cache_dir))
        role_id, wrapped = vault.new_approle([EVIDENCE_ROLE])
        login = {"vault_addr": vault.addr, "vault_role_id": role_id, "vault_wrapped_secret_id": wrapped}
        settings = Settings.model_validate({"state_dir": folder, "secrets": "vault", **login})
        secrets = await open_secrets(settings, lambda _: None)
        stack.push_async_callback(secrets.close)
        notary = await asyncio.to_thread(open_notary, settings, secrets)
        witness = await asyncio.to_thread(_start_witness, folder, notary.vkeys(), stack)
        yield notary, await open_kek(settings, secrets), parse_policy(f"witness w {witness}\nquorum w\n")


def _start_witness(folder: Path, logs: Sequence[str], stack: AsyncExitStack) -> str:
    """Key and address of a witness that takes these logs, in a process and a folder of its own."""
    known = folder / "logs.txt"
    known.write_text("".join(f"log {vkey}\n" for vkey in logs) + "quorum none\n")
    (port,) = free_ports(1)
    own = {"witness_name": WITNESS, "witness_listen": f"{LOOPBACK}:{port}", "witness_logs": known}
    settings = Settings.model_validate({"state_dir": folder / "witness", "witness_dir": folder / "witness", **own})
    argv = [sys.executable, "-m", "agents", "witness"]
    environment = process_environment() | settings.to_env()
    done = subprocess.run([*argv, "--vkey"], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Unavailable(f"the witness has no key:\n{done.stderr[-800:]}")
    running = start("witness", argv, log=folder / "witness.log", env=settings.to_env())
    stack.callback(kill, running)
    wait_until(lambda: taken(port), running, timeout_s=30, what="the witness")
    return f"{done.stdout.strip()} http://{LOOPBACK}:{port}"


async def appended(
    root: Path, records: Sequence[Record], notary: VaultNotary | LocalNotary, kek: Kek, policy: Policy, batch: int
) -> tuple[Appended, bytes]:
    """Record them under `root`, `batch` to a checkpoint; what it took, and the last published checkpoint.

    Raises Unavailable when a checkpoint was signed but not published: then its time is not that of a witnessed one.
    """
    witnesses = HttpWitnesses(policy, verify)
    try:
        sequencer = await Sequencer.open(
            LogDirectory(root / "log"),
            notary=notary,
            fence=_NoFence(),
            check=verify,
            attester=ATTESTER,
            quorum=Quorum(policy, witnesses, SystemClock()),
        )
        try:
            return await _appended(sequencer, records, batch, kek, root / "raw")
        finally:
            sequencer.close()
    finally:
        await witnesses.close()


async def _appended(
    sequencer: Sequencer, records: Sequence[Record], batch: int, kek: Kek, raw: Path
) -> tuple[Appended, bytes]:
    broker, clock = MemoryBroker(), SystemClock()
    keyring = Keyring(broker, kek, clock, Publisher(broker, broker.count, owner="keys"))
    took, frontiers, since_full = Appended(), Batch({}).next(), FULL_EVERY
    for number, at in enumerate(range(0, len(records), batch)):
        start = time.perf_counter()
        reads = Batch(frontiers)
        some = records[at : at + batch]
        for record in some:
            reads.add(record)
        read = await asyncio.to_thread(items, reads.records, _KEYS)
        keys = await keyring.make({item.wanted for item in read if item.wanted is not None})
        done = await asyncio.to_thread(built, read, _KEYS, keys)
        beside = files_of(done.payloads, sequencer.size, clock.now_ms())
        entries = done.entries
        full = since_full + len(entries) >= FULL_EVERY
        since_full = 0 if full else since_full + len(entries)
        entries += reads.closing(done.tenants, full=full)
        made = time.perf_counter()
        signed = await sequencer.commit(entries, beside)
        committed = time.perf_counter()
        if sequencer.published is None or sequencer.published.checkpoint != signed.checkpoint:
            raise Unavailable(
                f"the checkpoint of {signed.checkpoint.size} entries was not published: the witness is away"
            )
        frontiers = reads.next()
        took.building_s.append(made - start)
        took.checkpoint_s.append(committed - made)
        took.payload_bytes += sum(len(data) for _, data in beside)
        took.raw_s.append(await asyncio.to_thread(_raw, raw, number, entries))
        took.entries += len(entries)
        took.bytes += sum(map(len, entries))
    published = sequencer.published
    return took, published.note if published is not None else b""


def _raw(folder: Path, number: int, entries: Sequence[bytes]) -> float:
    """What any log must do: hash each entry, write them all, wait for the disk."""
    folder.mkdir(exist_ok=True)
    start = time.perf_counter()
    hashes = b"".join(hashlib.sha256(entry).digest() for entry in entries)
    with (folder / str(number)).open("wb") as file:
        file.write(b"".join(entries) + hashes)
        file.flush()
        os.fsync(file.fileno())
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    return time.perf_counter() - start
