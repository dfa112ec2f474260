"""vLLM's own HTTP server behind `openai_http`: what a provider of OpenAI's interface really says is read, with log probabilities."""

import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from infra.clock import SystemClock
from infra.engine import ArmSpec
from infra.engine_mixed import MixedEngine
from infra.engine_scripted import ScriptedEngine
from infra.engine_vllm import VllmSettings, environment
from infra.provider import Fault
from infra.provider_http import HttpCaller
from infra.provider_keys import ProviderKeys
from infra.provider_openai import OpenAiHttp
from infra.training import BaseSettings, Example, train_base
from schemas.errors import Refused
from tools.stack.ports import free_ports
from tools.stack.processes import Running, kill, start, wait_until

pytestmark = pytest.mark.vllm

KEY = "sk-of-this-test"
LOAD_S = 570
CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


class Store:
    """A secret store with the server's key and a wrong one."""

    async def get(self, path: str) -> Mapping[str, str]:
        return {"providers/vllm": {"key": KEY}, "providers/wrong": {"key": "sk-wrong"}}.get(path, {})


def well(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Running]]:
    """vLLM serving a tiny model of random weights on loopback, with a key; its address and process."""
    root = tmp_path_factory.mktemp("vllm")
    rows = [Example(f"Customer: where is my card {i}\nIntent:", "card arrival") for i in range(8)]
    train_base(rows, root / "base", BaseSettings(320, 1, 64, 2, 64, epochs=1, batch=8, threads=1))
    (root / "chat.jinja").write_text(CHAT)
    (port,) = free_ports(1)
    running = start(
        "vllm", serving(root, port), log=root / "log", env=environment(VllmSettings(), 2) | {"VLLM_API_KEY": KEY}
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: well(url), running, timeout_s=LOAD_S, what="vLLM's HTTP server")
        yield url, running
    finally:
        kill(running)


def serving(root: Path, port: int) -> list[str]:
    """The command line of the server. Not `vllm serve`: it asks for a package named vllm, and the CPU build is not."""
    return [
        *(sys.executable, "-m", "vllm.entrypoints.launchers.api_server.entry", "--model", str(root / "base")),
        *("--host", "127.0.0.1", "--port", str(port), "--served-model-name", "tiny"),
        *("--dtype", "bfloat16", "--enforce-eager", "--max-model-len", "128"),
        *("--chat-template", str(root / "chat.jinja")),
    ]


@dataclass
class Side:
    provider: OpenAiHttp
    spec: ArmSpec


@pytest.fixture
async def side(server: tuple[str, Running]) -> AsyncIterator[Side]:
    """The adapter, and an arm of the server's model that is asked for completions."""
    clock = SystemClock()
    caller = HttpCaller(ProviderKeys(Store(), clock), clock)
    told = {"provider": "openai_http", "model": "tiny", "secret": "vllm", "max_tokens": 8}
    yield Side(
        OpenAiHttp(caller), ArmSpec("r/tiny", "", url=f"{server[0]}/v1", template="Customer: {text}\nIntent:", **told)
    )
    await caller.close()


async def test_completions_and_chats_with_log_probabilities(side: Side) -> None:
    """One log probability a token, the counts agree, greedy answers repeat; the chat's template is the server's."""
    await side.provider.probe(side.spec, 60)
    one = await side.provider.complete(side.spec, "where is my card", "r1", 60)
    assert 0 < one.tokens_out == len(one.logprobs) <= 8
    assert all(row <= 0 for row in one.logprobs)
    assert one.tokens_in > 0
    assert one.finish_reason in {"stop", "length"}
    assert one.reply_id
    again = await side.provider.complete(side.spec, "where is my card", "r2", 60)
    assert again.text == one.text
    chat = await side.provider.complete(
        replace(side.spec, template="{text}"), "Customer: where is my card\nIntent:", "r3", 60
    )
    assert 0 < chat.tokens_out == len(chat.logprobs)


async def test_what_the_server_refuses(side: Side) -> None:
    """A prompt beyond the model, another key, another model: each with its kind, and none of the server's words."""
    for change, text, kind in (
        ({}, "card " * 400, "prompt_too_long"),
        ({"secret": "wrong"}, "x", "unauthorized"),
        ({"model": "other"}, "x", "not_found"),
    ):
        with pytest.raises(Refused) as refused:
            await side.provider.complete(replace(side.spec, **change), text, "r", 60)
        assert refused.value.kind == kind


async def test_a_server_that_dies_is_found(side: Side, server: tuple[str, Running]) -> None:
    """Live by its probe; killed: the call is the provider's fault, the engine is not well, and the arm is not live again."""

    async def none() -> ScriptedEngine:
        raise AssertionError("no arm of ours was named")

    engine = MixedEngine(none, {"openai_http": side.provider}, SystemClock())
    assert [row.live for row in await engine.ensure([side.spec])] == [True]
    assert (await engine.generate("r/tiny", "where is my card", "r", 60)).engine == "openai_http"
    kill(server[1])
    with pytest.raises(Fault):
        await engine.generate("r/tiny", "where is my card", "r", 5)
    assert not await engine.healthy()
    assert [row.live for row in await engine.ensure([side.spec])] == [False]
