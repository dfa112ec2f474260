"""Certificates of the local stack: an authority of its own, a certificate for the broker and one for the stack's administrator.

For one machine and tests. A cluster has its own authority, and `RATCHET_KAFKA_CA` names it.
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from infra.clock import SystemClock

from .ports import LOOPBACK

AUTHORITY_DAYS, LEAF_DAYS = 1825, 90
BROKER, ADMINISTRATOR = "ratchet-broker", "ratchet-stack"


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files: the authority's certificate (public), and key with chain of the broker and of the administrator (0600)."""

    authority: Path
    broker: Path
    administrator: Path


def ensure_certificates(folder: Path, *, days: int = LEAF_DAYS) -> Certificates:
    """The certificates in `folder`. The authority is made once and stays; the others anew, valid for `days`, at every call.

    `days` of 0 or less makes expired ones: tests ask what a client says to them.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key_file, ca_file = folder / "ca.key", folder / "ca.pem"
    if key_file.exists() and ca_file.exists():
        key = load_pem_private_key(key_file.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise TypeError(f"{key_file} is not a key of ours")
        authority = x509.load_pem_x509_certificate(ca_file.read_bytes())
    else:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name("ratchet local authority")
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        authority = (
            _dated(AUTHORITY_DAYS)
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        _write(key_file, _pem(key))
        ca_file.write_bytes(authority.public_bytes(Encoding.PEM))
    made = Certificates(ca_file, folder / "broker.pem", folder / "administrator.pem")
    server, client = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
    _write(made.broker, _leaf(BROKER, key, authority, [server, client], days))  # brokers are each other's clients
    _write(made.administrator, _leaf(ADMINISTRATOR, key, authority, [client], days))
    return made


def _leaf(
    name: str,
    authority_key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    uses: Sequence[x509.ObjectIdentifier],
    days: int,
) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(LOOPBACK))]
    certificate = (
        _dated(days)
        .subject_name(_name(name))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return _pem(key) + certificate.public_bytes(Encoding.PEM) + authority.public_bytes(Encoding.PEM)


def _dated(days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.fromtimestamp(SystemClock().now_ms() // 1000, datetime.UTC)
    until = now + datetime.timedelta(days=days)
    since = min(now, until) - datetime.timedelta(days=1)
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(file: Path, content: bytes) -> None:
    """Replace the file whole, mode 0600."""
    fresh = file.with_name(f".{file.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:
        sink.write(content)
    fresh.replace(file)
