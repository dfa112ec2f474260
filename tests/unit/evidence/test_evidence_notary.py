"""The local notary: a key file that only its owner may open, and an origin that says what it is."""

from pathlib import Path

import pytest

from infra.notary import LocalNotary, VaultNotary, verify
from schemas.errors import Refused
from schemas.tlog.note import parse_vkey


def test_signatures_verify_and_repeat(tmp_path: Path) -> None:
    """Opened again the same key signs the same bytes, and its verifier key fits."""
    first = LocalNotary.create(tmp_path / "key", "dev.x")
    again = LocalNotary.create(tmp_path / "key", "dev.x")
    signature = first.sign(b"body", 1)
    assert again.sign(b"body") == signature
    assert verify(parse_vkey(again.vkey(again.latest())).public_key, b"body", signature)
    assert not verify(parse_vkey(again.vkeys()[0]).public_key, b"other", signature)
    with pytest.raises(Refused):
        first.sign(b"body", 2)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o700, 0o400])
def test_an_open_key_file_is_refused(tmp_path: Path, mode: int) -> None:
    """Any mode but 0600 is refused, with the mode and what is accepted."""
    LocalNotary.create(tmp_path / "key", "dev.x")
    (tmp_path / "key").chmod(mode)
    with pytest.raises(Refused, match=f"{mode:04o}.*0600"):
        LocalNotary(tmp_path / "key", "dev.x")


def test_links_and_other_files_are_refused(tmp_path: Path) -> None:
    """A link to a key, or a file that is none, is refused."""
    LocalNotary.create(tmp_path / "key", "dev.x")
    (tmp_path / "link").symlink_to(tmp_path / "key")
    with pytest.raises(OSError, match="link"):
        LocalNotary(tmp_path / "link", "dev.x")
    (tmp_path / "text").write_text("hello")
    (tmp_path / "text").chmod(0o600)
    with pytest.raises(Refused, match="not a notary key file"):
        LocalNotary(tmp_path / "text", "dev.x")


def test_origins_say_which_notary_signed(tmp_path: Path) -> None:
    """A local key signs only for `dev.`, and Vault never does."""
    with pytest.raises(Refused):
        LocalNotary.create(tmp_path / "key", "ratchet.example")
    assert not (tmp_path / "key").exists()
    with pytest.raises(Refused):
        VaultNotary(client=None, key="notary", origin="dev.x")  # pyright: ignore[reportArgumentType]
