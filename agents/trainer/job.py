"""What a training job does, over ports: read the ordered cases, curate, train, evaluate, sign, store, report.

An adapter that is worse than its champion on the held-out split, or below 0.9 of its figure on the classes that the champion has
mastered, ends in `training.failed` (unless the route says `report`): it never reaches the judge. So that fewer do, an adapter that
forgets is weakened first: between a model and its fine-tuned self there are some that keep more and have learnt nearly as much
(Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"). How far is told from the validation split, never from the held-out one.

What a job leaves behind:
1. Rows of a subject that is erased, or has no key, are not used. Whose rows are used is said before any is trained on.
2. Nothing is stored before everything has gone well: after a failure the artifact store holds neither data set nor adapter of it. What is
   stored is named by the next two facts; only a crash between leaves files that no event names, with rows sealed and probes nobody's.
3. Rows are in memory and sealed in what is stored; no file holds one with a subject in plain.
"""

import tempfile
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agents.rules.curation import Dataset, Row, candidates, divide, usable
from agents.rules.deid import CLASSES
from agents.rules.text import normalise
from agents.screen import Screen
from agents.trainer.dataset import Whose, whose, write
from agents.trainer.probes import probe_texts
from agents.trainer.sift import Sifted, Tenants, sift
from schemas.compliance import DeidApplied
from schemas.errors import RatchetError, Refused
from schemas.events import CaseClosed, TrainingCompleted, TrainingFailed, TrainingOrdered, TrainingProgressed, UsedRow
from schemas.payload import Payload

REGRESSION_SHARE = 0.9
KEPT_SHARE = 0.97  # of the champion's figure on the validation split: so that chance seldom refuses on the held-out one
STRENGTHS = (1.0, 0.9, 0.8, 0.7)
MOST_EVALUATED = 600
MOST_NAMED = 1000  # rows in one fact
WATTS_PER_CORE = 15.0  # an estimate for a busy server core; no meter is read, and the statement says so


class Cases(Protocol):
    """The ordered range of `ratchet.cases`."""

    async def read(self, route: str, partition: int, first: int, last: int) -> Sequence[CaseClosed]: ...


class Artifacts(Protocol):
    """The artifact store."""

    def name_tree(self, path: Path) -> str:
        """The digest that `put_tree` would give. Nothing is stored."""
        ...

    def put_bytes(self, data: bytes) -> str: ...
    def put_tree(self, path: Path) -> str: ...


class Keys(Protocol):
    """Subjects' keys for rows of training data, as they stand when they are asked for."""

    async def held(self, tenant: str, wanted: Collection[Whose]) -> Mapping[Whose, bytes | str]:
        """The key of each; a few words where there is none: whoever is erased has none any more. Raises Unavailable."""
        ...


class Trainings(Protocol):
    """The libraries that train. Every call may take minutes; none blocks the event loop."""

    async def train(self, order: TrainingOrdered, rows: Sequence[Row], out: Path, progress: "Progress") -> float:
        """Train into `out`; the seconds of CPU it took. Raises RatchetError when it was stopped."""
        ...

    async def weaken(self, adapter: Path, strength: float, out: Path) -> None:
        """Write the adapter with what it adds to its base times `strength`."""
        ...

    async def right(self, order: TrainingOrdered, adapter: Path | None, rows: Sequence[Row]) -> Sequence[bool]:
        """Per row whether the champion (None) or the adapter in a folder answers with its label."""
        ...

    async def probe(self, order: TrainingOrdered, adapter: Path, texts: Sequence[str]) -> None:
        """Put into the adapter's folder some of the texts with its own answers, by which a loaded adapter is known again."""
        ...

    async def sign(self, order: TrainingOrdered, adapter: Path, about: Mapping[str, Any]) -> bytes:
        """The signed statement of the adapter's files. It goes to auditors: nothing of a row stands in it."""
        ...


class Facts(Protocol):
    """Where the job reports."""

    async def send(self, payload: Payload, identity: str) -> None: ...


class Clock(Protocol):
    def now_ms(self) -> int: ...
    def monotonic(self) -> float: ...


@dataclass(frozen=True, slots=True)
class Ports:
    """What a job works with."""

    cases: Cases
    artifacts: Artifacts
    trainings: Trainings
    tenants: Tenants
    screen: Screen
    keys: Keys
    facts: Facts
    clock: Clock


