"""What only OpenAI's interface has: log probabilities, two kinds of requests, and parameters that not every model takes."""

import json
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
from http_stage import Stage, says, stage

from infra.clock import SystemClock
from infra.engine import ArmSpec, Generation
from infra.provider import Fault
from infra.provider_http import HttpCaller
from infra.provider_keys import ProviderKeys
from infra.provider_openai import Azure, OpenAiHttp
from schemas.errors import Refused


class NoKeys:
    """A secret store that holds nothing."""

    async def get(self, path: str) -> Mapping[str, str]:
        return {}


def reply(choice: dict[str, Any], tokens_out: int = 2) -> dict[str, Any]:
    usage = {"prompt_tokens": 9, "completion_tokens": tokens_out}
    return {"choices": [{"index": 0, "finish_reason": "stop"} | choice], "usage": usage}


def chat(logprobs: object = None, **message: Any) -> dict[str, Any]:
    return reply({"message": {"role": "assistant", "content": "on it"} | message, "logprobs": logprobs})


def refuses(*names: str) -> Any:
    """Answers a chat, but for requests with one of these parameters, which are refused."""

    async def act(asked: Any, writer: Any) -> None:
        bad = any(name in asked.json() for name in names)
        await (says({"error": {"message": "no"}}, 400) if bad else says(chat()))(asked, writer)

    return act


@dataclass
class Side:
    stage: Stage
    provider: OpenAiHttp
    azure: OpenAiHttp
    spec: ArmSpec

    async def ask(self, **changes: Any) -> Generation:
        return await self.provider.complete(replace(self.spec, **changes), "hello", "r", 5)

    def sent(self) -> list[dict[str, Any]]:
        return [asked.json() for asked in self.stage.asked]


@pytest.fixture
async def side() -> AsyncIterator[Side]:
    """An adapter for a server without keys."""
    async with stage() as there:
        clock = SystemClock()
        caller = HttpCaller(ProviderKeys(NoKeys(), clock), clock)
        spec = ArmSpec("route/out", "", provider="openai_http", model="small", url=f"{there.url}/v1")
        yield Side(there, OpenAiHttp(caller), OpenAiHttp(caller, Azure()), spec)
        await caller.close()


async def test_log_probabilities_of_both_kinds(side: Side) -> None:
    """A chat's and a completion's form are read; a rounding above 0 is 0; a server without them gives none."""
    side.stage.does(
        says(chat({"content": [{"token": "on", "logprob": -0.25}, {"token": " it", "logprob": 1e-7}]})),
        says(reply({"text": "on it", "logprobs": {"tokens": ["on", " it"], "token_logprobs": [-0.25, -0.5]}})),
        says(reply({"text": "on it", "logprobs": {"content": [{"logprob": -1}]}})),
        says(reply({"text": "on it", "logprobs": None})),
        says(reply({"text": "on it"})),
    )
    template = {"template": "Q: {text}\nA:"}
    assert (await side.ask()).logprobs == (-0.25, 0.0)
    assert (await side.ask(**template)).logprobs == (-0.25, -0.5)
    assert (await side.ask(**template)).logprobs == (-1.0,)
    assert (await side.ask(**template)).logprobs == ()
    assert (await side.ask(**template)).logprobs == ()


@pytest.mark.parametrize("rows", [[-0.1] * 3, [0.5, -0.1], [None, -0.1], ["-0.1"], [True]])
async def test_log_probabilities_that_are_none(side: Side, rows: list[object]) -> None:
    """More of them than tokens, above 0, or no numbers: trust is not learnt from them."""
    side.stage.does(says(chat({"content": [{"logprob": row} for row in rows]})))
    with pytest.raises(Fault):
        await side.ask()


async def test_infinite_log_probabilities_are_no_json(side: Side) -> None:
    """Python's servers write -Infinity where JSON has no word for it."""
    side.stage.does(says(json.dumps(chat({"content": [{"logprob": float("-inf")}]})).encode()))
    with pytest.raises(Fault, match="not a JSON object"):
        await side.ask()


