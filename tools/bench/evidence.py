"""`ratchet bench evidence`: how fast the log takes entries, how fast a stranger checks them, how large a proof is.

Vault, the witness and the verifier are real and processes of their own; nothing else runs. All files go to a temporary folder.
"""

import argparse
import asyncio
import math
import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agents.evidence.sequencer import MAX_BATCH
from agents.evidence.trust import Trust
from infra.settings import load
from schemas.errors import Refused
from schemas.tlog import merkle, note
from schemas.tlog.policy import parse_policy
from schemas.tlog.proof import Proof
from streams.runner import collect_rarely
from tools.bench import Say, figure
from tools.bench.evidence_append import ATTESTER, Appended, appended, servers
from tools.bench.evidence_audit import Audit, audit
from tools.bench.evidence_data import SUBJECTS, hash_reader, records, write_log

MILLION = 1_000_000
BATCHES = 100
STARTS = 5
SAMPLED = 64
FREE_BYTES_PER_ENTRY = 1_000
ORIGIN = "dev.ratchet-bench"
USAGE = (
    "ratchet bench evidence [--batches N] [--batch N] [--audit N] [--full] [--folder DIR]; N batches (default "
    f"{BATCHES}) of 1 to {MAX_BATCH} records, a log of N entries to audit (default {MILLION}; --full: {10 * MILLION}), "
    "DIR on the disk that is to be measured"
)
NOTES = (
    "appends_per_s: entries of full batches from bytes to a published checkpoint: sealed payloads, bundles, tiles, every sync, the "
    "proof from disk, Vault's signature, the witness's cosignature; without Kafka's fence",
    "records_per_s: the same from Kafka's records on, each subject's key wrapped by Vault when it is new, each payload sealed; the "
    "keyring in memory, not on Kafka; one process, building and appending in turn",
    "raw_per_s: a plain loop over the same bytes, batch by batch in between: SHA-256 of each entry, one file, fsync of file and folder",
    "checkpoint_ms: one batch from bytes to published",
    "reverify_records_per_s: entries by CPU second of the verifier; memory_growth: its peak over a log to that over a quarter of it",
    "reaudit_10m_scaled_s: the largest audit, its seconds by entry times 10 million; reaudit_10m_s is measured with --full only",
    "verifier_start_s: the whole verification of a log of one batch of four records, median of five processes",
    "proof_bytes_max: of 64 entries of the largest log, under a checkpoint with the log's and one witness's signature",
)


