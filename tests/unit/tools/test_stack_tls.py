"""The local stack's certificates."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

from tools.stack.tls import ensure_certificates


def leaf(file: Path) -> x509.Certificate:
    """The first certificate of a PEM file with key and chain."""
    return x509.load_pem_x509_certificates(file.read_bytes())[0]


def test_the_authority_stays_and_leaves_are_new(tmp_path: Path) -> None:
    """Clients that trust the authority need nothing new; each leaf is signed by it and lives 90 days."""
    first = ensure_certificates(tmp_path)
    authority, before = first.authority.read_bytes(), leaf(first.broker)
    again = ensure_certificates(tmp_path)
    assert again.authority.read_bytes() == authority
    assert leaf(again.broker).serial_number != before.serial_number
    for file in (again.broker, again.administrator):
        leaf(file).verify_directly_issued_by(x509.load_pem_x509_certificate(authority))
    left = leaf(again.broker).not_valid_after_utc - datetime.now(UTC)  # noqa: TID251  certificates are valid by the wall clock
    assert timedelta(days=89) < left <= timedelta(days=90)


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    """Only the authority's certificate may be read by others."""
    ensure_certificates(tmp_path)
    assert {file.name for file in tmp_path.iterdir() if not file.stat().st_mode & 0o077} == {
        "ca.key",
        "broker.pem",
        "administrator.pem",
    }


def test_another_authority_has_signed_nothing_here(tmp_path: Path) -> None:
    """Two stacks do not trust each other's brokers."""
    ours, theirs = ensure_certificates(tmp_path / "a"), ensure_certificates(tmp_path / "b")
    with pytest.raises(InvalidSignature):
        leaf(ours.broker).verify_directly_issued_by(x509.load_pem_x509_certificate(theirs.authority.read_bytes()))


def test_the_administrators_certificate_serves_no_broker(tmp_path: Path) -> None:
    """It is a client's only."""
    made = ensure_certificates(tmp_path)
    uses = leaf(made.administrator).extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(uses) == [ExtendedKeyUsageOID.CLIENT_AUTH]
