"""vLLM's own offline throughput: what the engine gives without any event path around it. A program of its own process.

    python -m infra.engine_offline MODEL_FOLDER PROMPTS.json MAX_TOKENS…

with `engine_vllm.environment` around it; PROMPTS.json holds a list of prompts for each MAX_TOKENS.
Prints one JSON line: a list, a result for each MAX_TOKENS. Engine settings and sampling are those that
`engine_vllm.VllmEngine` uses for an arm without an adapter.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.clock import SystemClock
from infra.engine_vllm import VllmSettings

WARM = 64


def throughput(
    folder: Path, batches: Sequence[Sequence[str]], lengths: Sequence[int], stop: Sequence[str], settings: VllmSettings
) -> list[dict[str, Any]]:
    """Per length of answer: tokens and seconds of one `LLM.generate` over its prompts, after a warm-up with other ones."""
    from vllm import LLM, SamplingParams

    clock = SystemClock()
    limit: dict[str, Any] = {"max_model_len": settings.max_model_len} if settings.max_model_len else {}
    llm = LLM(
        model=str(folder),
        dtype=settings.dtype,  # pyright: ignore[reportArgumentType]
        enforce_eager=settings.eager,
        enable_lora=settings.max_loras > 0,
        max_loras=max(1, settings.max_loras),
        max_lora_rank=settings.max_rank,
        max_num_seqs=settings.max_sequences,
        load_format=settings.load_format,
        gpu_memory_utilization=settings.gpu_memory,
        use_tqdm_on_load=False,
        **limit,
    )
    found: list[dict[str, Any]] = []
    for prompts, length in zip(batches, lengths, strict=True):
        sampling = SamplingParams(temperature=0.0, max_tokens=length, stop=list(stop), logprobs=0)
        warm = [f"warm {n} of {length}: {text}" for n, text in enumerate(prompts[:WARM])]
        llm.generate(warm, sampling, use_tqdm=False)
        started = clock.monotonic()
        outputs = llm.generate(list(prompts), sampling, use_tqdm=False)
        seconds = clock.monotonic() - started
        tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        found.append({"tokens": tokens, "seconds": round(seconds, 3), "tokens_per_s": round(tokens / seconds, 1)})
    return found


def main(argv: Sequence[str]) -> None:
    """See the module."""
    folder, prompts, *lengths = argv
    asked = json.loads(Path(prompts).read_text(encoding="utf-8"))
    found = throughput(Path(folder), asked, [int(length) for length in lengths], (), VllmSettings())
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
