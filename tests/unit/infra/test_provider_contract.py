"""One contract for every provider over HTTP: what is answered, refused, away, whose fault it is, and that no key is ever said."""

import asyncio
import datetime as dt
import gzip
import json
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from email.utils import format_datetime
from typing import Any

import pytest
from http_stage import Stage, drips, floods, hangs, raw, resets, says, stage

from infra.clock import ManualClock, SystemClock
from infra.engine import ArmSpec, Blameless, Generation, blames_engine
from infra.provider import Fault, Provider
from infra.provider_anthropic import Anthropic
from infra.provider_http import HttpCaller
from infra.provider_keys import ProviderKeys
from infra.provider_openai import Azure, OpenAiHttp
from infra.provider_retry import RetryBudget, retry_after_s
from schemas.errors import Refused, Unavailable

KEY = "sk-test-0123456789abcdef"
TEXT = "where is my card — 卡在哪里 🂡"


class Store:
    """A secret store with one key; it counts how often it is read."""

    def __init__(self) -> None:
        self.key = KEY
        self.reads = 0

    async def get(self, path: str) -> Mapping[str, str]:
        self.reads += 1
        return {"key": self.key} if path == "providers/vendor" else {}


@dataclass(frozen=True)
class Kind:
    """An adapter, and its vendor's replies."""

    name: str
    made: Callable[[HttpCaller], Provider]
    path: str
    key_header: tuple[str, str]
    spec: Mapping[str, Any]
    good: Callable[..., dict[str, Any]]
    prompt: Callable[[dict[str, Any]], str]
    error: Callable[[str], dict[str, Any]]


def chat(
    text: object = "on its way", tokens_in: int = 9, tokens_out: int = 3, finish: object = "stop", cached: int = 4
) -> dict[str, Any]:
    usage = {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion", "choices": [choice], "usage": usage}


def completion(
    text: object = "on its way", tokens_in: int = 9, tokens_out: int = 3, finish: object = "stop", cached: int = 4
) -> dict[str, Any]:
    usage = {
        "prompt_tokens": tokens_in,
        "completion_tokens": tokens_out,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    return {"id": "cmpl-1", "choices": [{"index": 0, "text": text, "finish_reason": finish}], "usage": usage}


def message(
    text: object = "on its way", tokens_in: int = 9, tokens_out: int = 3, finish: object = "stop", cached: int = 4
) -> dict[str, Any]:
    stop = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}.get(str(finish), finish)
    usage = {"input_tokens": tokens_in - cached, "output_tokens": tokens_out, "cache_read_input_tokens": cached}
    return {
        "id": "msg_1",
        "type": "message",
        "content": [{"type": "text", "text": text}],
        "stop_reason": stop,
        "usage": usage,
    }


def openai_error(code: str) -> dict[str, Any]:
    return {"error": {"message": f"you sent {TEXT} with {KEY}", "type": "invalid_request_error", "code": code}}


def anthropic_error(code: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": code, "message": f"you sent {TEXT} with {KEY}"}}


def last_message(body: dict[str, Any]) -> str:
    return body["messages"][-1]["content"]


BEARER = ("authorization", f"Bearer {KEY}")
KINDS = [
    Kind("openai-chat", OpenAiHttp, "/v1/chat/completions", BEARER, {"url": "/v1"}, chat, last_message, openai_error),
    Kind(
        "openai-completion",
        OpenAiHttp,
        "/v1/completions",
        BEARER,
        {"url": "/v1/", "template": "Customer: {text}\nIntent:"},
        completion,
        lambda body: body["prompt"],
        openai_error,
    ),
    Kind(
        "azure",
        lambda caller: OpenAiHttp(caller, Azure()),
        "/openai/deployments/small/chat/completions?api-version=2024-10-21",
        ("api-key", KEY),
        {"url": "", "provider": "azure_openai", "api_version": "2024-10-21"},
        chat,
        last_message,
        openai_error,
    ),
    Kind(
        "anthropic",
        Anthropic,
        "/v1/messages",
        ("x-api-key", KEY),
        {"url": "", "provider": "anthropic"},
        message,
        last_message,
        anthropic_error,
    ),
]


@dataclass
class Side:
    """An adapter and the stage that it asks."""

    kind: Kind
    provider: Provider
    stage: Stage
    store: Store
    spec: ArmSpec
    said: list[str] = field(default_factory=list)

    async def ask(self, timeout_s: float = 5.0, text: str = TEXT, **changes: Any) -> Generation:
        return await self.provider.complete(replace(self.spec, **changes), text, "evt_1/arm", timeout_s)

    async def fails(self, error: type[Exception], timeout_s: float = 5.0, **changes: Any) -> Any:
        """The error that the call ends with; neither it nor what led to it says the key or the text."""
        with pytest.raises(error) as caught:
            await self.ask(timeout_s, **changes)
        told = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value))
        assert KEY not in told
        assert TEXT not in told
        return caught.value


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
async def side(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Side]:
    """Each adapter in turn, before a stage that answers well. At the end: no log said the key or the text."""
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, name)
    kind: Kind = request.param
    async with stage() as there:
        store, clock = Store(), SystemClock()
        caller = HttpCaller(ProviderKeys(store, clock), clock, saved_tenths=100)
        there.does(says(kind.good()))
        told = {"provider": "openai_http", **kind.spec}
        spec = ArmSpec("route/out", "", model="small", secret="vendor", **(told | {"url": there.url + told["url"]}))
        yield Side(kind, kind.made(caller), there, store, spec)
        await caller.close()
    assert KEY not in caplog.text
    assert TEXT not in caplog.text


