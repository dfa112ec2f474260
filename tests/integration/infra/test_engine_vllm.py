"""A real vLLM engine in a Ray actor: a tiny model of random weights, signed adapters hot-loaded, proven, refused."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from infra.adapters import PROBES_FILE, AdapterPredicate, GoldenProbe, sign_adapter, write_probes
from infra.artifacts import DirectoryStore
from infra.cluster import EngineSettings, RayEngines, connect, disconnect
from infra.engine import ArmSpec
from infra.engine_vllm import VllmSettings
from infra.training import LORA_TARGETS, BaseSettings, Example, train_base
from schemas.errors import Refused, Unavailable

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="module")]

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


class World:
    """The engines under test and the store that they read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = DirectoryStore(root / "store")
        rows = [Example(f"Customer: where is my card {i}\nIntent:", "card arrival") for i in range(8)]
        # One step: the tokenizer is real, the weights are as good as random.
        train_base(rows, root / "base", BaseSettings(320, 1, 64, 2, 64, epochs=1, batch=8, threads=1))
        self.base = self.store.put_tree(root / "base")
        self.engines = RayEngines(
            EngineSettings(
                kind="vllm",
                store_root=root / "store",
                public_keys={"test": KEY.public_key().public_bytes_raw()},
                name="vllm-test",
                gpus=0.0,
                vllm=VllmSettings(max_model_len=128),
            )
        )

    def arm(self, name: str, adapter: str | None = None) -> ArmSpec:
        return ArmSpec(name, self.base, adapter, max_tokens=8, template="Customer: {text}\nIntent:")

    def adapter(self, name: str, scale: float, probe: GoldenProbe | None = None) -> tuple[str, Path]:
        """A signed LoRA adapter with random weights of that scale (0: it changes nothing): its digest, its stored folder."""
        torch.manual_seed(5)
        model = AutoModelForCausalLM.from_pretrained(str(self.root / "base"), dtype=torch.float32)
        lora = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=list(LORA_TARGETS)))
        for key, value in lora.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(value, std=scale) if scale else torch.nn.init.zeros_(value)
        lora.peft_config["default"].base_model_name_or_path = ""
        folder = self.root / name
        lora.save_pretrained(str(folder))
        write_probes(folder, [probe or GoldenProbe("Customer: where is my card\nIntent:", None)])
        return self.signed(folder)

    def signed(self, folder: Path) -> tuple[str, Path]:
        """An adapter's folder, stored and signed as it is: its digest, its stored folder."""
        tree = self.store.put_tree(folder)
        predicate = AdapterPredicate(self.base, tree, "sha256:" + "d" * 64, 0, {}, "test", {})
        return self.store.put_bytes(sign_adapter(folder, predicate, KEY.sign, "test")), self.store.open_tree(tree)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One engine for the module: it takes a minute to load."""
    connect("local", num_cpus=2)
    made = World(tmp_path_factory.mktemp("world"))
    yield made
    await made.engines.shutdown()
    disconnect()


async def test_the_base_answers_in_batches_within_the_ports_contract(world: World) -> None:
    """Idempotent load; concurrent calls; logprobs, counts and times as the port says; errors with their limits."""
    engines = world.engines
    first = await engines.ensure([world.arm("base")])
    assert [(o.live, o.reason) for o in first] == [(True, "")]
    assert await engines.ensure([world.arm("base")]) == first
    answers = await asyncio.gather(*(engines.generate("base", "where is my card", f"r{i}", 60) for i in range(8)))
    assert len({a.text for a in answers}) == 1
    one = answers[0]
    assert one.tokens_out == len(one.logprobs) > 0
    assert all(p <= 0 for p in one.logprobs)
    assert 0 < one.ttft_ms <= one.latency_ms
    assert (one.engine, one.adapter_digest) == ("vllm", None)
    with pytest.raises(Refused) as refused:
        await engines.generate("base", "x" * 500, "r", 60)
    assert refused.value.kind == "prompt_too_long"
    assert "at most 120 tokens" in refused.value.accepted
    with pytest.raises(Unavailable, match="aborted"):
        await engines.generate("base", "where", "r", 0.0001)
    with pytest.raises(Refused, match="not loaded"):
        await engines.generate("other", "where", "r", 60)


async def test_a_signed_adapter_is_hot_loaded_and_answers_itself(world: World) -> None:
    """Beside the base, without a restart: other logprobs than the base's, and the base's own stay as they were."""
    engines = world.engines
    digest, _ = world.adapter("good", 0.5)
    await engines.ensure([world.arm("base")])
    before = await engines.generate("base", "where is my card", "r", 60)
    outcomes = await engines.ensure([world.arm("base"), world.arm("tuned", digest)])
    assert [(o.live, o.reason) for o in outcomes] == [(True, ""), (True, "")]
    tuned, plain = await asyncio.gather(
        engines.generate("tuned", "where is my card", "r", 60), engines.generate("base", "where is my card", "r", 60)
    )
    assert tuned.adapter_digest == digest
    assert (tuned.text, tuned.logprobs) != (plain.text, plain.logprobs)
    assert plain.text == before.text
    await engines.ensure([world.arm("base")])
    with pytest.raises(Refused):
        await engines.generate("tuned", "where", "r", 60)


async def test_an_adapter_is_unloaded_only_when_its_last_answer_is_given(world: World) -> None:
    """Taken out while it answers: the answers are whole and its own, no engine dies, and it may come again."""
    engines, arm = world.engines, world.arm("base")
    digest, _ = world.adapter("leaving", 0.6)
    long = replace(world.arm("tuned", digest), max_tokens=100)
    await engines.ensure([arm])
    before = await engines.about()
    for turn in range(4):
        assert [row.live for row in await engines.ensure([arm, long])] == [True, True]
        calls = [asyncio.create_task(engines.generate("tuned", f"card {i}", f"r{turn}-{i}", 60)) for i in range(6)]
        await asyncio.sleep(0.05)
        await engines.ensure([arm])
        assert {answer.adapter_digest for answer in await asyncio.gather(*calls)} == {digest}
        assert (await engines.generate("base", "where is my card", f"b{turn}", 60)).adapter_digest is None
    assert await engines.about() == before


async def test_an_adapter_changed_by_one_byte_is_refused(world: World) -> None:
    """The stored weights differ in one bit: the file is named, nothing is loaded, the base goes on."""
    digest, folder = world.adapter("changed", 0.4)
    weights = folder / "adapter_model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.chmod(0o644)
    weights.write_bytes(bytes(data))
    outcomes = await world.engines.ensure([world.arm("base"), world.arm("tuned", digest)])
    assert [o.live for o in outcomes] == [True, False]
    assert "adapter_model.safetensors" in outcomes[1].reason
    await world.engines.generate("base", "where", "r", 60)


async def test_an_adapter_that_changes_nothing_is_not_live(world: World) -> None:
    """Loaded, but every probe is answered as by the base: a stale or empty adapter is never taken for live."""
    digest, _ = world.adapter("empty", 0.0)
    outcomes = await world.engines.ensure([world.arm("base"), world.arm("tuned", digest)])
    assert [o.live for o in outcomes] == [True, False]
    assert "as by the base model" in outcomes[1].reason


async def test_an_adapter_that_does_not_answer_as_signed_is_not_live(world: World) -> None:
    """The golden probe's answer is among the signed files; the reason, which goes into the log, holds no word of it."""
    probe = GoldenProbe("Customer: where is my card\nIntent:", "something that it never says")
    digest, _ = world.adapter("other", 0.3, probe)
    outcomes = await world.engines.ensure([world.arm("base"), world.arm("tuned", digest)])
    assert not outcomes[1].live
    assert outcomes[1].reason.endswith("does not answer as signed to probe 1 of 1")


