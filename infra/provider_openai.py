"""`openai_http`: any server that speaks OpenAI's interface (vLLM, Ollama, llama.cpp, OpenAI), and `azure_openai`, Azure's variant.

Chat or completions: an address that ends with `/chat/completions` or `/completions` says so itself; else an arm whose template is
more than `{text}` is a base model's and is asked for a completion of its prompt, and every other is asked in a chat. Azure: a chat.

Not every server or model takes every parameter. An arm's first answers find the richest `Dialect` that it does not refuse (400):
with log probabilities; without; without sampling parameters and with the newer name of the token limit, as reasoning models want.
"""

import logging
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from infra.engine import ArmSpec, Generation
from infra.provider import Part, Said, check_common, settings_refused, unreadable
from infra.provider_http import Call, HttpCaller, plain_name
from schemas.errors import Refused

Kind = Literal["chat/completions", "completions"]
KINDS: tuple[Kind, Kind] = ("chat/completions", "completions")
FINISHES = ("stop", "length")
REASONING_PROBE_TOKENS = 16  # a reasoning model refuses a limit that ends it before its first word
log = logging.getLogger("ratchet")


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server takes: log probabilities, sampling parameters, and under which name the limit of tokens."""

    logprobs: bool = True
    sampling: bool = True
    limit: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"


DIALECTS = (Dialect(), Dialect(logprobs=False), Dialect(False, False, "max_completion_tokens"))


class Profile(Protocol):
    """Where a vendor wants requests to go, and where its key stands."""

    @property
    def name(self) -> str: ...

    def address(self, spec: ArmSpec, base: str) -> tuple[str, Kind]:
        """The address of an arm's requests, and of what kind they are. Raises `Refused`."""
        ...

    def headers(self) -> dict[str, str]: ...


@dataclass(frozen=True, slots=True)
class OpenAi:
    """`url` is the address up to and with `/v1`, or the whole."""

    name: str = "openai_http"

    def address(self, spec: ArmSpec, base: str) -> tuple[str, Kind]:
        for kind in KINDS:  # the longer ending first
            if base.endswith(f"/{kind}"):
                return base, kind
        kind = KINDS[0] if spec.template == "{text}" else KINDS[1]
        return f"{base}/{kind}", kind

    def headers(self) -> dict[str, str]:
        return {"authorization": "Bearer {key}"}


@dataclass(frozen=True, slots=True)
class Azure:
    """`url` is the resource's address, `model` the deployment; `api_version` is asked for."""

    name: str = "azure_openai"

    def address(self, spec: ArmSpec, base: str) -> tuple[str, Kind]:
        for field, value in (("model", spec.model), ("api_version", spec.api_version)):
            if not plain_name(value):
                raise settings_refused(spec, field, "letters, digits, . _ and -, at least one")
        return f"{base}/openai/deployments/{spec.model}/{KINDS[0]}?api-version={spec.api_version}", KINDS[0]

    def headers(self) -> dict[str, str]:
        return {"api-key": "{key}"}