def options_of(options: Sequence[str]) -> argparse.Namespace:
    """The benchmark's own options. Raises `Refused` with the usage."""
    parser = argparse.ArgumentParser("ratchet bench evidence", add_help=False, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--batches", type=int, default=BATCHES)
    parser.add_argument("--batch", type=int, default=MAX_BATCH)
    parser.add_argument("--audit", type=int)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--folder", type=Path)
    try:
        chosen, left = parser.parse_known_args(list(options))
    except argparse.ArgumentError as fault:
        raise Refused(f"{fault}; {USAGE}", kind="usage") from fault
    if left or (chosen.full and chosen.audit is not None):
        raise Refused(f"not understood: {' '.join(left) or '--full with --audit'}; {USAGE}", kind="usage")
    chosen.audit = 10 * MILLION if chosen.full else chosen.audit or MILLION
    if chosen.batches < 1 or not 1 <= chosen.batch <= MAX_BATCH or not 1000 <= chosen.audit <= 100 * MILLION:
        raise Refused(f"a number is out of its range (an audit: 1000 to {100 * MILLION}); {USAGE}", kind="usage")
    if chosen.folder is not None and not chosen.folder.is_dir():
        raise Refused(f"--folder: {chosen.folder} is not a folder; {USAGE}", kind="usage")
    return chosen


def run(options: Sequence[str], say: Say) -> dict[str, Any]:
    """The benchmark. Raises `Refused` for options that are not understood or too small a disk, `Unavailable` without a server."""
    chosen = options_of(options)
    with tempfile.TemporaryDirectory(prefix="ratchet-evidence-", dir=chosen.folder) as place:
        folder = Path(place)
        free = shutil.disk_usage(folder).free
        needed = FREE_BYTES_PER_ENTRY * (chosen.audit + 2 * chosen.batches * chosen.batch) * 5 // 4
        if free < needed:
            raise Refused(
                f"{folder.parent} has {free >> 20} MiB free; accepted: {needed >> 20} MiB (--folder, --audit)",
                kind="usage",
            )
        disk = _file_system(folder)
        took = asyncio.run(_append(folder, chosen.batches, chosen.batch, say))
        found = audits(folder, chosen.audit, say)
    summary = {**append_summary(took), **found.pop("summary")}
    return {
        "disk": disk,
        "entries": took.entries,
        "entry_bytes": round(took.bytes / took.entries),
        "subjects": min(SUBJECTS, -(-chosen.batches * chosen.batch // 4)),
        "payload_bytes": round(took.payload_bytes / took.entries),
        "batch_entries": chosen.batch,
        "fsync": "every file and folder, before the checkpoint is signed",
        "checkpoint_ms_max": round(1000 * max(took.checkpoint_s), 2),
        **{name: line["value"] for name, line in summary.items()},
        **found,
        "tables": {"audits": found["audits"]},
        "notes": list(NOTES),
        "summary": summary,
    }


async def _append(folder: Path, batches: int, batch: int, say: Say) -> Appended:
    say("starting Vault and a witness")
    given = records(batches * batch)
    async with servers(folder, load().resolved().cache_dir) as (notary, kek, policy):
        collect_rarely()  # as the evidence process does
        took, _ = await appended(folder, given, notary, kek, policy, batch)
    say(f"appended {took.entries} entries")
    shutil.rmtree(folder / "log")
    shutil.rmtree(folder / "raw")
    return took


def append_summary(took: Appended) -> dict[str, Any]:
    """The rates and times of the first part, with their limits."""
    committing, building = sum(took.checkpoint_s), sum(took.building_s)
    return {
        "appends_per_s": figure(round(took.entries / committing), at_least=20_000),
        "records_per_s": figure(round(took.entries / (committing + building))),
        "builds_per_s": figure(round(took.entries / building)),
        "raw_per_s": figure(round(took.entries / sum(took.raw_s))),
        "appends_to_raw": figure(round(sum(took.raw_s) / committing, 3)),
        "checkpoint_ms_p50": figure(round(1000 * statistics.median(took.checkpoint_s), 2)),
        "checkpoint_ms_p99": figure(round(1000 * _p99(took.checkpoint_s), 2), at_most=250),
        "raw_ms_p99": figure(round(1000 * _p99(took.raw_s), 2)),
    }


def audits(folder: Path, count: int, say: Say) -> dict[str, Any]:
    """The verifier over a log of one batch, of a quarter of `count` entries and of `count`; proofs from the last."""
    starts = sorted(_audited(folder, 4, say)[0].seconds for _ in range(STARTS))
    quarter, _ = _audited(folder, count // 4, say)
    whole, proof_bytes = _audited(folder, count, say)
    seconds, ten = whole.seconds, count >= 10 * MILLION
    return {
        "audits": [
            {
                "entries": one.entries,
                "seconds": round(one.seconds, 2),
                "cpu_s": round(one.cpu_s, 2),
                "peak_mib": round(one.peak_mib, 1),
            }
            for one in (quarter, whole)
        ],
        "summary": {
            "reverify_records_per_s": figure(round(whole.entries / whole.cpu_s), at_least=300_000),
            "reaudit_10m_s": figure(round(seconds, 1), at_most=180) if ten else figure(None),
            "reaudit_10m_scaled_s": figure(
                round(10 * MILLION * seconds / whole.entries, 1), at_most=None if ten else 180
            ),
            "reaudit_peak_mib": figure(round(whole.peak_mib, 1)),
            "memory_growth": figure(round(whole.peak_mib / quarter.peak_mib, 3), at_most=1.25),
            "proof_bytes_max": figure(proof_bytes, at_most=2000),
            "verifier_start_s": figure(round(starts[len(starts) // 2], 3), at_most=0.5),
        },
    }


def _audited(folder: Path, count: int, say: Say) -> tuple[Audit, int]:
    """What the verifier takes over a new log of that many records, and the largest proof of 64 of its entries."""
    root = folder / "audit"
    keys = Keys()
    size = write(root, count, keys)
    policy = folder / "policy.txt"
    policy.write_text(keys.policy.text())
    found = audit(root, policy)
    if found.entries != size:
        raise RuntimeError(f"the verifier saw {found.entries} entries of {size}")
    largest = largest_proof(root, size)
    shutil.rmtree(root)
    if count > FREE_BYTES_PER_ENTRY:
        say(f"audited {size} entries in {found.seconds:.1f} s")
    return found, largest


def write(root: Path, count: int, keys: "Keys") -> int:
    """A log of that many records, under these keys; its size."""
    return write_log(root, count, Trust(keys.policy, ATTESTER).entry(), keys.policy, keys.sign, ORIGIN)


class Keys:
    """A log's key and a witness's, of this run: what they sign is thrown away."""

    def __init__(self) -> None:
        self._log, self._witness = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        self._log_key = note.VerifierKey(ORIGIN, self._log.public_key().public_bytes_raw())
        public = self._witness.public_key().public_bytes_raw()
        self._witness_key = note.VerifierKey("dev.bench-witness", public, note.COSIGNER)
        self.policy = parse_policy(f"log {self._log_key}\nwitness w {self._witness_key}\nquorum w\n")

    def sign(self, checkpoint: note.Checkpoint) -> bytes:
        body = checkpoint.text.encode()
        at = 1_800_000_000
        lines = note.sign_line(self._log_key, self._log.sign(body))
        lines += note.cosign_line(self._witness_key, at, self._witness.sign(note.cosigned(at, body)))
        return body + b"\n" + lines.encode()


def largest_proof(root: Path, size: int) -> int:
    """Bytes of the largest proof file of 64 entries."""
    read = hash_reader(root, size)
    signed = (root / "checkpoint").read_bytes()
    indices = {0, size - 1, *range(0, size, max(1, size // SAMPLED))}
    return max(
        len(Proof(index, tuple(merkle.inclusion_proof(index, size, read)), signed).encode()) for index in indices
    )


def _p99(seconds: Sequence[float]) -> float:
    return sorted(seconds)[math.ceil(0.99 * len(seconds)) - 1]


def _file_system(folder: Path) -> str:
    """The type of the file system that a folder is on: on one in memory a sync means nothing."""
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.resolve().is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""
