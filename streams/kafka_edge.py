"""The edge to aiokafka that every file which uses it shares: its errors become the port's, its log lines are rationed.

A client that the broker shuts out (password, authority, certificate) is told "unable to bootstrap" by aiokafka, which gives the reason
to its log only: `starting` asks again by one connection and says why.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeArgument=false, reportUnknownParameterType=false, reportUntypedBaseClass=false
# pyright: reportAttributeAccessIssue=false, reportPrivateUsage=false, reportUnknownLambdaType=false
# pyright: reportArgumentType=false, reportCallIssue=false, reportIncompatibleMethodOverride=false
# aiokafka ships no types.

import asyncio
import logging
import ssl
import struct
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from aiokafka.conn import create_conn
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    InvalidProducerEpoch,
    KafkaError,
    MessageSizeTooLargeError,
    OffsetOutOfRangeError,
    ProducerFenced,
    RecordTooLargeError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnsupportedSaslMechanismError,
)

from streams.kafka_clients import drop
from streams.port import Denied, Fenced, Lost, OutOfRange, Rejected, ShutOut
from streams.security import Security

REFUSED = {2, 10, 18, 29, 32, 87}  # corrupt, too large, list too large, not allowed, timestamp, invalid record


class _Quiet(logging.Filter):
    """Lets one line per place in the client through each second: a broker that is away makes thousands."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        place = (record.pathname, record.lineno)
        if record.created - self.last.get(place, 0.0) < 1.0:
            return False
        self.last[place] = record.created
        return True


def quiet_client_logs() -> None:
    """Rate-limit the client's own log lines: warnings and worse, one per place and second."""
    for name in ("aiokafka", "aiokafka.conn", "aiokafka.client", "aiokafka.cluster"):
        _quiet(logging.getLogger(name))
    for name in ("producer.sender", "producer.transaction_manager", "consumer.fetcher", "consumer.group_coordinator"):
        _quiet(logging.getLogger(f"aiokafka.{name}"))
    # It warns of each partition's first batch in a transaction, while the broker verifies it (NotEnoughReplicas, retried).
    logging.getLogger("aiokafka.producer.sender").setLevel(logging.ERROR)


def _quiet(logger: logging.Logger) -> None:
    if not any(isinstance(found, _Quiet) for found in logger.filters):
        logger.addFilter(_Quiet())
        logger.setLevel(logging.WARNING)


