"""How a client reaches Kafka: in the clear; over TLS as a principal that proves its password (SCRAM-SHA-512); or by a certificate.

The password travels as a proof only, and stands in no repr, log line or error.
"""

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from schemas.errors import Refused

MECHANISM = "SCRAM-SHA-512"
Protocol = Literal["plaintext", "sasl_ssl", "ssl"]
NEEDS: dict[Protocol, tuple[str, ...]] = {
    "plaintext": (),
    "sasl_ssl": ("ca", "user", "password"),
    "ssl": ("ca", "user", "certificate"),
}


@dataclass(frozen=True, slots=True)
class Security:
    """Who we are to Kafka and how we know it. `ca`: a PEM file with the authority of the brokers' certificates.

    `ssl` with a `certificate` (a PEM file with key and chain) is for the administrator of the local stack, who needs no password.
    """

    protocol: Protocol = "plaintext"
    ca: Path | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    certificate: Path | None = None

    def __post_init__(self) -> None:
        if lacking := [name for name in NEEDS[self.protocol] if not getattr(self, name)]:
            raise Refused(f"Kafka over TLS as a principal needs {', '.join(lacking)}", kind="settings")

    @property
    def open(self) -> bool:
        """Whether anybody on the way can read, and anybody at all may write."""
        return self.protocol == "plaintext"

    @property
    def principal(self) -> str:
        """As Kafka writes it."""
        return "User:ANONYMOUS" if self.open else f"User:{self.user}"

    def context(self) -> ssl.SSLContext:
        """TLS that trusts this authority and no other, and checks the broker's name. Raises `Refused` that names the file."""
        context = tls_context(self.ca)
        if self.certificate is not None:
            with _reading(f"{self.certificate}", "a certificate and its key", "they are not in it"):
                context.load_cert_chain(self.certificate)
        return context

    def client(self) -> dict[str, Any]:
        """What every client of aiokafka is given."""
        if self.open:
            return {}
        if self.protocol == "ssl":
            return {"security_protocol": "SSL", "ssl_context": self.context()}
        return {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": MECHANISM,
            "sasl_plain_username": self.user,
            "sasl_plain_password": self.password,
            "ssl_context": self.context(),
        }


PLAINTEXT = Security()


@contextmanager
def _reading(name: str, what: str, lacking: str) -> Generator[None]:
    """Around what reads a PEM file: `Refused` that names it."""
    try:
        yield
    except (OSError, ssl.SSLError) as fault:
        raise Refused(
            f"{name}: accepted is a readable PEM file with {what} ({getattr(fault, 'strerror', None) or lacking})",
            kind="settings",
        ) from fault


def tls_context(ca: Path | None) -> ssl.SSLContext:
    """The client's side of TLS 1.2 or newer, trusting the authority in `ca`. Raises `Refused` that names the file."""
    with _reading(f"RATCHET_KAFKA_CA={ca}", "the authority of the brokers' certificates", "no certificate in it"):
        context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
