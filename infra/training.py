"""Training with torch, transformers and peft: a small base model from nothing, and LoRA adapters on top of a base.

Deterministic for a seed on one machine: the order of the rows and the dropout are redrawn from (seed, epoch), so a run
resumed at an epoch's checkpoint goes on exactly as if it had not been interrupted. Nothing here signs or publishes.

torch, transformers and peft ship few types: their values are `Any` here, and nothing of theirs leaves this file.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false, reportPrivateImportUsage=false

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, set_peft_model_state_dict
from peft.utils import SAFETENSORS_WEIGHTS_NAME, get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from infra.clock import Clock, SystemClock
from schemas.errors import RatchetError, Refused

LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
END, PAD = "<|end|>", "<|pad|>"

disable_progress_bar()  # how far a training is its caller says; a bar breaks what is written to a file


class TrainingStopped(RatchetError):
    """The run ended before its last step on purpose: `reason` is `cancelled` or `time_limit`. Checkpoints stay."""

    def __init__(self, reason: str, step: int, steps: int) -> None:
        super().__init__(f"training stopped at step {step} of {steps}: {reason}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Example:
    """A whole prompt as the engine will see it, and the answer that should follow (no leading space, no end mark)."""

    prompt: str
    answer: str


@dataclass(frozen=True, slots=True)
class Progress:
    """After every step that is worth showing. `loss` is the mean since the last report, in nats per trained token."""

    step: int
    steps: int
    epoch: float
    loss: float
    seconds: float


@dataclass(frozen=True, slots=True)
class BaseSettings:
    """The demonstration's champion: a Llama of 2.5 million parameters.

    `prompt_weight` is how much a prompt's token counts in the loss against an answer's.
    """

    vocabulary: int = 2048
    layers: int = 3
    width: int = 256
    heads: int = 4
    inner: int = 512
    positions: int = 512
    epochs: int = 10
    batch: int = 32
    learning_rate: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 0.01
    prompt_weight: float = 0.25
    seed: int = 17
    threads: int = 0
    time_limit_s: float = 3600


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """`threads` 0 leaves torch's own choice. On cores shared with servers one thread is far faster than two that wait."""

    rank: int = 16
    lora_alpha: int = 32
    dropout: float = 0.05
    learning_rate: float = 2e-3
    warmup: float = 0.05
    weight_decay: float = 0.0
    prompt_weight: float = 0.0
    epochs: int = 3
    batch: int = 32
    seed: int = 17
    threads: int = 0
    time_limit_s: float = 1800


@dataclass(frozen=True, slots=True)
class Trained:
    """What a run did. `final_loss` is that of the last epoch."""

    steps: int
    final_loss: float
    seconds: float
    resumed_at_epoch: int = 0
    losses: tuple[float, ...] = field(default=())


ProgressTo = Callable[[Progress], None]
StopIf = Callable[[], bool]


def never() -> bool:
    """The `stop` of a run that nobody can cancel."""
    return False


def train_base(
    examples: Sequence[Example],
    out_dir: Path,
    settings: BaseSettings | None = None,
    progress: ProgressTo | None = None,
    stop: StopIf = never,
    clock: Clock | None = None,
) -> Trained:
    """Train tokenizer and model from nothing on `examples`; `out_dir` becomes a folder that transformers and vLLM load.

    The loss covers prompt and answer. Raises TrainingStopped; `out_dir` is written only when all is done.
    """
    settings = settings or BaseSettings()
    _threads(settings.threads)
    torch.manual_seed(settings.seed)
    tokenizer: Any = _train_tokenizer(examples, settings)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.width,
        intermediate_size=settings.inner,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.heads,
        max_position_embeddings=settings.positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model: Any = LlamaForCausalLM(config)
    model.to(_device())
    rows = [_encode(tokenizer, example) for example in examples]
    trained = _fit(model, rows, settings, progress, stop, clock or SystemClock(), None)
    _replace(out_dir, lambda folder: (model.save_pretrained(folder), tokenizer.save_pretrained(folder)))
    return trained


