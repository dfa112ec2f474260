"""A log's side of the witness protocol: every witness of a policy is asked at once, over HTTP, within a bound.

A witness is believed when it says no: whoever can speak as one can stop the log, none can make it sign or publish anything.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import httpx

from schemas.errors import Refused
from schemas.tlog import witnessing
from schemas.tlog.note import Checkpoint, SignatureCheck, Untrusted, sign_line
from schemas.tlog.policy import Policy, Witness
from schemas.tlog.strict import Malformed

TIMEOUT_S = 5.0
"""For one witness, its second question included."""
MAX_ANSWER = 64 * 1024
Prove = Callable[[int], Sequence[bytes]]


class RolledBack(Exception):
    """A witness has seen a larger log than ours: our directory is an old one. Nothing may be signed until a person has looked."""


class SplitView(Exception):
    """A witness has seen another history of this log. Nothing may be published until a person has looked."""


@dataclass(frozen=True, slots=True)
class Cosigned:
    """What the witnesses of a policy said of one checkpoint."""

    lines: tuple[str, ...]
    """Their signature lines, each with its newline, verified, in the policy's order."""
    missing: Mapping[str, str]
    """Why a witness's line is not among them, by its petname."""


class _Missing(Exception):
    """Why there is no line of a witness."""


class HttpWitnesses:
    """The witnesses of a policy. Remembers what size each has seen; after a start the first answer tells. One `cosign` at a time."""

    def __init__(
        self,
        policy: Policy,
        check: SignatureCheck,
        *,
        timeout_s: float = TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Raises Refused for a witness whose URL is none; without a URL it is never asked, and always missing."""
        for name, witness in policy.witnesses.items():
            if witness.url is not None and not _is_http(witness.url):
                raise Refused(
                    f"witness {name}: {witness.url!r}; accepted: http(s)://HOST[:PORT][/PATH]", kind="settings"
                )
        self._witnesses = policy.witnesses
        self._check = check
        self._timeout_s = timeout_s
        self._sizes: dict[str, int] = {}
        self._client = httpx.AsyncClient(
            transport=transport, timeout=timeout_s, follow_redirects=False, trust_env=False
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def cosign(self, checkpoint: Checkpoint, note: bytes, prove: Prove) -> Cosigned:
        """Every witness has been asked, or its time is up, when this returns or raises; `prove` runs on threads."""
        said = await asyncio.gather(
            *(self._ask(name, witness, checkpoint, note, prove) for name, witness in self._witnesses.items()),
            return_exceptions=True,
        )
        faults = [one for one in said if isinstance(one, BaseException) and not isinstance(one, _Missing)]
        if faults:
            raise min(faults, key=lambda one: not isinstance(one, SplitView))
        by_name = dict(zip(self._witnesses, said, strict=True))
        return Cosigned(
            tuple(line for line in said if isinstance(line, str)),
            {name: str(why) for name, why in by_name.items() if isinstance(why, _Missing)},
        )

    async def _ask(self, name: str, witness: Witness, checkpoint: Checkpoint, note: bytes, prove: Prove) -> str:
        """The witness's verified line, or the exception that says why there is none."""
        if witness.url is None:
            raise _Missing("the policy has no URL of it")
        url = f"{witness.url.rstrip('/')}/add-checkpoint"
        try:
            async with asyncio.timeout(self._timeout_s):
                old = min(self._sizes.get(name, 0), checkpoint.size)
                status, body = await self._post(url, old, checkpoint, note, prove)
                if status == 409 and (theirs := _their_size(name, old, checkpoint.size, body)) != old:
                    old = theirs
                    status, body = await self._post(url, old, checkpoint, note, prove)
        except TimeoutError as exc:
            raise _Missing(f"it did not answer in {self._timeout_s:g} s") from exc
        except httpx.HTTPError as exc:
            raise _Missing(f"it is away: {type(exc).__name__}") from exc
        return self._line(name, witness, old, checkpoint, status, body)

    def _line(self, name: str, witness: Witness, old: int, checkpoint: Checkpoint, status: int, body: bytes) -> str:
        if status == 409 and _their_size(name, old, checkpoint.size, body) == old == checkpoint.size:
            raise SplitView(f"witness {name} has seen another root of the {old} entries of {checkpoint.origin}")
        if status == 422 and old > 0:
            raise SplitView(f"witness {name} has seen {old} entries that {checkpoint.origin} does not extend")
        if status != 200:
            raise _Missing(f"it answered {status}")
        try:
            found = witnessing.open_cosignature(checkpoint.text, body, witness.key, self._check)
        except (Malformed, Untrusted) as exc:
            raise _Missing(f"its answer is not a cosignature: {exc}") from exc
        self._sizes[name] = checkpoint.size
        return sign_line(found.key, found.line.signature)

    async def _post(self, url: str, old: int, checkpoint: Checkpoint, note: bytes, prove: Prove) -> tuple[int, bytes]:
        proof = () if old in (0, checkpoint.size) else tuple(await asyncio.to_thread(prove, old))
        request = witnessing.AddCheckpoint(old, proof, note).encode()
        async with self._client.stream("POST", url, content=request) as response:
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER:
                    raise _Missing(f"its answer is longer than {MAX_ANSWER} bytes")
        return response.status_code, bytes(body)


def _their_size(name: str, old: int, size: int, body: bytes) -> int:
    """The size that a 409 names. Raises RolledBack when it is above ours."""
    try:
        theirs = witnessing.parse_size(body)
    except Malformed as exc:
        raise _Missing(f"it answered 409 without a size: {exc}") from exc
    if theirs > size:
        raise RolledBack(f"witness {name} has seen {theirs} entries, we have {size} (asked from {old})")
    return theirs


def _is_http(text: str) -> bool:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL:
        return False
    return url.scheme in ("http", "https") and bool(url.host) and not (url.query or url.fragment or url.userinfo)