async def test_the_address_or_the_template_says_what_is_asked(side: Side) -> None:
    """A whole address is taken as it is; else a template makes it a completion, and `{text}` alone a chat."""
    side.stage.does(says(chat() | reply({"text": "on it", "message": {"content": "on it"}})))
    asked = [
        ("/v1", "{text}", "/v1/chat/completions"),
        ("/v1", "Q: {text}", "/v1/completions"),
        ("/v1/chat/completions", "Q: {text}", "/v1/chat/completions"),
        ("/v1/completions", "{text}", "/v1/completions"),
        ("/openai/v1/", "{text}", "/openai/v1/chat/completions"),
    ]
    for path, template, expected in asked:
        await side.ask(url=side.stage.url + path, template=template)
        assert side.stage.asked[-1].path == expected
    assert "Q: hello" in side.stage.asked[1].body.decode()


async def test_what_a_server_does_not_take_is_left_out(side: Side, caplog: pytest.LogCaptureFixture) -> None:
    """First log probabilities, then sampling and the older limit's name; found once, then known; said where sampling is lost."""
    side.stage.does(refuses("logprobs"))
    await side.ask()
    await side.ask()
    assert [("logprobs" in body, "temperature" in body) for body in side.sent()] == [
        (True, True),
        (False, True),
        (False, True),
    ]
    assert caplog.records == []
    side.stage.asked.clear()
    side.stage.does(refuses("logprobs", "max_tokens", "temperature"))
    with caplog.at_level(logging.WARNING):
        await side.ask(model="reasons")
    assert "takes no temperature" in caplog.text
    assert side.sent()[-1].keys() == {"model", "max_completion_tokens", "stream", "messages"}
    await side.ask(model="reasons")
    assert len(side.stage.asked) == 4


async def test_a_probe_finds_the_dialect_anew(side: Side) -> None:
    """A server that was replaced by one that takes more is asked for it after the next probe."""
    side.stage.does(refuses("logprobs"))
    await side.ask()
    side.stage.does(says(chat({"content": [{"logprob": -0.5}]})))
    await side.ask()
    assert "logprobs" not in side.sent()[-1]
    await side.provider.probe(side.spec, 5)
    assert (await side.ask()).logprobs == (-0.5,)
    assert "logprobs" in side.sent()[-1]


async def test_a_refusal_in_words_is_no_answer(side: Side) -> None:
    """A message with `refusal` is content-filtered."""
    side.stage.does(says(chat(content=None, refusal="I cannot")))
    with pytest.raises(Refused) as refused:
        await side.ask()
    assert refused.value.kind == "content_filtered"


async def test_a_limit_spent_on_reasoning_is_an_empty_answer(side: Side) -> None:
    """No content, cut at the limit: paid for, and empty."""
    side.stage.does(says(reply({"message": {"content": None}, "finish_reason": "length"}, 64)))
    made = await side.ask()
    assert (made.text, made.tokens_out, made.finish_reason) == ("", 64, "length")


@pytest.mark.parametrize(("model", "version"), [("a/b", "2024-10-21"), ("", "2024-10-21"), ("a", ""), ("a", "x&y=1")])
async def test_azure_takes_no_name_that_changes_the_address(side: Side, model: str, version: str) -> None:
    """Deployment and version stand in the address."""
    with pytest.raises(Refused):
        await side.azure.complete(replace(side.spec, model=model, api_version=version), "hello", "r", 5)
    assert side.stage.asked == []


async def test_azures_content_rules_are_told_apart(side: Side) -> None:
    """Azure answers 400 with its own code for them."""
    error = {"code": None, "innererror": {"code": "ResponsibleAIPolicyViolation"}}
    side.stage.does(says({"error": error}, 400))
    with pytest.raises(Refused) as refused:
        await side.azure.complete(replace(side.spec, api_version="2024-10-21"), "hello", "r", 5)
    assert refused.value.kind == "content_filtered"


async def test_a_prompt_too_long_is_told_apart_without_a_code(side: Side) -> None:
    """vLLM says it in words only."""
    side.stage.does(says({"error": {"message": "This model's maximum context length is 128 tokens", "code": 400}}, 400))
    with pytest.raises(Refused) as refused:
        await side.ask()
    assert refused.value.kind == "prompt_too_long"
    assert len(side.stage.asked) == 1
