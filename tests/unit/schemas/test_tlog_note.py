"""Signed notes, verifier keys and checkpoints: golden bytes, and no second spelling."""

import base64
import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from infra.notary import verify
from schemas.tlog import note
from schemas.tlog.curve import has_prime_order
from schemas.tlog.strict import Malformed

DATA = Path(__file__).parents[2] / "data/tlog"
SUMDB = json.loads((DATA / "sumdb_values.json").read_text())
EXAMPLE = json.loads((DATA / "c2sp_signed_note_example.json").read_text())
KEY = note.parse_vkey(SUMDB["note_vkey"])
SEED = base64.b64decode(SUMDB["note_skey_test"].split("+", 4)[4])[1:]
LOW_ORDER = [
    (0).to_bytes(32, "little"),
    (1).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
]


def test_golden_note_byte_for_byte() -> None:
    """The published key over the published text gives the published note, byte for byte."""
    text = SUMDB["note_text"]
    signature = Ed25519PrivateKey.from_private_bytes(SEED).sign(text.encode())
    assert text + "\n" + note.sign_line(KEY, signature) == SUMDB["note_signed_golden"]
    assert note.open_note(SUMDB["note_signed_golden"].encode(), [KEY], verify) == (text, [KEY])


def test_specification_example() -> None:
    """The specification's example verifies under its key and not under another."""
    key = note.parse_vkey(EXAMPLE["vkey"])
    text, signers = note.open_note(EXAMPLE["note"].encode(), [key], verify)
    assert (text, signers) == ("This is an example message.\n", [key])
    with pytest.raises(note.Untrusted):
        note.open_note(EXAMPLE["note"].encode(), [KEY], verify)


def test_keys_print_as_they_were_read() -> None:
    """A verifier key has one spelling; keys with a wrong id or of another type are refused."""
    assert str(KEY) == SUMDB["note_vkey"]
    for text in SUMDB["bad_vkeys"]:
        with pytest.raises(Malformed):
            note.parse_vkey(text)


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point.hex()[:8])
def test_low_order_keys_are_refused(point: bytes) -> None:
    """Points of low order, the identity and points that are not canonical are no keys, whatever the library says."""
    assert not has_prime_order(point)
    key_id = hashlib.sha256(b"evil\n\x01" + point).digest()[:4].hex()
    with pytest.raises(Malformed):
        note.parse_vkey(f"evil+{key_id}+{base64.b64encode(bytes([1]) + point).decode()}")


def test_every_flipped_bit_of_a_note_is_found() -> None:
    """No single bit of a signed note can change unseen."""
    golden = SUMDB["note_signed_golden"].encode()
    for bit in range(len(golden) * 8):
        data = bytearray(golden)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises((Malformed, note.Untrusted)):
            note.open_note(bytes(data), [KEY], verify)


def test_a_bad_signature_under_a_known_key_fails_the_note() -> None:
    """A good signature does not help when a known key's other line is wrong, or is there twice."""
    other = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    key = note.VerifierKey("other", other.public_key().public_bytes_raw())
    golden = SUMDB["note_signed_golden"]
    good = golden + note.sign_line(key, other.sign(SUMDB["note_text"].encode()))
    assert note.open_note(good.encode(), [KEY, key], verify)[1] == [KEY, key]
    for line in (note.sign_line(key, bytes(64)), golden.rsplit("\n\n", 1)[1]):
        with pytest.raises(note.Untrusted):
            note.open_note((golden + line).encode(), [KEY, key], verify)


def test_checkpoint_text() -> None:
    """The published tree's text reads and prints alike."""
    golden = SUMDB["tree_golden"]
    checkpoint = note.parse_checkpoint(golden["text"])
    assert (checkpoint.origin, checkpoint.size) == ("go.sum database tree", golden["n"])
    assert checkpoint.text == golden["text"]


@pytest.mark.parametrize("text", [
    "o\n01\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0=\n",
    "o\n-1\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0=\n",
    "o\n1\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb1=\n",
    "o\n1\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0\n",
    "o\n1\nAA==\n",
    "\n1\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0=\n",
    "o\n1\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0=",
    "o\n1\nTszzRgjTG6xce+z2AG31kAXYKBgQVtCSCE40HmuwBb0=\nextension\n",
])  # fmt: skip
def test_other_spellings_of_a_checkpoint_are_refused(text: str) -> None:
    """Leading zeroes, spare bits, missing padding, short roots, extra lines: refused."""
    with pytest.raises(Malformed):
        note.parse_checkpoint(text)
