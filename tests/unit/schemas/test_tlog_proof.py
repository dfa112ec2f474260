"""Proof files and the witness protocol's bytes: one spelling, and no bit that changes unseen."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from witnessed import LOG, TIME, WITNESSES, Signer, Tree, policy

from infra.notary import verify
from schemas.tlog import merkle
from schemas.tlog.note import COSIGNER, Untrusted
from schemas.tlog.proof import Proof, open_proof, parse_proof
from schemas.tlog.strict import Malformed
from schemas.tlog.witnessing import (
    MAX_REQUEST,
    AddCheckpoint,
    encode_size,
    open_cosignature,
    parse_add_checkpoint,
    parse_size,
)

EXAMPLE = (Path(__file__).parents[2] / "data/tlog/c2sp_add_checkpoint_example.txt").read_bytes()
TREE = Tree.of(11)
ONE, TWO = WITNESSES.values()
hashes = st.lists(st.binary(min_size=32, max_size=32), max_size=63).map(tuple)


def proof_of(index: int) -> Proof:
    return Proof(index, tuple(merkle.inclusion_proof(index, 11, TREE.read)), TREE.signed(11, LOG, ONE, TWO))


@pytest.mark.parametrize("index", range(11))
def test_each_entry_has_its_proof(index: int) -> None:
    """The file opens for its entry and for no other."""
    data = proof_of(index).encode()
    proof, opened = open_proof(data, TREE.entries[index], policy(), verify)
    assert (proof, opened.checkpoint.size) == (proof_of(index), 11)
    with pytest.raises(merkle.ProofRefused):
        open_proof(data, TREE.entries[index] + b"!", policy(), verify)


def test_every_flipped_bit_of_a_proof_is_found() -> None:
    """No single bit of a proof file can change unseen."""
    golden = proof_of(6).encode()
    for bit in range(len(golden) * 8):
        data = bytearray(golden)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises((Malformed, Untrusted, merkle.ProofRefused)):
            open_proof(bytes(data), TREE.entries[6], policy(), verify)


@given(hashes)
def test_what_we_write_reads_back(path: tuple[bytes, ...]) -> None:
    """Proofs and requests of any length are read as they were written."""
    proof = Proof(3, path, TREE.signed(11))
    assert parse_proof(proof.encode()) == proof
    request = AddCheckpoint(3, path, TREE.signed(11))
    assert parse_add_checkpoint(request.encode()) == request


@pytest.mark.parametrize(("change", "said"), [
    ((b"@v1\n", b"@v1\nextra AAAA\n"), "extra"),
    ((b"@v1", b"@v2"), "begins with"),
    ((b"index 6", b"index 06"), "index"),
    ((b"index 6", b"index 11"), "has 11"),
    ((b"index 6", b"entry 6"), "second line"),
    ((b"index 6\n", b"index 6\nAAAA\n"), "hash 0 of the proof has 3 bytes"),
    ((b"index 6\n", b"index 6\r\n"), "index"),
    ((b"index 6\n", b"index 6\n" + (b"A" * 43 + b"=\n") * 63), "at most 63"),
    ((b"\n\n", b"\n"), "note|proof"),
])  # fmt: skip
def test_other_spellings_of_a_proof_are_refused(change: tuple[bytes, bytes], said: str) -> None:
    """Unsigned data, other versions, leading zeroes, an index beyond the tree, hashes that are none."""
    with pytest.raises(Malformed, match=said):
        parse_proof(proof_of(6).encode().replace(*change, 1))


def test_the_specifications_request() -> None:
    """The published request reads, and is written byte for byte."""
    request = parse_add_checkpoint(EXAMPLE)
    assert (request.old, len(request.proof)) == (20852014, 4)
    assert request.checkpoint.startswith(b"example.com/behind-the-sofa\n20852163\n")
    assert request.encode() == EXAMPLE


@pytest.mark.parametrize("data", [
    b"",
    b"\n\n",
    b"old 1\n",
    b"old 01\n\nnote",
    b"old -1\n\nnote",
    b"old 1 \n\nnote",
    b"Old 1\n\nnote",
    b"old 1\nAAAA\n\nnote",
    b"old 1\n" + b"A" * 43 + b"\n\nnote",
    b"old 1\n" + (b"A" * 43 + b"=\n") * 64 + b"\nnote",
    b"old 1\n\n" + b"x" * MAX_REQUEST,
    b"old \xff\n\nnote",
])  # fmt: skip
def test_other_requests_are_refused(data: bytes) -> None:
    """Another first line, hashes that are none, 64 of them, more than 64 KiB."""
    with pytest.raises(Malformed):
        parse_add_checkpoint(data)


def test_a_size_has_one_spelling() -> None:
    """What a 409 says."""
    assert parse_size(encode_size(20852163)) == 20852163
    for data in (b"", b"5", b"05\n", b"5\n\n", b"5 \n", b"x\n", "٥\n".encode(), b"9" * 30 + b"\n"):
        with pytest.raises(Malformed):
            parse_size(data)


def test_a_witness_answers_with_its_line() -> None:
    """Strangers' lines are left out; a wrong line of its own, or none of it, is refused."""
    text = TREE.checkpoint(11).text
    stranger = Signer("dev.witness/9", 9, COSIGNER)
    found = open_cosignature(text, (stranger.line(text) + ONE.line(text)).encode(), ONE.key, verify)
    assert (found.key, found.timestamp) == (ONE.key, TIME)
    with pytest.raises(Untrusted, match="no signature of"):
        open_cosignature(text, stranger.line(text).encode(), ONE.key, verify)
    with pytest.raises(Untrusted, match="does not verify"):
        open_cosignature(text, ONE.line(TREE.checkpoint(10).text).encode(), ONE.key, verify)
    for answer in (b"", b"no", ONE.line(text).encode()[:-1], b"\n" + ONE.line(text).encode()):
        with pytest.raises((Malformed, Untrusted)):
            open_cosignature(text, answer, ONE.key, verify)
