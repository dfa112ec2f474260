"""Sealing: what opens, what does not, and that nothing says more than that."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.rules.masking import MaskMap
from infra.sealing import GATE_SECRET, GateKeys, open_gate_keys, open_sealed, seal
from infra.secrets import LocalSecrets
from schemas.errors import Refused

KEY = bytes(range(32))
MAP = MaskMap({"[E_MAIL_1]": "anna@example.org", "[CARD_1]": "4111 1111 1111 1111"})


@given(st.binary(max_size=200), st.binary(max_size=50))
def test_what_is_sealed_opens_again(data: bytes, aad: bytes) -> None:
    """Under the key, for the place that it was sealed for."""
    assert open_sealed(KEY, seal(KEY, data, aad), aad) == data


def test_every_flipped_bit_is_refused() -> None:
    """Version, nonce, ciphertext, tag: no bit of it may change, and the refusal holds nothing of the content."""
    sealed = seal(KEY, b"content", b"place")
    for bit in range(8 * len(sealed)):
        broken = bytearray(sealed)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Refused) as refused:
            open_sealed(KEY, bytes(broken), b"place")
        assert refused.value.kind == "sealed"
        assert "content" not in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x01" + bytes(27), bytes(64)])
def test_what_is_too_short_or_of_another_version_is_refused(data: bytes) -> None:
    """No form of bytes raises anything but `Refused`."""
    with pytest.raises(Refused):
        open_sealed(KEY, data, b"")


def test_another_place_or_key_does_not_open() -> None:
    """What was sealed for one place opens in no other, and under no other key."""
    sealed = seal(KEY, b"content", b"place")
    for key, aad in ((KEY, b"elsewhere"), (KEY[::-1], b"place")):
        with pytest.raises(Refused):
            open_sealed(key, sealed, aad)


def test_keys_and_nonces_of_other_lengths_are_ours_to_mend() -> None:
    """They are no sender's doing."""
    for bad in (
        lambda: seal(b"short", b"", b""),
        lambda: seal(KEY, b"", b"", b"n"),
        lambda: open_sealed(b"s", b"", b""),
    ):
        with pytest.raises(ValueError, match="accepted"):
            bad()


def test_random_nonces_differ() -> None:
    """The same content is sealed to other bytes each time where no nonce is given."""
    assert seal(KEY, b"content", b"") != seal(KEY, b"content", b"")


def test_a_mask_map_opens_for_its_request_alone() -> None:
    """Another request, another tenant, another master: refused."""
    keys = GateKeys(KEY)
    sealed = keys.seal_map("acme", "r-1", "e-1", MAP)
    assert MaskMap.decode(keys.open_map("acme", "r-1", sealed)) == MAP
    for other, tenant, request_id in (
        (keys, "acme", "r-2"),
        (keys, "emca", "r-1"),
        (GateKeys(KEY[::-1]), "acme", "r-1"),
    ):
        with pytest.raises(Refused) as refused:
            other.open_map(tenant, request_id, sealed)
        assert refused.value.kind == "sealed"


@pytest.mark.parametrize("sealed", ["", "no base64!", "ö", "AQ=="])
def test_what_is_no_sealed_map_is_refused(sealed: str) -> None:
    """Whatever stands in the field."""
    with pytest.raises(Refused):
        GateKeys(KEY).open_map("acme", "r-1", sealed)


def test_sealing_again_gives_the_same_and_nothing_else_does() -> None:
    """A decision that is taken twice is the same; another event, request or content has a nonce of its own."""
    keys = GateKeys(KEY)
    one = keys.seal_map("acme", "r-1", "e-1", MAP)
    assert one == keys.seal_map("acme", "r-1", "e-1", MAP)
    others = [
        keys.seal_map("acme", "r-2", "e-1", MAP),
        keys.seal_map("acme", "r-1", "e-2", MAP),
        keys.seal_map("acme", "r-1", "e-1", MaskMap({"[E_MAIL_1]": "otto@example.org"})),
    ]
    assert len({text[:16] for text in (one, *others)}) == 4  # version and most of the nonce


def test_keys_differ_by_purpose_and_tenant_and_are_not_shown() -> None:
    """One master, many keys; none of them in the repr."""
    keys = GateKeys(KEY)
    found = {keys.mask_key("a"), keys.mark_key("a"), keys.mask_key("b"), keys.mark_key("b"), KEY}
    assert len(found) == 5
    assert all(len(key) == 32 for key in found)
    assert KEY.hex() not in repr(keys)
    assert repr(keys) == "GateKeys()"


async def test_a_local_file_has_a_gate_key_also_one_from_before(tmp_path: Path) -> None:
    """A file that was made without one gets one when it is opened, once, and loses nothing of what it had."""
    file = tmp_path / "secrets.json"
    source = LocalSecrets.open(file)
    held = json.loads(file.read_bytes())
    held["secrets"] = {"other": {"k": "v"}}
    file.write_text(json.dumps(held))
    first = await open_gate_keys(LocalSecrets.open(file))
    assert first.mask_key("a") == (await open_gate_keys(LocalSecrets.open(file))).mask_key("a")
    assert first.mask_key("a") == (await open_gate_keys(source)).mask_key("a")
    assert await source.get("other") == {"k": "v"}


@pytest.mark.parametrize("values", [{}, {"key": "xy"}, {"key": KEY.hex()[2:]}, {"other": KEY.hex()}])
async def test_a_source_without_a_fit_key_is_refused(tmp_path: Path, values: dict[str, str]) -> None:
    """The refusal names the secret and its field, and nothing that is in it."""
    source = LocalSecrets.open(tmp_path / "secrets.json")
    await source.put(GATE_SECRET, values)
    with pytest.raises(Refused, match="64 hex digits") as refused:
        await open_gate_keys(source)
    assert refused.value.kind == "secrets"
    assert KEY.hex()[2:] not in str(refused.value)