async def until(met: Callable[[], bool]) -> None:
    """Wait for what happens on the other side of a connection."""
    for _ in range(1000):
        if met():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not happen")


async def test_an_answer_is_what_the_provider_said(side: Side) -> None:
    """Text, counts, cached tokens, finish, ids and times; the engine is the provider by name, the replica its address."""
    made = await side.ask()
    assert (made.text, made.tokens_in, made.tokens_cached, made.tokens_out) == ("on its way", 9, 4, 3)
    assert (made.finish_reason, made.engine, made.adapter_digest) == ("stop", side.spec.provider, None)
    assert made.replica == f"127.0.0.1:{side.stage.port}"
    assert made.reply_id == side.kind.good()["id"]
    assert 0 < made.ttft_ms <= made.latency_ms < 5000
    (asked,) = side.stage.asked
    assert (asked.method, asked.path) == ("POST", side.kind.path)
    name, value = side.kind.key_header
    assert asked.headers[name] == value
    assert asked.headers["x-request-id"] == "evt_1/arm"
    assert side.kind.prompt(asked.json()) == side.spec.prompt(TEXT)
    assert asked.json()["max_tokens"] == 64


async def test_unicode_comes_back_as_it_is(side: Side) -> None:
    """Beyond the first plane, combined, right to left, and escaped as JSON allows."""
    for text in ("日本語 👩‍👩‍👧 é שלום", "nul \u0000 and line\u2028ends", ""):
        side.stage.does(says(side.kind.good(text=text, tokens_out=40)), says(side.kind.good()))
        assert (await side.ask()).text == text


async def test_no_key_where_none_is_named(side: Side) -> None:
    """An arm without a secret sends no header for one."""
    await side.ask(secret="")
    assert side.kind.key_header[0] not in side.stage.asked[0].headers
    assert side.store.reads == 0


