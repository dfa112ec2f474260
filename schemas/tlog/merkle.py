"""RFC 6962 hashing (section 2.1) and proofs, over perfect subtrees named (level, index).

A tree of any size is a list of perfect subtrees of falling height; (level, index) covers the leaves
[index << level, (index + 1) << level). Proofs are made from a function that gives such hashes and checked from nothing
but their arguments.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import reduce

HASH_SIZE = 32
EMPTY_ROOT = hashlib.sha256(b"").digest()
Subtree = tuple[int, int]
ReadSubtree = Callable[[int, int], bytes]
"""(level, index) -> hash of that perfect subtree."""


class ProofRefused(ValueError):
    """The proof does not show what it should."""


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 ‖ entry)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def perfect_root(hashes: Sequence[bytes]) -> bytes:
    """The root over 2^k hashes of one level."""
    row = list(hashes)
    if not row or len(row) & (len(row) - 1):
        raise ValueError(f"{len(row)} hashes; accepted: a power of two")
    while len(row) > 1:
        row = [node_hash(row[i], row[i + 1]) for i in range(0, len(row), 2)]
    return row[0]


def subtrees(low: int, high: int) -> Iterator[Subtree]:
    """The perfect subtrees, left to right, of the range [low, high), where `low` begins a subtree of that size."""
    while low < high:
        level = (high - low).bit_length() - 1
        yield level, low >> level
        low += 1 << level


def fold_root(hashes: Sequence[bytes]) -> bytes:
    """The root over perfect subtrees of falling height; of none, the empty tree's."""
    if not hashes:
        return EMPTY_ROOT
    return reduce(lambda right, left: node_hash(left, right), reversed(hashes[:-1]), hashes[-1])


def root(size: int, read: ReadSubtree) -> bytes:
    """The root of the tree of `size` leaves."""
    return fold_root([read(level, index) for level, index in subtrees(0, size)])


def _range_hash(low: int, high: int, read: ReadSubtree) -> bytes:
    return fold_root([read(level, index) for level, index in subtrees(low, high)])


def inclusion_proof(index: int, size: int, read: ReadSubtree) -> list[bytes]:
    """PATH(index, D[size]), RFC 6962 2.1.1."""
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} of {size}; accepted: 0..{size - 1}")
    proof: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        split = low + (1 << ((high - low - 1).bit_length() - 1))
        if index < split:
            proof.append(_range_hash(split, high, read))
            high = split
        else:
            proof.append(_range_hash(low, split, read))
            low = split
    return proof[::-1]


def consistency_proof(size1: int, size2: int, read: ReadSubtree) -> list[bytes]:
    """PROOF(size1, D[size2]), RFC 6962 2.1.2."""
    if not 0 < size1 <= size2:
        raise ValueError(f"sizes {size1} and {size2}; accepted: 0 < first <= second")
    proof: list[bytes] = []
    low, high, whole = 0, size2, True
    while size1 != high:
        split = low + (1 << ((high - low - 1).bit_length() - 1))
        if size1 <= split:
            proof.append(_range_hash(split, high, read))
            high = split
        else:
            proof.append(_range_hash(low, split, read))
            low, whole = split, False
    if not whole:
        proof.append(_range_hash(low, high, read))
    return proof[::-1]


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root_hash: bytes) -> None:
    """Raise ProofRefused unless `proof` shows `leaf` at `index` under the root (RFC 9162, 2.1.3.2)."""
    _hashes(leaf, root_hash, *proof)
    if not 0 <= index < size:
        raise ProofRefused(f"leaf {index} is not in a tree of {size}")
    inner, border = _path_lengths(index, size)
    if len(proof) != inner + border:
        raise ProofRefused(f"{len(proof)} hashes; accepted: {inner + border}")
    node = _chain_inner(leaf, proof[:inner], index)
    if _chain_right(node, proof[inner:]) != root_hash:
        raise ProofRefused("the computed root is not the given one")


def verify_consistency(size1: int, size2: int, root1: bytes, root2: bytes, proof: Sequence[bytes]) -> None:
    """Raise ProofRefused unless the second tree extends the first (RFC 9162, 2.1.4.2). `size1` = 0 is refused."""
    _hashes(*proof)  # a root of another length equals no computed one; equal sizes compare them as they are
    if not 0 < size1 <= size2:
        raise ProofRefused(f"sizes {size1} and {size2}; accepted: 0 < first <= second")
    if size1 == size2:
        if proof or root1 != root2:
            raise ProofRefused("equal sizes need equal roots and no proof")
        return
    inner, border = _path_lengths(size1 - 1, size2)
    shift = (size1 & -size1).bit_length() - 1
    inner -= shift
    start = 0 if size1 == 1 << shift else 1
    if len(proof) != start + inner + border:
        raise ProofRefused(f"{len(proof)} hashes; accepted: {start + inner + border}")
    seed = proof[0] if start else root1
    rest = proof[start:]
    mask = (size1 - 1) >> shift
    first = seed
    for level, sibling in enumerate(rest[:inner]):
        if mask >> level & 1:
            first = node_hash(sibling, first)
    if _chain_right(first, rest[inner:]) != root1:
        raise ProofRefused("the computed first root is not the given one")
    if _chain_right(_chain_inner(seed, rest[:inner], mask), rest[inner:]) != root2:
        raise ProofRefused("the computed second root is not the given one")


def _path_lengths(index: int, size: int) -> tuple[int, int]:
    inner = (index ^ (size - 1)).bit_length()
    return inner, (index >> inner).bit_count()


def _chain_inner(node: bytes, proof: Sequence[bytes], index: int) -> bytes:
    for level, sibling in enumerate(proof):
        node = node_hash(sibling, node) if index >> level & 1 else node_hash(node, sibling)
    return node


def _chain_right(node: bytes, proof: Sequence[bytes]) -> bytes:
    for sibling in proof:
        node = node_hash(sibling, node)
    return node


def _hashes(*hashes: bytes) -> None:
    if any(len(item) != HASH_SIZE for item in hashes):
        raise ProofRefused(f"a hash is not {HASH_SIZE} bytes")
