"""The composition of one training job: `python -m agents train DIGEST`, started by Ray as the order's job."""

import asyncio
import os
import resource
import shutil
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from agents.evidence.keyring import Keyring
from agents.rules.curation import Row
from agents.trainer.job import Ports, Progress, run
from agents.training_ports import KafkaCases, KeyringKeys, PolicyTenants, TracedFacts, sweep
from agents.wiring import ADAPTER_KEY, open_kek, open_process, open_screen
from infra.adapters import AdapterPredicate, AdapterVerifier, GoldenProbe, sign_adapter, write_probes
from infra.artifacts import DirectoryStore
from infra.jobs import read_order
from infra.secrets import SecretSource
from infra.settings import Settings
from infra.training import Example, LoraSettings, TrainingStopped, evaluate, golden_probes, train_lora, weaken
from infra.training import Progress as Step
from schemas.errors import Refused
from schemas.events import TrainingOrdered
from streams.runner import collect_rarely

THREADS = 1  # beside a live system two threads that wait for each other are far slower than one
NICE = 15
CODE = "ratchet 0.1.0"
ABANDONED_S = 86_400  # a checkpoint that no job has touched for so long belongs to none


class PeftTrainings:
    """peft and transformers, each call in a thread of its own."""

    def __init__(
        self, artifacts: DirectoryStore, secrets: SecretSource, checkpoints: Path, stop: asyncio.Event
    ) -> None:
        self._artifacts = artifacts
        self._secrets = secrets
        self._checkpoints = checkpoints
        self._stop = stop

    def _base(self, order: TrainingOrdered) -> Path:
        return self._artifacts.open_tree(order.base)

    def _examples(self, order: TrainingOrdered, rows: Sequence[Row]) -> list[Example]:
        return [Example(order.template.replace("{text}", row.text), row.label) for row in rows]

    async def train(self, order: TrainingOrdered, rows: Sequence[Row], out: Path, progress: Progress) -> float:
        wanted = order.settings
        settings = LoraSettings(
            rank=int(wanted["rank"] or 16),
            lora_alpha=int(wanted["lora_alpha"] or 32),
            dropout=float(wanted["dropout"] or 0.0),
            learning_rate=float(wanted["learning_rate"] or 2e-3),
            epochs=int(wanted["epochs"] or 1),
            seed=int(wanted["seed"] or 0),
            threads=THREADS,
            time_limit_s=float(wanted["time_limit_s"] or 1800),
        )
        loop = asyncio.get_running_loop()
        told = 0.0

        def tell(step: Step) -> None:
            nonlocal told
            if step.seconds - told >= 2 or step.step == step.steps:
                told = step.seconds
                asyncio.run_coroutine_threadsafe(
                    progress("training", step.step, step.steps, step.epoch, round(step.loss, 4)), loop
                ).result()

        began = cpu_s()
        work = partial(
            train_lora,
            self._base(order),
            self._examples(order, rows),
            out,
            settings,
            progress=tell,
            checkpoint_dir=self._checkpoints / order.order_id,
            stop=self._stop.is_set,
        )
        try:
            await asyncio.to_thread(work)
        except TrainingStopped as stopped:
            raise Refused(str(stopped), kind=stopped.reason) from stopped
        return cpu_s() - began

    async def weaken(self, adapter: Path, strength: float, out: Path) -> None:
        await asyncio.to_thread(weaken, adapter, strength, out)

    async def right(self, order: TrainingOrdered, adapter: Path | None, rows: Sequence[Row]) -> Sequence[bool]:
        """The champion is the base alone, or with its own adapter: verified before it is opened."""
        folder = adapter
        if folder is None and order.parent_adapter is not None:
            keys = {ADAPTER_KEY: await self._secrets.public_key(ADAPTER_KEY)}
            verifier = AdapterVerifier(self._artifacts, keys)
            folder, _ = await asyncio.to_thread(verifier.verify, order.parent_adapter, order.base)
        return await asyncio.to_thread(
            evaluate, self._base(order), folder, self._examples(order, rows), threads=THREADS
        )

    async def probe(self, order: TrainingOrdered, adapter: Path, texts: Sequence[str]) -> None:
        prompts = [order.template.replace("{text}", text) for text in texts]
        probes = await asyncio.to_thread(golden_probes, self._base(order), adapter, prompts)
        golden = [GoldenProbe(probe.prompt, probe.text if probe.sure else None) for probe in probes]
        await asyncio.to_thread(write_probes, adapter, golden)

    async def sign(self, order: TrainingOrdered, adapter: Path, about: Mapping[str, Any]) -> bytes:
        predicate = AdapterPredicate(
            base=order.base,
            tree=about["tree"],
            dataset=about["dataset"],
            cutoff_ms=about["cutoff_ms"],
            settings={name: str(value) for name, value in order.settings.items()},
            code=CODE,
            metrics={name: str(value) for name, value in about["metrics"].items()},
            parent=order.parent_adapter,
            energy_j=f"{about['energy_j']:.1f}",
            energy_estimated=True,
        )
        loop = asyncio.get_running_loop()

        def signature(body: bytes) -> bytes:
            return asyncio.run_coroutine_threadsafe(self._secrets.sign(ADAPTER_KEY, body), loop).result(30)

        return await asyncio.to_thread(sign_adapter, adapter, predicate, signature, ADAPTER_KEY, name=order.route)


def cpu_s() -> float:
    """What this process has used of processors."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def train(digest: str, settings: Settings) -> int:
    """Run the job of the order that lies under `digest` in the artifact store. 0 also where it failed honestly.

    The process gives way to whatever serves beside it. What it had in files besides the artifact store goes with it, but where it
    crashed, for then its next attempt goes on from there.
    """
    os.nice(NICE)
    collect_rarely()  # what walks through every object of the libraries would count as the time of whichever row is scanned then
    async with open_process(settings, f"training-{os.getpid()}", user="jobs") as process:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        named = read_order(process.artifacts, digest)
        checkpoints = settings.state_dir / "jobs"
        await asyncio.to_thread(sweep, checkpoints, process.clock.now_ms() / 1000 - ABANDONED_S)
        keyring = Keyring(process.broker, await open_kek(settings, process.secrets), process.clock)
        process.stack.push_async_callback(keyring.stop)
        ports = Ports(
            cases=KafkaCases(process.broker),
            artifacts=process.artifacts,
            trainings=PeftTrainings(process.artifacts, process.secrets, checkpoints, stop),
            tenants=PolicyTenants(process.broker),
            screen=await open_screen(process.clock),
            keys=KeyringKeys(keyring),
            facts=TracedFacts(await process.facts("trainer-job"), named.traceparent),
            clock=process.clock,
        )
        await run(named.order, ports)
        await asyncio.to_thread(shutil.rmtree, checkpoints / named.order.order_id, ignore_errors=True)
    return 0
