"""The composition of a witness: `python -m agents witness`.

Its own identity, store, clock and key, and none of the log's: it opens no Kafka and no Redis, and of the secret store one
signing key. A witness that the log's operator also runs shows what a rolled-back or copied log cannot hide; only a witness
that somebody else runs binds the operator.
"""

import asyncio
import logging
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agents.evidence.witness import Witness
from infra.clock import SystemClock
from infra.notary import LocalNotary, Notary, VaultNotary, verify
from infra.secrets import WITNESS_KEY, VaultSecrets, open_secrets
from infra.settings import Settings
from infra.telemetry import configure_logs
from infra.witness_server import WitnessServer
from infra.witness_store import KnownLogs, WitnessDirectory
from schemas.errors import Refused, Unavailable
from schemas.tlog.note import COSIGNER, VerifierKey, parse_vkey

log = logging.getLogger("ratchet")


@dataclass(frozen=True, slots=True)
class CosigningKey:
    """One version of a notary's key as a witness's. Blocking."""

    notary: Notary
    version: int
    key: VerifierKey

    def sign(self, message: bytes) -> bytes:
        return self.notary.sign(message, self.version)


async def vkey(settings: Settings) -> str:
    """The line that policies name this witness by. Makes the local key where there is none."""
    async with open_key(settings) as key:
        return str(key.key)


async def serve(settings: Settings) -> None:
    """Witness until SIGTERM or SIGINT. Raises Refused when the key is no longer ours to use: start again, with a fresh login."""
    if settings.witness_logs is None:
        raise Refused(
            "RATCHET_WITNESS_LOGS is not set: name a policy file with the log keys to take, and quorum none",
            kind="settings",
        )
    configure_logs(settings.log_level, "witness")
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _end, ended, None)
    async with open_key(settings) as key:

        def sign(message: bytes) -> bytes:
            try:
                return key.sign(message)
            except Refused as error:
                loop.call_soon_threadsafe(_end, ended, error)
                raise Unavailable("it is not ours to use any more") from error

        logs = KnownLogs(settings.witness_logs, log.error)
        directory = WitnessDirectory(_folder(settings))
        try:
            witness = Witness(key.key, sign, directory, _seconds(SystemClock()), verify, _accuse)
            server = WitnessServer(lambda body: witness.add_checkpoint(body, logs.keys()), witness.checkpoint)
            port = await server.start(settings.witness_listen)
            try:
                log.info("witness %s takes %d log keys on port %d", key.key, len(logs.keys()), port)
                await ended
            finally:
                await server.close()
        finally:
            directory.close()


@asynccontextmanager
async def open_key(settings: Settings) -> AsyncGenerator[CosigningKey, None]:
    """The newest version of Vault's transit key `witness` where secrets are Vault's, else the key file of the witness's store."""
    if settings.secrets == "local":
        name = settings.witness_name or f"dev.ratchet-witness/{settings.instance}"
        yield _cosigning(LocalNotary.create(_folder(settings) / "key", name))
        return
    secrets = await open_secrets(settings, log.warning)
    try:
        if not isinstance(secrets, VaultSecrets):
            raise TypeError(f"{secrets!r} has no transit engine")
        name = settings.witness_name or f"ratchet-witness/{settings.instance}"
        notary = VaultNotary(secrets.client, key=WITNESS_KEY, origin=name, mount=settings.vault_transit)
        yield await asyncio.to_thread(_cosigning, notary)
    finally:
        await secrets.close()


def _cosigning(notary: Notary) -> CosigningKey:
    version = notary.latest()
    return CosigningKey(
        notary, version, VerifierKey(notary.name, parse_vkey(notary.vkey(version)).public_key, COSIGNER)
    )


def _folder(settings: Settings) -> Path:
    return settings.witness_dir or settings.state_dir / "witness"


def _seconds(clock: SystemClock) -> Callable[[], int]:
    return lambda: clock.now_ms() // 1000


def _accuse(why: str, proof: bytes) -> None:
    """The log's own signature under another history is the proof: it is kept where the log's operator does not write."""
    log.error("%s; it signed: %r", why, proof.decode())


def _end(ended: "asyncio.Future[None]", error: Exception | None) -> None:
    if ended.done():
        return
    if error is None:
        ended.set_result(None)
    else:
        ended.set_exception(error)