@pytest.mark.parametrize("text", [None, "{}"])
async def test_an_adapter_without_readable_probes_is_refused_by_name(world: World, text: str | None) -> None:
    """Signed without the file, or with one of another shape: it is never loaded unproven."""
    _, stored = world.adapter("proven", 0.5)
    folder = world.root / f"unproven{text}"
    shutil.copytree(stored, folder)
    (folder / PROBES_FILE).unlink()
    if text is not None:
        (folder / PROBES_FILE).write_text(text)
    digest, _ = world.signed(folder)
    outcomes = await world.engines.ensure([world.arm("base"), world.arm("tuned", digest)])
    assert [o.live for o in outcomes] == [True, False]
    assert PROBES_FILE in outcomes[1].reason


async def test_an_unreadable_adapter_is_refused_and_harms_nobody(world: World) -> None:
    """Signed, but its rank is beyond what the engine was started for."""
    folder = world.root / "wide"
    model = AutoModelForCausalLM.from_pretrained(str(world.root / "base"), dtype=torch.float32)
    lora = get_peft_model(model, LoraConfig(r=64, target_modules=["q_proj"]))
    lora.peft_config["default"].base_model_name_or_path = ""
    lora.save_pretrained(str(folder))
    write_probes(folder, [])
    digest, _ = world.signed(folder)
    outcomes = await world.engines.ensure([world.arm("base"), world.arm("tuned", digest)])
    assert not outcomes[1].live
    assert "vLLM cannot load adapter" in outcomes[1].reason
    await world.engines.generate("base", "where", "r", 60)
