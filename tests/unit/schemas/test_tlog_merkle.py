"""RFC 6962 hashing and proofs against published probes and a plain definition."""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.tlog import merkle

PROBES: Mapping[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parents[2] / "data/tlog/merkle.json").read_text()
)


def plain_root(leaves: list[bytes]) -> bytes:
    """MTH, as RFC 6962 writes it."""
    if len(leaves) <= 1:
        return merkle.leaf_hash(leaves[0]) if leaves else merkle.EMPTY_ROOT
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return merkle.node_hash(plain_root(leaves[:split]), plain_root(leaves[split:]))


def reader(leaves: list[bytes]) -> merkle.ReadSubtree:
    return lambda level, index: plain_root(leaves[index << level : (index + 1) << level])


def accepts(check: Any, *arguments: object) -> bool:
    try:
        check(*arguments)
    except merkle.ProofRefused:
        return False
    return True


def raw(hashes: list[str] | None) -> list[bytes]:
    return [base64.b64decode(text) for text in hashes or []]


def test_all_inclusion_probes() -> None:
    """All 98 published inclusion probes are judged as published."""
    wrong = [
        row["name"]
        for row in PROBES["inclusion"]
        if accepts(
            merkle.verify_inclusion, row["leafIdx"], row["treeSize"], *raw([row["leafHash"]]), raw(row["proof"]),
            *raw([row["root"]]),
        ) == row["wantErr"]
    ]  # fmt: skip
    assert (len(PROBES["inclusion"]), wrong) == (98, [])


def test_all_consistency_probes() -> None:
    """All 98 published consistency probes are judged as published."""
    wrong = [
        row["name"]
        for row in PROBES["consistency"]
        if accepts(
            merkle.verify_consistency, row["size1"], row["size2"], *raw([row["root1"]]), *raw([row["root2"]]),
            raw(row["proof"]),
        ) == row["wantErr"]
    ]  # fmt: skip
    assert (len(PROBES["consistency"]), wrong) == (98, [])


@given(st.integers(1, 70), st.data())
def test_made_proofs_verify(size: int, data: st.DataObject) -> None:
    """Every proof made verifies, and with one other leaf it does not."""
    leaves = [f"leaf {number}".encode() for number in range(size)]
    index = data.draw(st.integers(0, size - 1))
    older = data.draw(st.integers(1, size))
    read, root = reader(leaves), plain_root(leaves)
    assert merkle.root(size, read) == root
    proof = merkle.inclusion_proof(index, size, read)
    merkle.verify_inclusion(index, size, merkle.leaf_hash(leaves[index]), proof, root)
    consistency = merkle.consistency_proof(older, size, read)
    merkle.verify_consistency(older, size, plain_root(leaves[:older]), root, consistency)
    with pytest.raises(merkle.ProofRefused):
        merkle.verify_inclusion(index, size, merkle.leaf_hash(b"other"), proof, root)
    other = plain_root([*leaves[: older - 1], b"other"])
    with pytest.raises(merkle.ProofRefused):
        merkle.verify_consistency(older, size, other, root, consistency)


def test_nothing_extends_the_empty_tree() -> None:
    """Consistency from size 0 shows nothing and is refused."""
    with pytest.raises(merkle.ProofRefused):
        merkle.verify_consistency(0, 1, merkle.EMPTY_ROOT, merkle.leaf_hash(b"a"), [])
