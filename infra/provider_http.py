"""Providers over HTTP: the one place that speaks httpx. Bounded replies, no redirects, no proxies or keys from the environment.

Retries (stamina): one per call, only before the first byte of an answer, never past the deadline, and at most a tenth more calls
than were asked for, by a token bucket per address. A deadline or a cancelled call closes the connection, so that the provider stops.
"""

import asyncio
import logging
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import httpx
import orjson
import stamina
from pydantic import SecretStr

from infra.clock import Clock
from infra.engine import ArmSpec, Blameless, Generation
from infra.provider import Fault, Part, Said, checked, fields, settings_refused, unreadable
from infra.provider_keys import ProviderKeys
from infra.provider_retry import RetryBudget, retry_after_s, wait_s_of
from schemas.errors import Refused

CONNECT_S = 3.0
FAIR_S = 0.05  # a deadline nearer than that says nothing of the provider
ERROR_BYTES = 16_384
REPLY_BYTES = 262_144
TOKEN_REPLY_BYTES = 2_048  # a token with its log probability and bytes, as JSON
RETRY_WAIT_S = (0.05, 0.1, 0.5)  # first wait, jitter, longest
_URL = re.compile(r"(https?)://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?((?:/[A-Za-z0-9._~-]+)*)/?")
_REQUEST_ID = re.compile(r"[\w./:-]{1,200}", re.ASCII)
_TOO_LONG = {"context_length_exceeded", "string_above_max_length", "request_too_large", "exceed_context_size_error"}
_TOO_LONG_SAID = (b"maximum context length", b"prompt is too long", b"available context size")  # where there is no code
_FILTERED = {"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"}
_REFUSED = {
    401: ("unauthorized", "does not accept our key"),
    402: ("unauthorized", "wants to be paid first"),
    403: ("unauthorized", "does not let our key do that"),
    404: ("not_found", "does not know that model or address"),
    405: ("not_found", "does not take requests at that address"),
    413: ("prompt_too_long", "does not take a prompt that long"),
}