async def test_silence_ends_at_the_deadline_and_lets_go(side: Side) -> None:
    """Before the first byte, or in the middle of a reply: it is the provider's fault, and it sees the connection go."""
    for first in (b"", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"):
        side.stage.does(hangs(first))
        fault = await side.fails(Fault, 0.4)
        assert "no answer of 127.0.0.1" in str(fault)
        assert blames_engine(fault)
    await until(lambda: side.stage.left == 2)
    assert len(side.stage.asked) == 2


async def test_a_cancelled_call_lets_go(side: Side) -> None:
    """The loser of a hedge is aborted: cancelled here, the connection is closed there."""
    side.stage.does(hangs())
    call = asyncio.create_task(side.ask())
    await until(lambda: len(side.stage.asked) == 1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await until(lambda: side.stage.left == 1)


async def test_a_slow_body_is_waited_for_until_the_deadline(side: Side) -> None:
    """A byte at a time is an answer while there is time; else it is none."""
    body = json.dumps(side.kind.good()).encode()
    side.stage.does(drips(body, 0.0005))
    assert (await side.ask()).text == "on its way"
    side.stage.does(drips(body, 0.05))
    assert blames_engine(await side.fails(Fault, 0.3))


async def test_a_deadline_too_near_blames_nobody(side: Side) -> None:
    """Past, or nearer than any provider answers: not the provider's fault; past, it is not even asked."""
    side.stage.does(hangs())
    assert isinstance(await side.fails(Blameless, 0.02), Unavailable)
    asked = len(side.stage.asked)
    assert "has passed" in str(await side.fails(Blameless, 0.0))
    assert len(side.stage.asked) == asked


LIES = {
    "half a JSON": lambda good: says(json.dumps(good).encode()[:-9]),
    "claims more bytes than come": lambda good: says(good, length=10_000),
    "claims fewer bytes than come": lambda good: says(good, length=20),
    "two lengths": lambda good: says(good, headers={"Content-Length": "7"}),
    "not JSON": lambda good: says(b"<html>hello</html>"),
    "not an object": lambda good: says([good]),
    "nothing": lambda good: says(b""),
    "not UTF-8": lambda good: says(json.dumps(good).encode().replace(b"way", b"w\xff\xfe")),
    "lone surrogate": lambda good: says(json.dumps(good).encode().replace(b"way", b"w\\ud800")),
    "not a number": lambda good: says(json.dumps(good).encode().replace(b": 3", b": NaN")),
    "an error inside": lambda good: says({"error": {"message": TEXT}}),
    "an error beside": lambda good: says(good | {"error": {"message": KEY}}),
    "packed unasked": lambda good: says(gzip.compress(json.dumps(good).encode()), headers={"content-encoding": "gzip"}),
    "no HTTP": lambda good: raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "no reply": lambda good: raw(b""),
    "endless": lambda good: floods(),
    "endless header": lambda good: raw(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000),
    "reset": lambda good: resets(),
    "no content": lambda good: says(b"", 204),
}


@pytest.mark.parametrize("lie", LIES)
async def test_what_is_no_whole_reply_is_the_providers_fault(side: Side, lie: str) -> None:
    """Half, false, packed, endless, broken: nothing of it is taken, and a breaker counts it."""
    side.stage.does(LIES[lie](side.kind.good()))
    assert blames_engine(await side.fails(Fault))


@pytest.mark.parametrize("name", ["id", "usage", "choices", "content", "stop_reason"])
async def test_a_missing_field_is_named(side: Side, name: str) -> None:
    """Every field but the id is needed; which one is missing is said."""
    good = side.kind.good()
    if name not in good:
        return
    del good[name]
    side.stage.does(says(good))
    if name == "id":
        assert (await side.ask()).reply_id == ""
    else:
        assert f"{name}" in str(await side.fails(Fault))


FALSE = {
    "no tokens for a text": {"tokens_out": 0},
    "more than were asked for": {"tokens_out": 65},
    "a token for a book": {"tokens_out": 1, "text": "x" * 300},
    "more cached than there were": {"tokens_in": 2, "cached": 3},
    "less than none": {"tokens_out": -3},
    "half a token": {"tokens_out": 2.5},
    "a text for a number": {"tokens_out": "3"},
    "true for one": {"tokens_out": True},
    "a number beyond all": {"tokens_in": 10**30},
    "no text": {"text": 7},
    "nothing for a text": {"text": None},
    "an unknown end": {"finish": "tired"},
    "no end": {"finish": None},
    "our key for an answer": {"text": f"it is {KEY}"},
}


@pytest.mark.parametrize("claim", FALSE)
async def test_claims_that_contradict_the_reply_are_not_taken(side: Side, claim: str) -> None:
    """What is paid and learnt by must fit the text and what was asked for: else it is the provider's fault."""
    side.stage.does(says(side.kind.good(**FALSE[claim])))
    assert blames_engine(await side.fails(Fault))


async def test_nothing_to_choose_from(side: Side) -> None:
    """No choice at all; no text in the content."""
    good = side.kind.good()
    side.stage.does(says(good | {"choices": [], "content": [{"type": "tool_use"}]}))
    assert blames_engine(await side.fails(Fault))


async def test_a_limit_on_tokens_is_an_answer(side: Side) -> None:
    """Cut at the limit: the finish says so."""
    side.stage.does(says(side.kind.good(finish="length", tokens_out=64)))
    assert (await side.ask()).finish_reason == "length"


async def test_an_id_that_is_not_plain_is_left_out(side: Side) -> None:
    """What goes into events is an id, never the key or a text."""
    for wrong in (KEY, "a b", "x" * 200, "é"):
        side.stage.does(says(side.kind.good() | {"id": wrong}))
        assert (await side.ask()).reply_id == ""


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "bad", "bad_request"),
        (422, "bad", "bad_request"),
        (401, "invalid_api_key", "unauthorized"),
        (402, "billing", "unauthorized"),
        (403, "permission_error", "unauthorized"),
        (404, "not_found_error", "not_found"),
        (413, "request_too_large", "prompt_too_long"),
        (400, "context_length_exceeded", "prompt_too_long"),
        (400, "content_filter", "content_filtered"),
        (418, "teapot", "bad_request"),
    ],
)
async def test_a_4xx_is_refused_with_its_kind_and_not_repeated(side: Side, status: int, code: str, kind: str) -> None:
    """The sender's or our fault, no engine's: the kind says which. Not one of the vendor's words is repeated."""
    side.stage.does(says(side.kind.error(code), status))
    refused = await side.fails(Refused)
    assert refused.kind == kind
    assert not blames_engine(refused)
    assert "you sent" not in str(refused)
    tries = (
        3 if kind == "bad_request" and side.kind.name in {"openai-chat", "azure"} else 2 if kind == "bad_request" else 1
    )
    assert len(side.stage.asked) <= tries  # what the server may not take is left out before it counts as refused


