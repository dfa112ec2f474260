"""vLLM's asynchronous engine in this process: one engine per base model, adapters hot-loaded after verification and a probe.

An adapter is copied out of the store, verified in the copy and loaded from the copy: what was verified is what is loaded.
The live probe asks the golden prompts among the signed files: the adapter must give the signed answers and must differ from
the base model in text or logprob, since a stale adapter would otherwise be served silently.

Environment variables that vLLM wants are set by whoever starts the process: `environment()` lists them.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false

import asyncio
import contextlib
import hashlib
import itertools
import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from infra.adapters import AdapterVerifier, GoldenProbe, read_probes
from infra.artifacts import ArtifactStore
from infra.clock import Clock, SystemClock
from infra.engine import ArmSpec, Generation, LoadOutcome
from schemas.errors import Refused, Unavailable

PROBES = 4
PROBE_TIMEOUT_S = 60.0
LOGPROB_DIFFERS = 1e-3  # nats; two runs of the same weights in bfloat16 differ by less on the same prompt


@dataclass(frozen=True, slots=True)
class VllmSettings:
    """`threads` 0: half the cores, at least one. `kv_cache_gib` and `threads` matter on a CPU, `gpu_memory` on a GPU."""

    max_loras: int = 4
    max_rank: int = 16
    max_model_len: int = 0
    max_sequences: int = 64
    dtype: str = "bfloat16"
    eager: bool = True
    load_format: str = "auto"
    threads: int = 0
    kv_cache_gib: int = 1
    gpu_memory: float = 0.9


def environment(settings: VllmSettings, cores: int) -> dict[str, str]:
    """What the process of a vLLM engine needs in its environment: offline, silent, and no more threads than it is given."""
    threads = settings.threads or max(1, cores // 2)
    return {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_CONFIGURE_LOGGING": "1",
        "TQDM_DISABLE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_CPU_KVCACHE_SPACE": str(settings.kv_cache_gib),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        # On a CPU this means: no worker beside the engine's process, which would spin for a second after each request.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "passive",  # threads that spin while they wait starve the brokers beside them
    }


@dataclass(slots=True)
class _Lora:
    """An adapter inside vLLM. Until the last of `calls` has ended vLLM may read `copy` again: only then both go."""

    request: Any
    probes: tuple[GoldenProbe, ...]
    copy: Path
    calls: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class _Live:
    spec: ArmSpec
    lora: _Lora | None
    outcome: LoadOutcome


class VllmEngine:
    """See the module. Base models load on first use (tens of seconds on a CPU) and go when no arm names them."""

    def __init__(
        self,
        store: ArtifactStore,
        verifier: AdapterVerifier,
        settings: VllmSettings | None = None,
        replica: str = "vllm-0",
        clock: Clock | None = None,
    ) -> None:
        self._store = store
        self._verifier = verifier
        self._settings = settings or VllmSettings()
        self._replica = replica
        self._clock = clock or SystemClock()
        self._llms: dict[str, Any] = {}
        self._loras: dict[tuple[str, str], _Lora] = {}
        self._leaving: dict[asyncio.Task[None], _Lora] = {}
        self._arms: dict[str, _Live] = {}
        self._ids = itertools.count(1)
        self._calls = itertools.count()
        self._loading = asyncio.Lock()

    async def ensure(self, arms: Sequence[ArmSpec]) -> Sequence[LoadOutcome]:
        async with self._loading:
            outcomes = [await self._ensure(spec) for spec in arms]
            named = {spec.arm for spec in arms}
            self._arms = {name: live for name, live in self._arms.items() if name in named}
            await self._unload()
            return outcomes

    async def _ensure(self, spec: ArmSpec) -> LoadOutcome:
        known = self._arms.get(spec.arm)
        if known is not None and known.spec == spec:
            return known.outcome
        started = self._clock.monotonic()
        outcome = LoadOutcome(spec.arm, spec.adapter, self._replica, True, "", 0.0)
        try:
            llm = await self._llm(spec.base)
            lora = None if spec.adapter is None else await self._load(llm, spec.base, spec.adapter)
            await self._probe(llm, spec, lora)
        except (Refused, Unavailable) as fault:
            self._arms.pop(spec.arm, None)
            return replace(outcome, live=False, reason=str(fault), load_ms=self._since_ms(started))
        outcome = replace(outcome, load_ms=self._since_ms(started))
        self._arms[spec.arm] = _Live(spec, lora, outcome)
        return outcome

    async def _llm(self, base: str) -> Any:
        if base in self._llms:
            return self._llms[base]
        from vllm import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        folder = self._store.verify_tree(base) if base.startswith("sha256:") else Path(base)
        settings = self._settings
        arguments: dict[str, Any] = {"max_model_len": settings.max_model_len} if settings.max_model_len else {}
        try:
            args = AsyncEngineArgs(
                model=str(folder),
                dtype=settings.dtype,  # pyright: ignore[reportArgumentType]  a Literal that settings check
                enforce_eager=settings.eager,
                enable_lora=settings.max_loras > 0,
                max_loras=max(1, settings.max_loras),
                max_lora_rank=settings.max_rank,  # pyright: ignore[reportArgumentType]
                max_num_seqs=settings.max_sequences,
                load_format=settings.load_format,
                gpu_memory_utilization=settings.gpu_memory,
                use_tqdm_on_load=False,
                disable_log_stats=False,
                **arguments,
            )
            # Statistics are on because they carry the time to the first token; nothing logs them.
            self._llms[base] = AsyncLLM.from_engine_args(args, stat_loggers=[])
        except (ValueError, OSError, RuntimeError) as exc:
            raise Unavailable(f"vLLM did not start on base {base}: {exc}") from exc
        return self._llms[base]

    async def _load(self, llm: Any, base: str, adapter: str) -> _Lora:
        if (base, adapter) in self._loras:
            return self._loras[base, adapter]
        from vllm.lora.request import LoRARequest

        copy = Path(tempfile.mkdtemp(prefix="ratchet-adapter-"))
        try:
            folder, statement = self._verifier.verify(adapter, base, copy / "adapter")
            probes = read_probes(folder, statement)
            number = next(self._ids)
            # The number is in the name: vLLM knows adapters by name, and a refused one may come again.
            lora = LoRARequest(f"{adapter}#{number}", number, str(folder))
            await _add_lora(llm, lora, adapter)
        except (Refused, Unavailable):
            shutil.rmtree(copy, ignore_errors=True)
            raise
        self._loras[base, adapter] = _Lora(lora, probes, copy)
        return self._loras[base, adapter]

    async def _probe(self, llm: Any, spec: ArmSpec, lora: _Lora | None) -> None:
        """Prove that the arm answers, and if it has an adapter that the adapter does. Raises Refused or Unavailable."""
        greedy = replace(spec, temperature=0.0)
        if lora is None or spec.adapter is None:
            await self._ask(llm, spec.prompt("probe"), replace(greedy, max_tokens=1), None, "probe")
            return
        probes = lora.probes[:PROBES] or (GoldenProbe(spec.prompt("probe"), None),)
        differs = False
        try:
            for number, probe in enumerate(probes, 1):
                got, plain = await asyncio.gather(
                    self._ask(llm, probe.prompt, greedy, lora.request, "probe"),
                    self._ask(llm, probe.prompt, greedy, None, "probe"),
                )
                _check_golden(spec.adapter, f"{number} of {len(probes)}", probe, got)
                differs = differs or _differ(got, plain)
            _check_differs(spec.adapter, differs)
        except (Refused, Unavailable):
            if not any(live.lora is lora for live in self._arms.values()):
                await self._drop(spec.base, spec.adapter)
            raise

    async def _unload(self) -> None:
        used = {(live.spec.base, live.spec.adapter) for live in self._arms.values()}
        for base, adapter in [key for key in self._loras if key not in used]:
            await self._drop(base, adapter)
        if self._arms:  # an engine that lost its only arm to a bad adapter keeps its base: it is wanted again soon
            for base in [b for b in self._llms if b not in {base for base, _ in used}]:
                self._llms.pop(base).shutdown()

    async def _drop(self, base: str, adapter: str) -> None:
        """Unload an adapter: now, or as soon as it has given the answers that it is giving."""
        lora = self._loras.pop((base, adapter))
        if not lora.calls:
            await self._remove(base, lora)
            return
        lora.idle.clear()
        task = asyncio.create_task(self._remove_when_idle(base, lora))
        self._leaving[task] = lora
        task.add_done_callback(lambda done: self._leaving.pop(done, None))

    async def _remove_when_idle(self, base: str, lora: _Lora) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError

        await lora.idle.wait()
        with contextlib.suppress(EngineDeadError):  # then it is gone, and whoever asks next is told
            await self._remove(base, lora)

    async def _remove(self, base: str, lora: _Lora) -> None:
        llm = self._llms.get(base)
        if llm is not None:
            await llm.remove_lora(lora.request.lora_int_id)
        shutil.rmtree(lora.copy, ignore_errors=True)

    async def generate(self, arm: str, text: str, request_id: str, timeout_s: float) -> Generation:
        live = self._arms.get(arm)
        if live is None:
            raise Refused(
                f"arm {arm!r} is not loaded", kind="unknown_arm", field="arm", accepted=str(sorted(self._arms))
            )
        spec, lora, name = live.spec, live.lora, f"{request_id}/{arm}"
        if lora is None:
            return await self._ask(self._llms[spec.base], spec.prompt(text), spec, None, name, timeout_s)
        lora.calls += 1
        try:
            return await self._ask(self._llms[spec.base], spec.prompt(text), spec, lora.request, name, timeout_s)
        finally:
            lora.calls -= 1
            if not lora.calls:
                lora.idle.set()

    async def _ask(
        self, llm: Any, prompt: str, spec: ArmSpec, lora: Any, name: str, timeout_s: float = PROBE_TIMEOUT_S
    ) -> Generation:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError

        tokens: list[int] = llm.get_tokenizer().encode(prompt)
        limit = int(llm.model_config.max_model_len) - spec.max_tokens
        if len(tokens) > limit:
            raise Refused(
                f"prompt of {len(tokens)} tokens",
                kind="prompt_too_long",
                field="text",
                accepted=f"at most {limit} tokens (model {llm.model_config.max_model_len}, answer {spec.max_tokens})",
            )
        sampling = SamplingParams(
            temperature=spec.temperature,
            max_tokens=spec.max_tokens,
            stop=list(spec.stop),
            logprobs=0,  # the chosen token's only
            seed=int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") if spec.temperature > 0 else None,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        started = self._clock.monotonic()
        final: Any = None
        try:
            async with asyncio.timeout(timeout_s):  # cancelling the generator aborts the request inside vLLM
                requests = llm.generate(
                    {"prompt_token_ids": tokens}, sampling, f"{name}/{next(self._calls)}", lora_request=lora
                )
                async for output in requests:
                    final = output
        except TimeoutError as exc:
            raise Unavailable(f"no answer for {name} within {timeout_s} s: aborted") from exc
        except EngineDeadError as exc:
            raise Unavailable("vLLM's engine process died") from exc
        chosen = final.outputs[0]
        logprobs = tuple(
            float(step[token].logprob) for token, step in zip(chosen.token_ids, chosen.logprobs, strict=True)
        )
        return Generation(
            text=chosen.text,
            tokens_in=len(tokens),
            tokens_out=len(chosen.token_ids),
            latency_ms=self._since_ms(started),
            ttft_ms=0.0 if final.metrics is None else final.metrics.first_token_latency * 1000,
            finish_reason=str(chosen.finish_reason),
            logprobs=logprobs,
            adapter_digest=spec.adapter if lora is not None else None,
            engine="vllm",
            replica=self._replica,
        )

    async def healthy(self) -> bool:
        return all(not llm.errored for llm in self._llms.values())

    async def close(self) -> None:
        async with self._loading:
            self._arms.clear()
            for llm in self._llms.values():
                llm.shutdown()
            self._llms.clear()
            for task in self._leaving:
                task.cancel()
            for lora in (*self._loras.values(), *self._leaving.values()):
                shutil.rmtree(lora.copy, ignore_errors=True)
            self._loras.clear()

    def _since_ms(self, started: float) -> float:
        return (self._clock.monotonic() - started) * 1000


async def _add_lora(llm: Any, lora: Any, adapter: str) -> None:
    try:
        added = await llm.add_lora(lora)
    except Exception as exc:
        if llm.errored:
            raise Unavailable("vLLM's engine process died while it loaded an adapter") from exc
        raise Refused(f"vLLM cannot load adapter {adapter}: {exc}", kind="adapter_format") from exc
    if not added:
        raise Unavailable(f"vLLM did not load adapter {adapter}")


def _check_golden(adapter: str, which: str, probe: GoldenProbe, got: Generation) -> None:
    """Neither text is named: they are of the training data, and the reason goes into an event and a log."""
    if probe.adapter_text is not None and got.text.strip() != probe.adapter_text.strip():
        raise Refused(
            f"adapter {adapter} is loaded but does not answer as signed to probe {which}", kind="adapter_probe"
        )


def _check_differs(adapter: str, differs: bool) -> None:
    if not differs:
        raise Refused(
            f"adapter {adapter} is loaded but every probe is answered as by the base model", kind="adapter_probe"
        )


def _differ(one: Generation, other: Generation) -> bool:
    if one.text != other.text or len(one.logprobs) != len(other.logprobs):
        return True
    return any(abs(a - b) > LOGPROB_DIFFERS for a, b in zip(one.logprobs, other.logprobs, strict=True))


logging.getLogger("vllm").setLevel(logging.ERROR)