@dataclass(frozen=True, slots=True)
class Call:
    """A request. `secret` is its key's name; in `headers`, `{key}` stands where the key goes; `until`: of `HttpCaller.until`."""

    url: str
    where: str
    headers: Mapping[str, str]
    body: Mapping[str, object]
    secret: str
    request_id: str
    max_tokens: int
    until: float

    @property
    def limit(self) -> int:
        """Bytes that an honest reply does not reach."""
        return REPLY_BYTES + TOKEN_REPLY_BYTES * self.max_tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply with status 200, whole, as JSON."""

    call: Call
    root: Part
    key: SecretStr
    ttft_ms: float
    latency_ms: float

    def generation(self, said: Said, engine: str) -> Generation:
        """What it says as an answer of `engine`, where it contradicts neither itself nor what was asked. Else `Fault`."""
        true = checked(self.call.where, said, self.call.max_tokens, self.key.get_secret_value())
        return Generation(
            text=true.text,
            tokens_in=true.tokens_in,
            tokens_out=true.tokens_out,
            latency_ms=self.latency_ms,
            ttft_ms=self.ttft_ms,
            finish_reason=true.finish,
            logprobs=true.logprobs,
            adapter_digest=None,
            engine=engine,
            replica=self.call.where,
            tokens_cached=true.tokens_cached,
            reply_id=true.reply_id,
        )


class HttpCaller:
    """Calls providers. One per process: it holds their connections. `plain_http`: hosts that may be asked without TLS."""

    def __init__(
        self,
        keys: ProviderKeys,
        clock: Clock,
        *,
        plain_http: frozenset[str] = frozenset(),
        ca: Path | None = None,
        saved_tenths: int = 0,
    ) -> None:
        self._keys = keys
        self._clock = clock
        self._plain_http = plain_http
        self._trust = _trust(ca)  # here, for it reads files: not in the middle of a call
        self._saved_tenths = saved_tenths
        self._budgets: dict[str, RetryBudget] = {}
        self._client: httpx.AsyncClient | None = None

    def endpoint(self, spec: ArmSpec) -> tuple[str, str]:
        """The arm's address without a slash at its end, and its host and port for errors. Raises `Refused`."""
        found = _URL.fullmatch(spec.url)
        if found is None:
            raise settings_refused(spec, "url", "https://HOST[:PORT][/PATH], without user, query or fragment")
        scheme, host, port, _ = found.groups()
        if scheme == "http" and host not in self._plain_http and not _loopback(host):
            raise settings_refused(spec, "url", "https://, for a key or a text goes there; http:// for loopback only")
        return spec.url.rstrip("/"), host + (port or "")

    async def post(self, call: Call) -> Reply:
        """The reply to a call. Raises `Refused`, `Fault` or `Blameless`. A key that is refused is read anew for the next call."""
        key = await self._keys.get(call.secret)
        timeout_s = call.until - self._clock.monotonic()
        if timeout_s <= 0:
            raise Blameless("the deadline has passed")
        try:
            return await self._tried(call, key, timeout_s)
        except Refused as refused:
            if refused.kind == "unauthorized":
                self._keys.forget(call.secret)
            raise

    async def _tried(self, call: Call, key: SecretStr, timeout_s: float) -> Reply:
        """The reply, at the first or the second attempt."""
        started = self._clock.monotonic()
        budget = self._budgets.setdefault(call.where, RetryBudget(self._saved_tenths))
        budget.save()
        retried = False

        def again(error: BaseException) -> bool | float:
            nonlocal retried
            wait_s = None if retried else wait_s_of(error)
            if wait_s is None or wait_s >= (call.until - self._clock.monotonic()) / 2 or not budget.spend():
                return False
            retried = True
            return wait_s or True

        first, jitter, longest = RETRY_WAIT_S
        try:
            async with asyncio.timeout(timeout_s):
                async for attempt in stamina.retry_context(
                    on=again, attempts=2, timeout=None, wait_initial=first, wait_jitter=jitter, wait_max=longest
                ):
                    with attempt:
                        return await self._once(call, key, started)
        except TimeoutError:
            pass
        raise _late(call, timeout_s)

    def until(self, timeout_s: float) -> float:
        """The deadline that is so many seconds from now."""
        return self._clock.monotonic() + timeout_s

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _once(self, call: Call, key: SecretStr, started: float) -> Reply:
        # Raised outside the except block: a foreign error may quote a header, and ours shall not lead to it.
        try:
            return await self._exchange(call, key, started)
        except _Ended as ended:
            fault = ended.fault
        except httpx.PoolTimeout:
            fault = Blameless("all our connections to providers are in use", retry_after_s=1.0)
        except httpx.HTTPError as away:
            fault = Fault(f"{call.where} cannot be reached: {type(away).__name__}", repeatable=True)
        raise fault

    async def _exchange(self, call: Call, key: SecretStr, started: float) -> Reply:
        headers = {name: value.replace("{key}", key.get_secret_value()) for name, value in call.headers.items()}
        left_s = max(FAIR_S, call.until - self._clock.monotonic())  # the deadline itself is `_tried`'s
        sent_id = call.request_id if _REQUEST_ID.fullmatch(call.request_id) else "-"
        request = self._opened().build_request(
            "POST",
            call.url,
            content=_packed(call),
            headers={
                **headers,
                "content-type": "application/json",
                "accept": "application/json",
                "accept-encoding": "identity",  # what is packed has no bound before it is unpacked
                "x-request-id": sent_id,
            },
            timeout=httpx.Timeout(left_s, connect=min(CONNECT_S, left_s / 2)),
        )
        response = await self._opened().send(request, stream=True)
        try:
            ttft_ms = self._since_ms(started)
            if response.status_code != 200:
                raise _Ended(await self._refusal(call, response))
            body = await _whole(call, response)
        finally:
            await response.aclose()
        return Reply(call, _parsed(call, body), key, ttft_ms, self._since_ms(started))

    async def _refusal(self, call: Call, response: httpx.Response) -> Exception:
        status = response.status_code
        after_s = retry_after_s(response.headers.get("retry-after"), self._clock.now_ms())
        if status == 429:
            return Blameless(f"{call.where} takes no more requests of ours now (429)", retry_after_s=after_s)
        if status >= 500 or status in {408, 425}:
            return Fault(f"{call.where} answered {status}", retry_after_s=after_s, repeatable=True)
        if status < 400:
            said = "sends elsewhere, where our key and texts do not go" if status >= 300 else "gave no answer"
            return Fault(f"{call.where} answered {status}: it {said}")
        body = await _beginning(response)
        codes = _codes(body)
        if codes & _TOO_LONG or (status == 400 and any(words in body for words in _TOO_LONG_SAID)):
            kind, why = _REFUSED[413]
        elif codes & _FILTERED:
            kind, why = "content_filtered", "does not answer that by its content rules"
        else:
            kind, why = _REFUSED.get(status, ("bad_request", "does not accept the request"))
        return Refused(f"{call.where} {why} ({status})", kind=kind)

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            limits = httpx.Limits(max_connections=512, max_keepalive_connections=64)
            self._client = httpx.AsyncClient(verify=self._trust, limits=limits, follow_redirects=False, trust_env=False)
        return self._client

    def _since_ms(self, started: float) -> float:
        return (self._clock.monotonic() - started) * 1000