class OpenAiHttp:
    """See the module."""

    def __init__(self, caller: HttpCaller, profile: Profile | None = None) -> None:
        self._caller = caller
        self._profile = profile or OpenAi()
        self._dialects: dict[tuple[str, str], Dialect] = {}

    @property
    def name(self) -> str:
        return self._profile.name

    async def complete(self, spec: ArmSpec, text: str, request_id: str, timeout_s: float) -> Generation:
        check_common(spec)
        base, where = self._caller.endpoint(spec)
        url, kind = self._profile.address(spec, base)
        until = self._caller.until(timeout_s)
        known = self._dialects.get((url, spec.model))
        ladder = DIALECTS if known is None else (known,)
        if kind == "completions":
            ladder = tuple(row for row in ladder if row.sampling)
        for dialect in ladder:
            body = _body(spec, kind, text, dialect)
            headers = self._profile.headers() if spec.secret else {}
            call = Call(url, where, headers, body, spec.secret, request_id, spec.max_tokens, until)
            try:
                reply = await self._caller.post(call)
            except Refused as refused:
                if refused.kind != "bad_request" or dialect is ladder[-1]:
                    raise
                continue
            self._learnt(spec, url, known, dialect)
            return reply.generation(_said(reply.root, kind), self.name)
        raise AssertionError("a ladder of dialects ends with an answer or a refusal")

    async def probe(self, spec: ArmSpec, timeout_s: float) -> None:
        """And find its dialect anew: a server changes with its version."""
        base, _ = self._caller.endpoint(spec)
        url, _ = self._profile.address(spec, base)
        self._dialects.pop((url, spec.model), None)
        limit = min(spec.max_tokens, REASONING_PROBE_TOKENS)
        await self.complete(replace(spec, max_tokens=limit), "probe", "probe", timeout_s)

    def _learnt(self, spec: ArmSpec, url: str, known: Dialect | None, dialect: Dialect) -> None:
        if known is None:
            self._dialects[url, spec.model] = dialect
            if not dialect.sampling:
                log.warning("arm %s takes no temperature: it samples as its provider wants", spec.arm)


def _body(spec: ArmSpec, kind: Kind, text: str, dialect: Dialect) -> dict[str, object]:
    body: dict[str, object] = {"model": spec.model, dialect.limit: spec.max_tokens, "stream": False}
    prompt = spec.prompt(text)
    if kind == "completions":
        body["prompt"] = prompt
    else:
        body["messages"] = [{"role": "user", "content": prompt}]
    if dialect.sampling:
        body["temperature"] = spec.temperature
    if spec.stop:
        body["stop"] = list(spec.stop)
    if dialect.logprobs:
        body["logprobs"] = 1 if kind == "completions" else True
    return body


def _said(root: Part, kind: Kind) -> Said:
    choices = root.get("choices").rows()
    if not choices:
        raise unreadable(root.where, "choices is empty")
    choice, usage = choices[0], root.get("usage")
    finish = choice.get("finish_reason").text()
    text = _completed(choice) if kind == "completions" else _chatted(choice, finish)
    if finish == "content_filter":
        raise _filtered(root.where)
    if finish not in FINISHES:
        raise unreadable(root.where, f"finish_reason is none of {', '.join(FINISHES)}, content_filter")
    cached = usage.get("prompt_tokens_details")
    held = None if cached.absent else cached.get("cached_tokens")
    known = root.get("id")
    return Said(
        text=text,
        tokens_in=usage.get("prompt_tokens").count(),
        tokens_cached=0 if held is None or held.absent else held.count(),
        tokens_out=usage.get("completion_tokens").count(),
        finish=finish,
        logprobs=_logprobs(choice.get("logprobs")),
        reply_id="" if known.absent else known.text(),
    )


def _completed(choice: Part) -> str:
    return choice.get("text").text()


def _chatted(choice: Part, finish: str) -> str:
    message = choice.get("message")
    content, refusal = message.get("content"), message.get("refusal")
    if not refusal.absent and refusal.text():
        raise _filtered(choice.where)
    if content.absent and finish in ("length", "content_filter"):
        return ""  # all of the limit went into reasoning; or nothing of it is shown
    return content.text()


def _filtered(where: str) -> Refused:
    return Refused(f"{where} does not answer that by its content rules", kind="content_filtered")


def _logprobs(held: Part) -> tuple[float, ...]:
    """Of the chosen tokens, where the server offers them: a chat's `content`, or a completion's `token_logprobs`."""
    if held.absent:
        return ()
    content, tokens = held.get("content"), held.get("token_logprobs")
    if not content.absent:
        return tuple(row.get("logprob").number() for row in content.rows())
    return () if tokens.absent else tuple(row.number() for row in tokens.rows())