async def test_content_rules_after_the_answer_are_refused_too(side: Side) -> None:
    """A finish by content filter is no answer."""
    side.stage.does(says(side.kind.good(finish="content_filter")))
    assert (await side.fails(Refused)).kind == "content_filtered"


async def test_a_limit_of_requests_is_no_fault_and_says_how_long(side: Side) -> None:
    """429 with Retry-After, too far to wait for: said at once, blamed on nobody."""
    side.stage.does(says(side.kind.error("rate_limit"), 429, {"retry-after": "7"}))
    limited = await side.fails(Blameless)
    assert limited.retry_after_s == 7.0
    assert not blames_engine(limited)
    assert len(side.stage.asked) == 1


async def test_a_limit_that_ends_soon_is_waited_for(side: Side) -> None:
    """429 with Retry-After: 0 or 1, and time enough: asked once more after it."""
    side.stage.does(says({}, 429, {"retry-after": "1"}), says(side.kind.good()))
    started = asyncio.get_running_loop().time()
    assert (await side.ask()).text == "on its way"
    assert 1.0 <= asyncio.get_running_loop().time() - started < 1.9


@pytest.mark.parametrize("first", [says({}, 500), says(b"", 502), says({}, 529), resets(), raw(b"")])
async def test_a_fault_before_the_answer_is_repeated_once(side: Side, first: Any) -> None:
    """500, 502, 529, a reset, an end without a byte, then an answer: it is the answer."""
    side.stage.does(first, says(side.kind.good()))
    assert (await side.ask()).text == "on its way"
    assert len(side.stage.asked) == 2


async def test_twice_away_is_away(side: Side) -> None:
    """One repetition and no more; the hint of the last is kept."""
    side.stage.does(says({}, 503), says({}, 503, {"retry-after": "30"}))
    fault = await side.fails(Fault)
    assert (fault.retry_after_s, len(side.stage.asked)) == (30.0, 2)


async def test_nothing_is_repeated_once_an_answer_has_begun(side: Side) -> None:
    """Half a reply was paid for: it is not asked for again."""
    side.stage.does(says(side.kind.good(), length=10_000), says(side.kind.good()))
    await side.fails(Fault)
    assert len(side.stage.asked) == 1


async def test_retries_are_a_tenth_of_the_calls(side: Side) -> None:
    """A provider that fails every call is asked at most a tenth more often, after what was saved before."""
    side.stage.does(says({}, 500))
    for _ in range(60):
        await side.fails(Fault)
    saved = RetryBudget.MOST // 10
    assert len(side.stage.asked) <= 60 + 6 + saved