FORBIDDEN = (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
KINDS = {29: "topic", 30: "consumer group", 31: "cluster", 53: "transactional id"}
PROBE_S, HELLO_S, AGAIN_S = 3.0, 1.0, 10.0
_found_away: dict[str, float] = {}  # the loop's time at which nobody there would say why, by address
VERSIONS = struct.pack(">ihhih7s", 17, 18, 0, 1, 7, b"ratchet")  # ApiVersions, which a broker answers to anybody


def denied(security: Security, what: str, error: Any) -> Denied:
    """The sentence for a right that is missing: who, what, on which resource."""
    named = [text for arg in error.args for text in ([arg] if isinstance(arg, str) else sorted(map(str, arg)))]
    named = [text for text in named if text and " " not in text]  # some of the client's errors hold a sentence instead
    kind = KINDS.get(error.errno, "")
    told = f" ({kind} {', '.join(named)})".replace(" )", ")") if kind else ""
    return Denied(
        f"{security.principal} may not do this: {what}{told}; `ratchet acl show` prints its rights, `ratchet acl apply` "
        "gives them"
    )


async def _wants_tls(bootstrap: str) -> str:
    """In words, the first address that speaks TLS; empty where none does. It sends nothing but the hello, and trusts nobody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            async with asyncio.timeout(HELLO_S):
                _, writer = await asyncio.open_connection(host, int(port), ssl=context)
        except (OSError, TimeoutError):
            continue
        writer.transport.abort()
        return (
            f"Kafka at {address} speaks TLS and takes nothing in the clear: set RATCHET_KAFKA_SECURITY=sasl_ssl, and "
            "RATCHET_KAFKA_CA to the authority of its certificate"
        )
    return ""


async def _answers_in_the_clear(host: str, port: int) -> bool:
    """Whether it says without TLS which versions it speaks. It is sent nothing else."""
    try:
        async with asyncio.timeout(HELLO_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(VERSIONS)
                answer = await reader.readexactly(8)
            finally:
                writer.transport.abort()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    return answer[4:] == VERSIONS[8:12]


async def _shut_out(bootstrap: str, security: Security) -> str:
    """Why no broker lets us in, in words; empty where the reason is not our credentials. The client tells it to its log only.

    Where it was empty a moment before nobody is asked again: many lanes want to know while a broker is away.
    """
    now = asyncio.get_running_loop().time()
    if now < _found_away.get(bootstrap, -AGAIN_S) + AGAIN_S:
        return ""
    reason = await _refusal(bootstrap, security)
    if not reason:
        _found_away[bootstrap] = now
    return reason


async def _refusal(bootstrap: str, security: Security) -> str:
    """The same, asked now."""
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        options = security.client() | {"request_timeout_ms": int(PROBE_S * 1000), "client_id": "ratchet-probe"}
        try:
            connection = await create_conn(host, int(port), **options)
        except ssl.SSLCertVerificationError as error:
            return (
                f"the certificate of Kafka at {address} is not trusted: {error.verify_message}; RATCHET_KAFKA_CA={security.ca} "
                "must be the authority that signed it, and the certificate must be valid today and name this address"
            )
        except SaslAuthenticationFailed:
            return (
                f"Kafka at {address} does not know {security.principal} with this password: it was changed or never made "
                "(`ratchet up --secure` makes the local stack's), or the secret store holds another"
            )
        except UnsupportedSaslMechanismError:
            return f"Kafka at {address} does not offer SCRAM-SHA-512"
        except (KafkaError, OSError, TimeoutError):
            if await _answers_in_the_clear(host, int(port)):
                return f"Kafka at {address} does not speak TLS: RATCHET_KAFKA_SECURITY says sasl_ssl"
            continue
        drop(connection)
        return ""
    return ""


@asynccontextmanager
async def starting(what: str, bootstrap: str, security: Security, *, first: bool = False) -> AsyncGenerator[None]:
    """Around a client's start: `ShutOut` with the reason where the broker shuts us out, which the client calls unreachable.

    In the clear only a process's `first` client asks whether the broker speaks TLS: a lane that reopens must lose no time. Nor
    does it over TLS, where the broker was found away a moment before: then the reason is not our credentials.
    """
    try:
        with translated(what, security):
            yield
    except Lost as lost:
        if security.open:
            reason = await _wants_tls(bootstrap) if first else ""
        else:
            reason = await _shut_out(bootstrap, security)
        if reason:
            raise ShutOut(f"{what}: {reason}") from lost
        raise


@contextmanager
def translated(what: str, security: Security) -> Generator[None]:
    """Foreign errors become the port's."""
    try:
        yield
    except (ProducerFenced, InvalidProducerEpoch) as exc:
        raise Fenced(f"{what}: {exc}") from exc
    except FORBIDDEN as exc:
        raise denied(security, what, exc) from exc
    except (MessageSizeTooLargeError, RecordTooLargeError) as exc:
        raise Rejected(f"{what}: {exc!r}") from exc
    except OffsetOutOfRangeError as exc:
        raise OutOfRange(f"{what}: {exc}") from exc
    except KafkaError as exc:
        cause = exc.__cause__
        if isinstance(cause, ProducerFenced | InvalidProducerEpoch):
            raise Fenced(f"{what}: {cause}") from exc
        if isinstance(cause, FORBIDDEN):
            raise denied(security, what, cause) from exc
        kind = Rejected if getattr(exc, "errno", 0) in REFUSED else Lost
        raise kind(f"{what}: {exc!r}") from exc
    except (OSError, TimeoutError, AssertionError) as exc:  # the client asserts where metadata is not there yet
        raise Lost(f"{what}: {exc!r}") from exc