def train_lora(
    base_dir: Path,
    examples: Sequence[Example],
    out_dir: Path,
    settings: LoraSettings | None = None,
    progress: ProgressTo | None = None,
    checkpoint_dir: Path | None = None,
    stop: StopIf = never,
    clock: Clock | None = None,
) -> Trained:
    """Train a LoRA adapter for the model of `base_dir`; `out_dir` becomes a folder that peft and vLLM load.

    The loss covers the answer and its end. With `checkpoint_dir` each epoch leaves a checkpoint, and a run with the same
    settings and examples continues after the last whole one. Raises TrainingStopped.
    """
    settings = settings or LoraSettings()
    if not examples:
        raise Refused("no examples to train on", field="examples", accepted="at least one")
    _threads(settings.threads)
    torch.manual_seed(settings.seed)
    tokenizer, base = _open(base_dir)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.dropout,
        target_modules=list(LORA_TARGETS),
        task_type="CAUSAL_LM",
    )
    model: Any = get_peft_model(base, config)
    # The adapter's configuration goes into the signed tree: a path of the training machine does not belong there.
    model.peft_config["default"].base_model_name_or_path = ""
    rows = [_encode(tokenizer, example) for example in examples]
    checkpoint = None if checkpoint_dir is None else _Checkpoint(checkpoint_dir, settings, rows)
    trained = _fit(model, rows, settings, progress, stop, clock or SystemClock(), checkpoint)

    def save(folder: Path) -> None:
        model.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card

    _replace(out_dir, save)
    return trained


def weaken(adapter_dir: Path, strength: float, out_dir: Path) -> None:
    """The same adapter, its change to every weight of the base times `strength`; `out_dir` is a folder like the one it came from."""

    def save(folder: Path) -> None:
        shutil.copytree(adapter_dir, folder, dirs_exist_ok=True)
        weights = load_file(folder / SAFETENSORS_WEIGHTS_NAME)
        save_file(
            {name: tensor * strength if ".lora_B." in name else tensor for name, tensor in weights.items()},
            folder / SAFETENSORS_WEIGHTS_NAME,
            metadata={"format": "pt"},
        )

    _replace(out_dir, save)


def evaluate(
    base_dir: Path, adapter_dir: Path | None, examples: Sequence[Example], threads: int = 0, batch: int = 64
) -> list[bool]:
    """Per example, whether greedy decoding of its prompt gives exactly its answer and then stops.

    Greedy decoding gives a token sequence if and only if each of its tokens is the likeliest after the ones before, so one
    pass over prompt and answer decides it. (An answer spelt by other tokens counts as wrong: it reads too low, never too high.)
    """
    _threads(threads)
    tokenizer, model = _open(base_dir)
    if adapter_dir is not None:
        model = PeftModel.from_pretrained(model, str(adapter_dir))
    model.eval()
    rows = [_encode(tokenizer, example) for example in examples]
    right = [False] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    with torch.inference_mode():
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            tokens, weights = _pad([rows[i] for i in chosen], 0)
            best = model(input_ids=tokens, use_cache=False).logits[:, :-1].argmax(-1)
            for i, hit in zip(chosen, ((best == tokens[:, 1:]) | (weights[:, 1:] == 0)).all(-1).tolist(), strict=True):
                right[i] = bool(hit)
    return right


@dataclass(frozen=True, slots=True)
class Probe:
    """What the adapter answers to a whole prompt; `sure`: also in another precision, by the margin of every token."""

    prompt: str
    text: str
    sure: bool


def golden_probes(
    base_dir: Path, adapter_dir: Path, prompts: Sequence[str], count: int = 4, max_tokens: int = 24, margin: float = 1.0
) -> list[Probe]:
    """The prompts of `prompts` that show best that this adapter answers: those whose answer differs from the base's come first,
    then by the least margin (nats between the first and the second choice) over the answer's tokens. Greedy decoding.
    """
    tokenizer, model = _open(base_dir)
    model = PeftModel.from_pretrained(model, str(adapter_dir))
    model.eval()
    found: list[tuple[bool, float, Probe]] = []
    for prompt in prompts:
        with model.disable_adapter():
            plain, _ = _decode(tokenizer, model, prompt, max_tokens)
        text, least = _decode(tokenizer, model, prompt, max_tokens)
        found.append((text == plain, -least, Probe(prompt, text, least >= margin)))
    found.sort(key=lambda item: item[:2])
    return [probe for _, _, probe in found[:count]]