@dataclass(slots=True)
class Progress:
    """Reports progress as facts. Repeats are harmless: ids are derived from order, attempt and step."""

    order: TrainingOrdered
    facts: Facts
    clock: Clock

    async def __call__(
        self,
        phase: str,
        step: int = 0,
        steps: int = 0,
        epoch: float = 0.0,
        loss: float | None = None,
        used: Sequence[UsedRow] = (),
    ) -> None:
        payload = TrainingProgressed.model_validate(
            _common(self.order, self.clock)
            | {"phase": phase, "step": step, "steps": steps, "epoch": round(epoch, 3), "loss": loss, "used": used}
        )
        await self.facts.send(payload, f"{self.order.order_id}/{self.order.attempt}/{phase}/{step}")


def _common(order: TrainingOrdered, clock: Clock) -> dict[str, Any]:
    return {"tenant": order.tenant, "at_ms": clock.now_ms(), "route": order.route, "order_id": order.order_id}


async def run(order: TrainingOrdered, ports: Ports) -> bool:
    """The whole job; True when an adapter came out. What ends it honestly is reported as `training.failed`."""
    facts, clock = ports.facts, ports.clock
    progress = Progress(order, facts, clock)
    metrics: dict[str, float] = {}
    try:
        done = await _train(order, ports, progress, metrics)
    except RatchetError as error:
        failed = TrainingFailed.model_validate(
            _common(order, clock) | {"reason": str(error)[:2000], "metrics": metrics}
        )
        await facts.send(failed, f"{order.order_id}/{order.attempt}/failed")
        return False
    for name, fact in done:
        await facts.send(fact, f"{order.order_id}/{order.attempt}/{name}")
    return True


async def _train(
    order: TrainingOrdered, ports: Ports, progress: Progress, metrics: dict[str, float]
) -> list[tuple[str, Payload]]:
    """The facts of what came out, in the order in which they are said."""
    trainings, artifacts, settings = ports.trainings, ports.artifacts, order.settings
    began = ports.clock.monotonic()
    await progress("curating")
    dataset, sifted, keys = await _curated(order, ports)
    await _say_whose(dataset, progress)
    with tempfile.TemporaryDirectory(prefix="ratchet-training-") as name:
        folder = Path(name)
        rows = write(folder / "dataset", dataset, order, keys)
        adapter = folder / "adapter"
        cpu_s = await trainings.train(order, dataset.train, adapter, progress)
        await progress("evaluating")
        mastered = _mastered(dataset)
        if settings["holdout"] == "refuse":
            adapter = await _tempered(order, trainings, adapter, dataset, mastered, metrics)
        await _evaluate(order, trainings, adapter, dataset, mastered, metrics)
        if settings["holdout"] == "refuse":
            _hold_out(metrics)
        await progress("signing")
        await trainings.probe(order, adapter, probe_texts(dataset))
        about = {
            "tree": artifacts.name_tree(adapter),
            "dataset": artifacts.name_tree(rows),
            "cutoff_ms": dataset.cutoff_ms,
            "metrics": metrics,
            "energy_j": cpu_s * WATTS_PER_CORE,
        }
        envelope = await trainings.sign(order, adapter, about)
        completed = TrainingCompleted.model_validate(
            _common(order, ports.clock)
            | {
                "dataset": artifacts.put_tree(rows),
                "tree": artifacts.put_tree(adapter),
                "adapter": artifacts.put_bytes(envelope),
                "rows": len(dataset.rows),
                "cutoff_ms": dataset.cutoff_ms,
                "seconds": round(ports.clock.monotonic() - began, 1),
                "metrics": metrics,
                "energy_j": round(cpu_s * WATTS_PER_CORE, 1),
                "energy_estimated": True,
                "denied": sifted.denied,
            }
        )
    return [*_deidentified(completed, dataset, sifted), ("completed", completed)]


async def _curated(order: TrainingOrdered, ports: Ports) -> tuple[Dataset, Sifted, Mapping[Whose, bytes]]:
    """The data set, what the gate did to it, and the keys under which its rows are kept."""
    found = await ports.cases.read(order.route, order.cases_partition, order.cases_first, order.cases_last)
    wanted = {
        (case.subject, case.request_partition, case.request_offset)
        for case in found
        if case.subject is not None and usable(case)
    }
    held = await ports.keys.held(order.tenant, wanted)
    keys = {name: key for name, key in held.items() if isinstance(key, bytes)}

    def unused(row: Row) -> str | None:
        name = whose(row)
        key = b"" if name is None else held[name]
        return key if isinstance(key, str) else None

    counts: Counter[str] = Counter()
    sifted = await sift(candidates(found, counts, unused), counts, order, ports.tenants, ports.screen)
    settings = order.settings
    dataset = divide(
        sifted.rows,
        counts,
        min_rows_per_class=int(settings["min_rows_per_class"] or 1),
        max_rows=int(settings["max_rows"] or 1),
        shuffle_labels=bool(settings["shuffle_labels"]),
        seed=int(settings["seed"] or 0),
    )
    if not dataset.train or not dataset.test:
        raise Refused(f"nothing to train on: {dict(dataset.counts)}", kind="dataset")
    return dataset, sifted, keys