class _Ended(Exception):
    """Carries what is to be raised out of the exchange."""

    def __init__(self, fault: Exception) -> None:
        super().__init__()
        self.fault = fault


@cache
def _trust(ca: Path | None) -> ssl.SSLContext:
    """Whose certificates count: the machine's authorities, or those of the file."""
    return ssl.create_default_context(cafile=None if ca is None else str(ca))


def plain_name(text: str) -> bool:
    """Whether it can stand in a path, a query or a header as it is."""
    return re.fullmatch(r"[A-Za-z0-9._-]{1,128}", text) is not None


def _late(call: Call, timeout_s: float) -> Fault | Blameless:
    if timeout_s < FAIR_S:
        return Blameless(f"no answer of {call.where} within {timeout_s:.3f} s, which is too short to tell")
    return Fault(f"no answer of {call.where} within {timeout_s:.3f} s")


def _packed(call: Call) -> bytes:
    try:
        return orjson.dumps(call.body)
    except orjson.JSONEncodeError:
        pass
    raise _Ended(
        Refused("the prompt is no Unicode text", kind="bad_request", field="text", accepted="text without surrogates")
    )


async def _whole(call: Call, response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise _Ended(unreadable(call.where, "it is packed, which was not asked for"))
    body = bytearray()
    try:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > call.limit:
                break
    except httpx.HTTPError as cut:
        why = f"it ended after {len(body)} bytes: {type(cut).__name__}"
    else:
        if len(body) <= call.limit:
            return bytes(body)
        why = f"it is longer than {call.limit} bytes"
    raise _Ended(unreadable(call.where, why))


async def _beginning(response: httpx.Response) -> bytes:
    """Some of an error's body, as far as it comes; the status alone says enough."""
    body = bytearray()
    try:
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > ERROR_BYTES:
                break
    except httpx.HTTPError:
        return b""
    return bytes(body)


def _codes(body: bytes) -> set[str]:
    """The codes of an error of OpenAI's or Anthropic's shape."""
    try:
        said = fields(orjson.loads(body)) or {}
    except orjson.JSONDecodeError:
        return set()
    error = fields(said.get("error")) or {}
    inner = fields(error.get("innererror")) or {}
    rows = [error.get("code"), error.get("type"), inner.get("code")]
    return {row for row in rows if isinstance(row, str)}


def _parsed(call: Call, body: bytes) -> Part:
    try:
        value = fields(orjson.loads(body))
    except orjson.JSONDecodeError:
        value = None
    if value is None:
        raise _Ended(unreadable(call.where, f"its {len(body)} bytes are not a JSON object"))
    root = Part(call.where, value)
    if not root.get("error").absent:
        raise _Ended(unreadable(call.where, "status 200 with an error"))
    return root


def _loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


for _name in ("httpx", "httpcore"):  # one line per request, with its address: ours says what matters
    logging.getLogger(_name).setLevel(logging.WARNING)
