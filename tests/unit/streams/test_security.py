"""The value that says who we are to Kafka."""

import asyncio
import ssl
from pathlib import Path

import pytest
from streams_contract import FAST, Count

from infra.clock import SystemClock
from schemas.errors import Refused
from streams.kafka import KafkaBroker
from streams.memory import MemoryBroker, MemoryTransactionalProducer
from streams.port import BrokerError, ShutOut
from streams.runner import Runner
from streams.security import PLAINTEXT, Security
from tools.stack.tls import ensure_certificates


def test_plaintext_gives_the_client_nothing() -> None:
    """The default stays what it was: no option of any client changes."""
    assert PLAINTEXT.client() == {}
    assert PLAINTEXT.open
    assert PLAINTEXT.principal == "User:ANONYMOUS"


def test_the_password_is_in_no_repr(tmp_path: Path) -> None:
    """Neither in a repr nor in a str."""
    own = Security("sasl_ssl", tmp_path / "ca.pem", "alice", "very-secret")
    assert "very-secret" not in f"{own!r} {own}"
    assert own.principal == "User:alice"


def test_what_lacks_is_named_together() -> None:
    """A principal without authority, name and password is refused once, naming all."""
    with pytest.raises(Refused, match="needs ca, user, password"):
        Security("sasl_ssl")


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_an_authority_that_cannot_be_read_is_named(tmp_path: Path, content: str | None) -> None:
    """A missing file and one without a certificate: both name the file and the variable."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Refused, match=r"RATCHET_KAFKA_CA=.*ca\.pem"):
        Security("sasl_ssl", file, "alice", "x").client()


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_certificate_of_ours_that_cannot_be_read_is_named(tmp_path: Path, content: str | None) -> None:
    """The administrator's, which is in a file of its own."""
    file = tmp_path / "administrator.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Refused, match=r"administrator\.pem: accepted is"):
        Security("ssl", ensure_certificates(tmp_path / "made").authority, "administrator", certificate=file).client()


def test_tls_trusts_one_authority_and_checks_the_name(tmp_path: Path) -> None:
    """Every client gets TLS 1.2 or newer with verification, and the proof's mechanism."""
    made = ensure_certificates(tmp_path)
    options = Security("sasl_ssl", made.authority, "alice", "x").client()
    context = options["ssl_context"]
    assert isinstance(context, ssl.SSLContext)
    assert context.check_hostname
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert len(context.get_ca_certs()) == 1
    assert (options["security_protocol"], options["sasl_mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")


class Locked(MemoryBroker):
    """Lets the admin in and no lane: the password was changed meanwhile."""

    def transactional(self, transactional_id: str) -> MemoryTransactionalProducer:
        producer = super().transactional(transactional_id)

        async def start() -> None:
            raise ShutOut("does not know User:probe with this password")

        producer.start = start
        return producer


async def test_a_lane_that_is_shut_out_ends_the_process() -> None:
    """It does not wait: a fresh start reads the secret again, and the log says why."""
    runner = Runner(Locked(1), SystemClock(), settings=FAST)
    runner.add_fold(Count("probe"))
    async with asyncio.timeout(5):
        with pytest.raises(Refused, match="does not know User:probe"):
            await runner.run()


async def shut_out(port: int, ca: Path) -> str:
    """What a client that wants TLS is told there."""
    admin = KafkaBroker(f"127.0.0.1:{port}", Security("sasl_ssl", ca, "alice", "very-secret")).admin()
    with pytest.raises(BrokerError) as told:
        await admin.start()
    assert "very-secret" not in str(told.value)
    return f"{type(told.value).__name__}: {told.value}"


async def test_a_certificate_that_has_ended_is_named(tmp_path: Path) -> None:
    """A broker whose certificate was not renewed: the reason, not that it is unreachable."""
    made = ensure_certificates(tmp_path, days=0)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.broker)
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context) as server:
        told = await shut_out(server.sockets[0].getsockname()[1], made.authority)
    assert told.startswith("ShutOut")
    assert "certificate has expired" in told


@pytest.mark.parametrize(("answers", "kind"), [(True, "ShutOut"), (False, "Lost")])
async def test_a_broker_in_the_clear_is_named_and_one_that_closes_is_away(
    tmp_path: Path, *, answers: bool, kind: str
) -> None:
    """Only what answers in the clear is said to; a broker that closes the connection may be starting, and is asked again."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.read(12)
        if answers and head[:4] == b"\0\0\0\x11":  # a length; TLS begins with 0x16
            writer.write(b"\0\0\0\x04" + head[8:12])
        writer.close()

    async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
        told = await shut_out(server.sockets[0].getsockname()[1], ensure_certificates(tmp_path).authority)
    assert told.startswith(kind)
    assert ("does not speak TLS" in told) == answers


async def test_a_broker_that_is_starting_is_away_however_often_it_is_asked(tmp_path: Path) -> None:
    """It speaks TLS already and closes: a client that wants TLS is never told to want it."""
    made = ensure_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.broker)
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context) as server:
        told = [await shut_out(server.sockets[0].getsockname()[1], made.authority) for _ in range(2)]
    assert [text.partition(":")[0] for text in told] == ["Lost", "Lost"]