async def _say_whose(dataset: Dataset, progress: Progress) -> None:
    """Every row that has a subject, acknowledged before any is trained on: an erasure from now on is known to concern this order."""
    names = [name for row in dataset.rows if (name := whose(row)) is not None]
    steps = -(-len(names) // MOST_NAMED)
    for step in range(steps):
        some = names[step * MOST_NAMED : (step + 1) * MOST_NAMED]
        used = [UsedRow(subject=subject, partition=partition, offset=offset) for subject, partition, offset in some]
        await progress("curating", step + 1, steps, used=used)


def _deidentified(completed: TrainingCompleted, dataset: Dataset, sifted: Sifted) -> list[tuple[str, Payload]]:
    """Of tenants under HIPAA alone: for others the gate lets through what HIPAA counts as an identifier, such as dates."""
    if sifted.unsupported is None:
        return []
    fact = DeidApplied(
        tenant=completed.tenant,
        at_ms=completed.at_ms,
        route=completed.route,
        order_id=completed.order_id,
        dataset=completed.dataset,
        classes=len(CLASSES) - len(sifted.unsupported),
        unsupported=sifted.unsupported,
        rows=len(dataset.rows),
        masked=sum(row.request_id in sifted.masked for row in dataset.rows),
        denied=sifted.denied,
    )
    return [("deid", fact)]


def _mastered(dataset: Dataset) -> frozenset[str]:
    """The classes of which the champion had at least half right, told from the rows that are not held out.

    Rows picked because the champion had *them* right would favour it by its luck on those very rows.
    """
    right: dict[str, list[bool]] = {}
    for row in (*dataset.train, *dataset.validation):
        right.setdefault(normalise(row.label), []).append(row.champion_right)
    return frozenset(label for label, rows in right.items() if 2 * sum(rows) >= len(rows))


async def _tempered(
    order: TrainingOrdered,
    trainings: Trainings,
    adapter: Path,
    dataset: Dataset,
    mastered: frozenset[str],
    metrics: dict[str, float],
) -> Path:
    """The adapter as strong as keeps, on the validation split, what the champion has mastered; where none does, the one that keeps most."""
    rows = [row for row in dataset.validation if normalise(row.label) in mastered][:MOST_EVALUATED]
    if not rows:
        metrics["strength"] = 1.0
        return adapter
    wanted = KEPT_SHARE * sum(await trainings.right(order, None, rows))
    tried: list[tuple[int, float, Path]] = []
    for strength in STRENGTHS:
        folder = adapter
        if strength < 1:
            folder = adapter.with_name(f"{adapter.name}-{strength}")
            await trainings.weaken(adapter, strength, folder)
        tried.append((sum(await trainings.right(order, folder, rows)), strength, folder))
        if tried[-1][0] >= wanted:
            break
    _, metrics["strength"], best = max(tried)  # of those that keep as much, the strongest
    return best


async def _evaluate(
    order: TrainingOrdered,
    trainings: Trainings,
    adapter: Path,
    dataset: Dataset,
    mastered: frozenset[str],
    metrics: dict[str, float],
) -> None:
    """Champion and adapter on the held-out split, and on its known-good part: what the champion has mastered."""
    test = dataset.test[:MOST_EVALUATED]
    known_good = [normalise(row.label) in mastered for row in test]
    for name, folder in (("champion", None), ("adapter", adapter)):
        right = await trainings.right(order, folder, test)
        metrics[f"test_{name}"] = round(sum(right) / len(test), 4)
        if any(known_good):
            kept = [good for good, counts in zip(right, known_good, strict=True) if counts]
            metrics[f"known_good_{name}"] = round(sum(kept) / len(kept), 4)
    metrics["test_rows"] = len(test)
    metrics["known_good_rows"] = sum(known_good)


def _hold_out(metrics: Mapping[str, float]) -> None:
    before, after = metrics["test_champion"], metrics["test_adapter"]
    if after < before:
        raise Refused(f"worse than the champion on the held-out split: {after} against {before}", kind="holdout")
    kept_before, kept_after = metrics.get("known_good_champion"), metrics.get("known_good_adapter")
    if kept_before is not None and kept_after is not None and kept_after < REGRESSION_SHARE * kept_before:
        raise Refused(
            f"forgets what the champion has mastered: {kept_after} against {kept_before}, at least {REGRESSION_SHARE} of it "
            "is asked for",
            kind="regression",
        )
