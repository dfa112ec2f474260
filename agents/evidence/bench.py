"""How fast the log takes entries, on a real disk with every sync. The numbers are the caller's to print."""

import asyncio
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from agents.evidence import coverage
from agents.evidence.log import LogDirectory
from agents.evidence.ports import Fence, Notary
from agents.evidence.record import Draft
from agents.evidence.sequencer import MAX_BATCH, Sequencer
from schemas.tlog.note import SignatureCheck, parse_vkey
from streams.shapes import Record


class _NoFence:
    """A benchmark without Kafka: there is nobody to be fenced by."""

    async def commit(self) -> None:
        return


async def bench_log(
    root: Path,
    records: Sequence[Record],
    *,
    notary: Notary,
    check: SignatureCheck,
    fence: Fence | None = None,
    batch: int = MAX_BATCH,
) -> Mapping[str, float | int | str]:
    """Record `records`, `batch` to a checkpoint, into a new log under `root`. Seconds are wall time.

    `appends_per_s` is bundles, tiles, syncs, proof and signature; `records_per_s` also building the entries.
    """
    sequencer = await Sequencer.open(
        LogDirectory(root),
        notary=notary,
        fence=fence or _NoFence(),
        check=check,
        attester=parse_vkey(notary.vkey(1)).public_key,
    )
    key = bytes(32)
    frontiers: dict[tuple[str, int], int] = {}
    building: list[float] = []
    committing: list[float] = []
    try:
        for at in range(0, len(records), batch):
            start = time.perf_counter()
            reads = coverage.Batch(frontiers)
            for record in records[at : at + batch]:
                reads.add(record)
            entries = await asyncio.to_thread(_build, reads.records, key)
            entries += reads.closing({"bench": len(reads.records)}, full=at == 0)
            built = time.perf_counter()
            await sequencer.commit(entries)
            frontiers = reads.next()
            building.append(built - start)
            committing.append(time.perf_counter() - built)
        size = sequencer.size
    finally:
        sequencer.close()
    ordered = sorted(committing)
    return {
        "entries": size,
        "batch_entries": batch,
        "fsync": "every file and folder, before the checkpoint",
        "appends_per_s": round(size / sum(committing)),
        "records_per_s": round(size / (sum(committing) + sum(building))),
        "checkpoint_ms_p50": round(statistics.median(ordered) * 1000, 2),
        "checkpoint_ms_p99": round(ordered[int(0.99 * (len(ordered) - 1))] * 1000, 2),
    }


def _build(records: Sequence[Record], key: bytes) -> list[bytes]:
    return [Draft(record).build(key, key) for record in records]