def _decode(tokenizer: Any, model: Any, prompt: str, max_tokens: int) -> tuple[str, float]:
    """Greedy text up to the end mark or a line's end, and the least margin of its choices."""
    tokens: list[int] = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    given, least = len(tokens), math.inf
    with torch.inference_mode():
        while len(tokens) < given + max_tokens:
            logits = model(input_ids=torch.tensor([tokens], device=_device()), use_cache=False).logits[0, -1]
            best = torch.log_softmax(logits.float(), -1).topk(2)
            least = min(least, float(best.values[0] - best.values[1]))
            token = int(best.indices[0])
            if token == tokenizer.eos_token_id:
                break
            tokens.append(token)
    return str(tokenizer.decode(tokens[given:])).split("\n", 1)[0].strip(), least


# a row is its tokens, and where its answer begins
_Row = tuple[list[int], int]


def _encode(tokenizer: Any, example: Example) -> _Row:
    prompt: list[int] = tokenizer(example.prompt, add_special_tokens=False)["input_ids"]
    reply: list[int] = tokenizer(" " + example.answer, add_special_tokens=False)["input_ids"]
    return [*prompt, *reply, tokenizer.eos_token_id], len(prompt)


def _pad(rows: Sequence[_Row], prompt_weight: float) -> tuple[Any, Any]:
    """Right-padded tokens and what each counts. Under a causal mask what follows a row changes nothing in it: no mask is needed."""
    width = max(len(tokens) for tokens, _ in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    weights = torch.zeros((len(rows), width))
    for i, (tokens, answer_at) in enumerate(rows):
        ids[i, : len(tokens)] = torch.tensor(tokens)
        weights[i, :answer_at] = prompt_weight
        weights[i, answer_at : len(tokens)] = 1.0
    return ids.to(_device()), weights.to(_device())


def _batches(rows: Sequence[_Row], batch: int, seed: int, epoch: int) -> Iterator[list[_Row]]:
    """Rows of like length together, in an order drawn from seed and epoch."""
    draw = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    shuffled: list[int] = torch.randperm(len(rows), generator=draw).tolist()
    pools = [shuffled[i : i + batch * 16] for i in range(0, len(shuffled), batch * 16)]
    groups: list[list[int]] = []
    for pool in pools:
        pool.sort(key=lambda i: len(rows[i][0]))
        groups += [pool[i : i + batch] for i in range(0, len(pool), batch)]
    for g in torch.randperm(len(groups), generator=draw).tolist():
        yield [rows[i] for i in groups[g]]


def _fit(
    model: Any,
    rows: Sequence[_Row],
    settings: BaseSettings | LoraSettings,
    progress: ProgressTo | None,
    stop: StopIf,
    clock: Clock,
    checkpoint: "_Checkpoint | None",
) -> Trained:
    started = clock.monotonic()
    weights = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        weights, lr=settings.learning_rate, weight_decay=settings.weight_decay, betas=(0.9, 0.99), foreach=True
    )
    per_epoch = math.ceil(len(rows) / settings.batch)
    # Groups are cut within pools of 16 batches, so the last pool may add none: the count is exact.
    steps = per_epoch * settings.epochs
    first = 0 if checkpoint is None else checkpoint.restore(model, optimizer)
    model.train()
    losses: list[float] = []
    mean, seen, step = 0.0, 0, first * per_epoch
    for epoch in range(first, settings.epochs):
        torch.manual_seed(settings.seed * 7_919 + epoch)
        total, count = 0.0, 0
        for group in _batches(rows, settings.batch, settings.seed, epoch):
            if stop():
                raise TrainingStopped("cancelled", step, steps)
            if clock.monotonic() - started > settings.time_limit_s:
                raise TrainingStopped("time_limit", step, steps)
            rate = settings.learning_rate * _schedule(step, steps, settings.warmup)
            for part in optimizer.param_groups:
                part["lr"] = rate
            loss = _step(model, group, settings.prompt_weight, weights, optimizer)
            step += 1
            total, count = total + loss, count + 1
            mean, seen = mean + loss, seen + 1
            if progress is not None and (step % 10 == 0 or step == steps):
                progress(Progress(step, steps, step / per_epoch, mean / seen, clock.monotonic() - started))
                mean, seen = 0.0, 0
        losses.append(total / count)
        if checkpoint is not None:
            checkpoint.save(model, optimizer, epoch + 1)
    return Trained(steps, losses[-1] if losses else 0.0, clock.monotonic() - started, first, tuple(losses))


