"""`anthropic`: the Messages interface. It offers no log probabilities, and takes a temperature up to 1.

Its `input_tokens` are those that no cache held (its documentation of prompt caching): ours are all of the prompt.
"""

from dataclasses import replace

from infra.engine import ArmSpec, Generation
from infra.provider import Part, Said, check_common, settings_refused, unreadable
from infra.provider_http import Call, HttpCaller, plain_name
from schemas.errors import Refused

VERSION = "2023-06-01"
FINISHES = {"end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length"}


class Anthropic:
    """`url` is the address without `/v1/messages`."""

    name = "anthropic"

    def __init__(self, caller: HttpCaller) -> None:
        self._caller = caller

    async def complete(self, spec: ArmSpec, text: str, request_id: str, timeout_s: float) -> Generation:
        check_common(spec)
        if spec.temperature > 1:
            raise settings_refused(spec, "temperature", "0 to 1")
        version = spec.api_version or VERSION
        if not plain_name(version):
            raise settings_refused(spec, "api_version", f"a version like {VERSION}")
        base, where = self._caller.endpoint(spec)
        key = {"x-api-key": "{key}"} if spec.secret else {}
        call = Call(
            url=f"{base}/v1/messages",
            where=where,
            headers={**key, "anthropic-version": version},
            body=_body(spec, text),
            secret=spec.secret,
            request_id=request_id,
            max_tokens=spec.max_tokens,
            until=self._caller.until(timeout_s),
        )
        reply = await self._caller.post(call)
        return reply.generation(_said(reply.root), self.name)

    async def probe(self, spec: ArmSpec, timeout_s: float) -> None:
        await self.complete(replace(spec, max_tokens=1), "probe", "probe", timeout_s)


def _body(spec: ArmSpec, text: str) -> dict[str, object]:
    body: dict[str, object] = {
        "model": spec.model,
        "max_tokens": spec.max_tokens,
        "messages": [{"role": "user", "content": spec.prompt(text)}],
        "temperature": spec.temperature,
    }
    if spec.stop:
        body["stop_sequences"] = list(spec.stop)
    return body


def _said(root: Part) -> Said:
    usage, stopped = root.get("usage"), root.get("stop_reason").text()
    if stopped == "refusal":
        raise Refused(f"{root.where} does not answer that by its content rules", kind="content_filtered")
    if stopped not in FINISHES:
        raise unreadable(root.where, f"stop_reason is none of {', '.join(FINISHES)}, refusal")
    blocks = root.get("content").rows()
    if any(block.get("type").text() != "text" for block in blocks):
        raise unreadable(root.where, "content holds more than text")
    fresh = usage.get("input_tokens").count()
    cached, kept = (_count(usage, f"cache_{what}_input_tokens") for what in ("read", "creation"))
    known = root.get("id")
    return Said(
        text="".join(block.get("text").text() for block in blocks),
        tokens_in=fresh + cached + kept,
        tokens_cached=cached,
        tokens_out=usage.get("output_tokens").count(),
        finish=FINISHES[stopped],
        logprobs=(),
        reply_id="" if known.absent else known.text(),
    )


def _count(usage: Part, name: str) -> int:
    held = usage.get(name)
    return 0 if held.absent else held.count()