async def test_a_redirect_is_not_followed(side: Side) -> None:
    """Neither the key nor a text goes where a provider points to."""
    async with stage() as elsewhere:
        elsewhere.does(says(side.kind.good()))
        for status in (301, 302, 307, 308):
            side.stage.does(says({}, status, {"location": elsewhere.url + "/v1/chat/completions"}))
            assert "sends elsewhere" in str(await side.fails(Fault))
        assert elsewhere.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/v1",
        "http://10.0.0.1/v1",
        "ftp://127.0.0.1/v1",
        "https://user:word@example.com",
        "https://example.com/v1?key=1",
        "https://example.com/v1#x",
        "https://example.com\\@127.0.0.1/",
        "127.0.0.1:8000",
        "",
        "http://127.0.0.1.example.com/v1",
    ],
)
async def test_an_address_in_the_clear_or_with_more_than_an_address_is_refused(side: Side, url: str) -> None:
    """http:// for loopback only; no user, query, fragment: and the address is not repeated in the refusal."""
    refused = await side.fails(Refused, url=url)
    assert (refused.kind, refused.field) == ("provider_settings", "url")
    assert "word" not in str(refused)
    assert side.stage.asked == []


async def test_a_key_that_is_refused_is_read_again(side: Side) -> None:
    """Read once for many calls; after a 401 the next call has the rotated one."""
    await side.ask()
    await side.ask()
    assert side.store.reads == 1
    side.store.key = "sk-rotated"
    side.stage.does(says(side.kind.error("invalid_api_key"), 401), says(side.kind.good()))
    await side.fails(Refused)
    await side.ask()
    assert side.store.reads == 2
    assert side.stage.asked[-1].headers[side.kind.key_header[0]].endswith("sk-rotated")


async def test_a_key_that_cannot_be_used_is_refused_before_any_call(side: Side) -> None:
    """Missing, with a line's end, or by a name that leaves its folder."""
    side.store.key = f"{KEY}\r\nx-evil: 1"
    assert (await side.fails(Refused)).field == "secret"
    assert (await side.fails(Refused, secret="other")).field == "secret"
    assert (await side.fails(Refused, secret="../principals")).field == "secret"
    assert side.stage.asked == []


async def test_an_arm_that_it_cannot_serve_is_refused(side: Side) -> None:
    """An adapter would not be verified; a model must be named."""
    assert (await side.fails(Refused, adapter="sha256:" + "0" * 64)).field == "adapter"
    assert (await side.fails(Refused, model="")).field == "model"


async def test_a_text_that_is_no_text_is_refused(side: Side) -> None:
    """A lone surrogate cannot be sent: the sender's fault, nothing is asked."""
    with pytest.raises(Refused, match="no Unicode text"):
        await side.ask(text="x\ud800")
    assert side.stage.asked == []


async def test_nobody_there_is_the_providers_fault() -> None:
    """A port where nobody listens: connection refused, twice."""
    caller = HttpCaller(ProviderKeys(Store(), SystemClock()), SystemClock(), saved_tenths=100)
    spec = ArmSpec("r/a", "", provider="openai_http", model="m", url="http://127.0.0.1:9/v1")
    with pytest.raises(Fault, match=r"127.0.0.1:9 cannot be reached: ConnectError") as away:
        await OpenAiHttp(caller).complete(spec, "text", "r", 5)
    assert away.value.__context__ is None
    await caller.close()


async def test_a_probe_asks_for_little(side: Side) -> None:
    """A few tokens at most, and it fails as a call would."""
    side.stage.does(says(side.kind.good(text="o", tokens_out=1, finish="length")))
    await side.provider.probe(side.spec, 5)
    limit = side.stage.asked[0].json()["max_tokens"]
    assert isinstance(limit, int)
    assert limit <= 16
    side.stage.does(says({}, 401))
    with pytest.raises(Refused):
        await side.provider.probe(side.spec, 5)


def test_retry_after_is_seconds_or_a_date() -> None:
    """RFC 9110's two forms; anything else is no hint. Never below zero or above an hour."""
    now_ms = ManualClock().now_ms()

    def date(delta_s: int) -> str:
        return format_datetime(dt.datetime.fromtimestamp(now_ms // 1000 + delta_s, dt.UTC), usegmt=True)

    assert retry_after_s("12", now_ms) == 12.0
    assert retry_after_s(date(40), now_ms) == pytest.approx(40, abs=1)
    assert retry_after_s(date(-40), now_ms) == 0.0
    assert retry_after_s("9" * 400, now_ms) == 3600.0
    assert retry_after_s(date(10**6), now_ms) == 3600.0
    for odd in (None, "", "soon", "-3", "1.5", "٣", "Mon, 99 Foo 2020 00:00:00 GMT"):
        assert retry_after_s(odd, now_ms) is None
