"""What a sequencer's tests take away from it: witnesses that go away, a notary that rotates, a disk that fills up."""

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from witnessed import TIME, WITNESSES

from agents.evidence.quorum import Quorum
from agents.evidence.witness import Witness
from infra.clock import ManualClock
from infra.notary import verify
from infra.witness_client import HttpWitnesses
from infra.witness_store import WitnessDirectory
from schemas.errors import Refused, Unavailable
from schemas.tlog.note import VerifierKey, parse_vkey
from schemas.tlog.policy import Group, Policy
from schemas.tlog.policy import Witness as Named


class Stand(httpx.AsyncBaseTransport):
    """The real witnesses w1 and w2 behind the real client, without sockets. Nobody in `away` answers."""

    def __init__(self, folder: Path, logs: Callable[[], Sequence[str]]) -> None:
        self.away: set[str] = set()
        self.open: asyncio.Event | None = None  # set: nobody answers before
        self.asked = 0
        self._logs = logs
        self._real = {
            name: Witness(
                signer.key, signer._private.sign, WitnessDirectory(folder / name), lambda: TIME, verify, lambda *_: None
            )
            for name, signer in WITNESSES.items()
        }

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        self.asked += 1
        if self.open is not None:
            await self.open.wait()
        if request.url.host in self.away:
            raise httpx.ConnectError("nobody listens")
        answer = self._real[request.url.host].add_checkpoint(body, [parse_vkey(vkey) for vkey in self._logs()])
        return httpx.Response(answer.status, content=answer.body, headers={"content-type": answer.content_type})

    def quorum(self, clock: ManualClock, needed: int = 1) -> Quorum:
        """What a log that starts now has of them: `needed` of the two must answer."""
        witnesses = {name: Named(signer.key, f"http://{name}") for name, signer in WITNESSES.items()}
        policy = Policy((), witnesses, {"q": Group(needed, tuple(witnesses))}, "q")
        return Quorum(policy, HttpWitnesses(policy, verify, transport=self), clock)


class TurningNotary:
    """A notary with several key versions, as Vault's: `rotate`, `retire`, and `away` while it is sealed."""

    def __init__(self, name: str = "dev.ratchet.test", seed: int = 1) -> None:
        self.name = name
        self._seed = seed
        self.away = False
        self.oldest = 1
        self.signed: list[tuple[int, bytes]] = []
        self._keys: list[Ed25519PrivateKey] = []
        self.rotate()

    def rotate(self) -> None:
        """A new version, which may sign from now on."""
        self._keys.append(Ed25519PrivateKey.from_private_bytes(bytes([self._seed + len(self._keys)]) * 32))

    def signing(self) -> Sequence[int]:
        if self.away:
            raise Unavailable("the notary is sealed")
        return range(self.oldest, len(self._keys) + 1)

    def latest(self) -> int:
        return len(self._keys)

    def sign(self, body: bytes, key_version: int | None = None) -> bytes:
        if self.away:
            raise Unavailable("the notary is sealed")
        version = key_version or self.latest()
        if not self.oldest <= version <= self.latest():
            raise Refused(f"version {version} is retired", kind="notary-version")
        self.signed.append((version, body))
        return self._keys[version - 1].sign(body)

    def vkey(self, key_version: int) -> str:
        return str(VerifierKey(self.name, self._keys[key_version - 1].public_key().public_bytes_raw()))

    def vkeys(self) -> list[str]:
        return [self.vkey(version) for version in range(1, self.latest() + 1)]


class Disk:
    """Lets the system calls that write fail: all from the nth on, until there is `room` again."""

    CALLS = ("write", "fsync", "link", "rename", "mkdir")

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._left: int | None = None
        self._error = errno.ENOSPC
        self.failed = 0
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._failing(getattr(os, name)))

    def fail(self, nth: int = 1, error: int = errno.ENOSPC) -> None:
        self._left, self._error, self.failed = nth, error, 0

    def room(self) -> None:
        self._left = None

    def _failing(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def tried(*args: Any, **kwargs: Any) -> Any:
            if self._left is not None:
                self._left -= 1
                if self._left <= 0:
                    self.failed += 1
                    raise OSError(self._error, os.strerror(self._error))
            return call(*args, **kwargs)

        return tried