def _step(model: Any, group: Sequence[_Row], prompt_weight: float, weights: Any, optimizer: Any) -> float:
    """One update. Out of a GPU's memory, the same update in halves: the gradient is that of the whole group."""
    halves = 1
    while True:
        try:
            return _accumulate(model, group, prompt_weight, weights, optimizer, halves)
        except torch.OutOfMemoryError:
            optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            if halves >= len(group):
                raise
            halves *= 2


def _accumulate(
    model: Any, group: Sequence[_Row], prompt_weight: float, weights: Any, optimizer: Any, parts: int
) -> float:
    size = math.ceil(len(group) / parts)
    # The first token of a prompt is predicted from nothing: it does not count.
    trained = sum(len(tokens) - at + prompt_weight * max(at - 1, 0) for tokens, at in group)
    total = 0.0
    for start in range(0, len(group), size):
        ids, counts = _pad(group[start : start + size], prompt_weight)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        losses = torch.nn.functional.cross_entropy(
            logits.float().reshape(-1, logits.shape[-1]), ids[:, 1:].reshape(-1), reduction="none"
        )
        loss = (losses * counts[:, 1:].reshape(-1)).sum() / trained
        loss.backward()
        total += float(loss.detach())
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total


def _schedule(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then half a cosine down to 2 %."""
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


class _Checkpoint:
    """The adapter's weights and the optimizer's state after each epoch, good only for the same settings and rows."""

    def __init__(self, folder: Path, settings: LoraSettings, rows: Sequence[_Row]) -> None:
        self._folder = folder
        # What a faster machine or a longer limit changes does not change the run.
        kept = {k: v for k, v in asdict(settings).items() if k not in ("threads", "time_limit_s")}
        self._run = json.dumps([kept, _hash_rows(rows)], sort_keys=True)

    def restore(self, model: Any, optimizer: Any) -> int:
        """The epoch to go on with; 0 when there is nothing that fits."""
        file = self._folder / "checkpoint.pt"
        if not file.exists():
            return 0
        state = torch.load(file, map_location=_device(), weights_only=True)
        if state["run"] != self._run:
            return 0
        set_peft_model_state_dict(model, state["adapter"])
        optimizer.load_state_dict(state["optimizer"])
        return int(state["epoch"])

    def save(self, model: Any, optimizer: Any, epoch: int) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / "checkpoint.part"
        torch.save(
            {
                "run": self._run,
                "epoch": epoch,
                "adapter": get_peft_model_state_dict(model),
                "optimizer": optimizer.state_dict(),
            },
            part,
        )
        part.replace(self._folder / "checkpoint.pt")


def _hash_rows(rows: Sequence[_Row]) -> str:
    """A digest of the tokenised rows: tells whether a checkpoint belongs to them."""
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _train_tokenizer(examples: Sequence[Example], settings: BaseSettings) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any text has tokens, also what was never seen."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=settings.vocabulary,
        special_tokens=[PAD, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((f"{e.prompt} {e.answer}" for e in examples), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, eos_token=END, pad_token=PAD, model_max_length=settings.positions
    )


def _open(base_dir: Path) -> tuple[Any, Any]:
    tokenizer = AutoTokenizer.from_pretrained(str(base_dir), local_files_only=True)
    model: Any = AutoModelForCausalLM.from_pretrained(str(base_dir), local_files_only=True, dtype=torch.float32)
    return tokenizer, model.to(_device())


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _threads(count: int) -> None:
    if count > 0:
        torch.set_num_threads(count)


def _replace(out_dir: Path, write: Callable[[Path], object]) -> None:
    """Write a folder beside its place, then move it there: a reader finds the old one, the new one or none."""
    part = out_dir.with_name(out_dir.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    write(part)
    shutil.rmtree(out_dir, ignore_errors=True)
    part.rename(out_dir)
