"""The envelope of what the learner keeps as bytes: magic, version, content, checksum. Reading refuses all that is not exactly that."""

import hashlib
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import Refused

VERSION = 1
_FRONT = struct.Struct("<4sH")
_CHECK = 8


def sealed(magic: bytes, content: bytes) -> bytes:
    """The content between its kind and version and the first 8 bytes of the SHA-256 of all before."""
    data = _FRONT.pack(magic, VERSION) + content
    return data + hashlib.sha256(data).digest()[:_CHECK]


class Reader:
    """Reads sealed bytes from front to back. Every fault is `Refused`, of kind `damaged`, `from-the-future` or `wrong-dims`."""

    def __init__(self, magic: bytes, name: str, data: bytes) -> None:
        self.name = name
        if len(data) < _FRONT.size + _CHECK or data[:4] != magic:
            raise self.damaged(f"these {len(data)} bytes are none")
        version = _FRONT.unpack_from(data)[1]
        if version > VERSION:
            raise Refused(f"{name}: of version {version}; accepted: up to {VERSION}", kind="from-the-future")
        if version < 1 or hashlib.sha256(data[:-_CHECK]).digest()[:_CHECK] != data[-_CHECK:]:
            raise self.damaged("the checksum does not fit")
        self._data, self._at = data[_FRONT.size : -_CHECK], 0

    def damaged(self, why: str) -> Refused:
        """The error for bytes that are not what was written."""
        return Refused(f"{self.name}: damaged: {why}; accepted: the bytes as they were written", kind="damaged")

    def head(self, form: str) -> tuple[Any, ...]:
        """The next fields, of a `struct` format."""
        part = self._take(struct.calcsize(form))
        return struct.unpack(form, part)

    def array(self, dtype: str, count: int) -> NDArray[Any]:
        """The next `count` numbers."""
        return np.frombuffer(self._take(count * np.dtype(dtype).itemsize), dtype)

    def dims(self, found: int, wanted: int | None, most: int) -> None:
        """Refuse features of another length than `wanted`, and such as nobody has."""
        if not 1 <= found <= most:
            raise self.damaged(f"{found} dimensions")
        if wanted is not None and found != wanted:
            raise Refused(f"{self.name}: of {found} features; accepted: {wanted}", kind="wrong-dims")

    def end(self) -> None:
        """Refuse what follows."""
        if self._at != len(self._data):
            raise self.damaged(f"{len(self._data) - self._at} bytes too many")

    def _take(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        if len(part) != size:
            raise self.damaged("it ends too early")
        self._at += size
        return part
