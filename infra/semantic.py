"""The index of questions that may be like one another: a log per partition in the store, and each process's own copy to search.

A row is written when a question is asked, before anybody has answered it; whether there is an answer, its key tells. So nothing
here decides what is served, and rows may be lost or come twice.
"""

import math
import struct
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

PAGE = 64  # rows in one read: a read must end within the store's bound
_HEAD = struct.Struct(">BHH")  # version, dims, bytes of the id
_VERSION = 1
_FIRST_ROWS = 64
MOST_DIMS = 1024  # 127² · 1024 < 2^24: every partial sum of a product is a whole number that float32 holds


class Log(Protocol):
    """What the index needs of the store."""

    async def append(self, key: str, value: bytes, most: int, ttl_s: float) -> None: ...

    async def tail(self, key: str, after: str, most: int) -> list[tuple[str, bytes]]: ...


@dataclass(frozen=True, slots=True)
class Near:
    """A question like the one asked for. `identity`: under which it was added."""

    identity: str
    question: str
    likeness_milli: int


class SemanticIndex:
    """Brute force over at most `most` rows per partition, the latest; at most `partitions` copies in this process.

    `nearest` reads what is new at most once in `refresh_s` and partition, one page at a time: a fresh process has the whole of a
    large partition after `most / PAGE` questions. Rows of other dimensions or versions are passed over.
    """

    def __init__(
        self,
        store: Log,
        clock: Callable[[], float],
        *,
        dims: int,
        most: int = 10_000,
        ttl_s: float = 86_400.0,
        refresh_s: float = 1.0,
        partitions: int = 16,
    ) -> None:
        if not (1 <= dims <= MOST_DIMS and most >= 1 and partitions >= 1):
            raise ValueError(
                f"dims {dims!r}, most {most!r}, partitions {partitions!r}; accepted: dims 1 to {MOST_DIMS}"
            )
        self._store = store
        self._clock = clock
        self._dims = dims
        self._most = most
        self._ttl_s = ttl_s
        self._refresh_s = refresh_s
        self._partitions = partitions
        self._copies: OrderedDict[str, _Copy] = OrderedDict()

    async def add(self, partition: str, identity: str, question: str, vector: NDArray[np.int8]) -> bool:
        """Add a question unless this process knows it already. False where nothing was added: a known or an empty one."""
        copy = self._copy(partition)
        if identity in copy.slots or not vector.any():
            return False
        row = _pack(identity, question, vector, self._dims)
        await self._store.append(partition, row, self._most, self._ttl_s)
        return True

    async def nearest(
        self, partition: str, vector: NDArray[np.int8], *, least_milli: int, most: int = 5
    ) -> tuple[Near, ...]:
        """The rows whose cosine with the vector is at least so many thousandths, rounded down; the nearest first, then by id.

        Raises `Unavailable` where the store is: without it there are no answers either.
        """
        if not vector.any():
            return ()
        copy = self._copy(partition)
        await self._refresh(partition, copy)
        return copy.nearest(vector, least_milli)[:most]

    def _copy(self, partition: str) -> "_Copy":
        copy = self._copies.get(partition)
        if copy is None:
            copy = self._copies[partition] = _Copy(self._dims, self._most)
        self._copies.move_to_end(partition)
        while len(self._copies) > self._partitions:
            self._copies.popitem(last=False)
        return copy

    async def _refresh(self, partition: str, copy: "_Copy") -> None:
        now = self._clock()
        if now < copy.read_at + self._refresh_s:
            return
        rows = await self._store.tail(partition, copy.mark, PAGE)
        if len(rows) < PAGE:
            copy.read_at = now
        for mark, row in rows:
            copy.mark = max(copy.mark, mark, key=_mark)
            found = _unpack(row, self._dims)
            if found is not None:
                copy.put(*found)


class _Copy:
    """One partition's rows in this process: a ring of the latest, grown as it fills."""

    def __init__(self, dims: int, most: int) -> None:
        self.mark = ""
        self.read_at = -math.inf
        self.slots: dict[str, int] = {}
        self._most = most
        self._rows: list[tuple[str, str]] = []
        self._next = 0
        self._vectors = np.zeros((min(_FIRST_ROWS, most), dims), dtype=np.float32)
        self._squares = np.zeros(len(self._vectors), dtype=np.int64)

    def put(self, identity: str, question: str, vector: NDArray[np.int8]) -> None:
        slot = self.slots.get(identity)
        if slot is None:
            slot = self._next
            self._next = (slot + 1) % self._most
            if slot < len(self._rows):
                del self.slots[self._rows[slot][0]]
            else:
                self._grow()
                self._rows.append((identity, question))
            self.slots[identity] = slot
        self._rows[slot] = (identity, question)
        self._vectors[slot] = vector
        self._squares[slot] = int(np.square(vector.astype(np.int64)).sum())

    def nearest(self, vector: NDArray[np.int8], least_milli: int) -> tuple[Near, ...]:
        held = len(self._rows)
        products = (self._vectors[:held] @ vector.astype(np.float32)).astype(np.int64)
        square = int(np.square(vector.astype(np.int64)).sum())
        # the products are exact; floats only choose whom to look at, the likeness itself is a whole number
        rough = np.flatnonzero(products * 1000 >= (least_milli - 1) * np.sqrt(self._squares[:held] * float(square)))
        found: list[Near] = []
        for slot in map(int, rough):
            product = int(products[slot])
            likeness = (
                math.isqrt(product * product * 10**6 // (int(self._squares[slot]) * square)) if product > 0 else 0
            )
            if likeness >= least_milli:
                identity, question = self._rows[slot]
                found.append(Near(identity, question, likeness))
        return tuple(sorted(found, key=lambda near: (-near.likeness_milli, near.identity)))

    def _grow(self) -> None:
        if len(self._rows) == len(self._vectors):
            size = min(self._most, 2 * len(self._vectors))
            self._vectors = np.concatenate(
                [self._vectors, np.zeros((size - len(self._rows), self._vectors.shape[1]), np.float32)]
            )
            self._squares = np.concatenate([self._squares, np.zeros(size - len(self._rows), np.int64)])


def _mark(mark: str) -> tuple[int, ...]:
    """A mark as numbers: Redis writes milliseconds-count."""
    return tuple(int(part) for part in mark.split("-") if part)


def _pack(identity: str, question: str, vector: NDArray[np.int8], dims: int) -> bytes:
    if vector.dtype != np.int8 or vector.shape != (dims,):
        raise ValueError(f"a vector of {vector.dtype} {vector.shape}; accepted: int8 ({dims},)")
    name = identity.encode()
    return _HEAD.pack(_VERSION, dims, len(name)) + name + vector.tobytes() + question.encode()


def _unpack(row: bytes, dims: int) -> tuple[str, str, NDArray[np.int8]] | None:
    """Identity, question and vector of a row; None for one that is not whole, or not of this version and these dimensions."""
    if len(row) < _HEAD.size:
        return None
    version, width, name = _HEAD.unpack_from(row)
    start, end = _HEAD.size + name, _HEAD.size + name + width
    if (version, width) != (_VERSION, dims) or len(row) < end:
        return None
    try:
        identity, question = row[_HEAD.size : start].decode(), row[end:].decode()
    except UnicodeDecodeError:
        return None
    vector = np.frombuffer(row, dtype=np.int8, count=width, offset=start)
    return (identity, question, vector) if vector.any() else None
