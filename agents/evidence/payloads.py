"""Records of subjects as they were, sealed beside the log: one file a batch. Their keys lie on the keyring, and nowhere here.

    payloads/SIZE-WRITTEN-DIGEST     SIZE: the log's entries before the batch; WRITTEN: our clock, milliseconds

A file is a first line, then per record its place in the log's words (topic, partition, incarnation, offset) with the key's epoch,
and the sealed bytes, each after its length. Who it is about, and what the record is called, the file does not say: whoever opens
it states tenant and id, as the entry has them. A file is no evidence: it is in no bundle, and goes whole when its time is over.
"""

import hashlib
import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import orjson

from agents.evidence.keyring import Keyring
from agents.evidence.keytable import SubjectKey, payload_aad, wanted_of
from agents.evidence.ports import EvidenceKeys
from agents.evidence.record import opening
from infra.sealing import open_sealed, seal
from schemas.errors import Refused
from schemas.value import value
from streams.shapes import Record

FOLDER: Final = "payloads"
_HEAD: Final = b"ratchet-payloads/1\n"
_NAME = re.compile(r"([0-9]{15})-([0-9]{15})-[0-9a-f]{16}")


@value
class Sealed:
    """A record's sealed bytes, and where the record lay."""

    place: tuple[str, int, int, int]
    epoch: int
    data: bytes


def sealed(record: Record, inc: int, tenant: str, record_id: str, key: SubjectKey) -> Sealed | None:
    """The record's value, sealed under its subject's key. None where it has no value."""
    if record.value is None:
        return None
    place = (record.topic, record.partition, inc, record.offset)
    return Sealed(place, key.epoch, seal(key.payload, record.value, payload_aad(tenant, record_id)))


def files_of(rows: Sequence[Sealed], size: int, now_ms: int) -> list[tuple[str, bytes]]:
    """A batch's file, its name and bytes; none where there is nothing to keep."""
    if not rows:
        return []
    parts = [_HEAD]
    for row in rows:
        head = orjson.dumps([*row.place, row.epoch])
        parts += (len(head).to_bytes(4, "big"), head, len(row.data).to_bytes(4, "big"), row.data)
    data = b"".join(parts)
    return [(f"{FOLDER}/{size:015d}-{now_ms:015d}-{hashlib.sha256(data).hexdigest()[:16]}", data)]


def written_before(name: str, at_ms: int) -> bool:
    """Whether a file of the folder was written before that time, by its name."""
    match = _NAME.fullmatch(name)
    return match is not None and int(match[2]) < at_ms


class Payloads:
    """The sealed records beside a log, read only. Safe beside the writer."""

    def __init__(self, log_dir: Path, keyring: Keyring) -> None:
        self._folder = log_dir / FOLDER
        self._keyring = keyring
        self._read = lru_cache(maxsize=4)(self._read_file)  # a person's records lie side by side

    async def open(self, index: int, entry: Mapping[str, Any]) -> bytes:
        """The value of the record that the entry at `index` is of.

        Raises SubjectErased, for ever; Refused: of the kind `no-payload` where none is kept (the record is nobody's, its time is
        over), `sealed` where it belongs to another entry, `no-key`.
        """
        wanted = wanted_of(entry)
        if wanted is None:
            raise _none(index, "it is about nobody, or about no request")
        key = await self._keyring.key(wanted)
        found = self._find(index, entry)
        if found is None:
            raise _none(index, "its time is over, or it came when its subject was erased")
        if found.epoch != key.epoch:
            raise _none(
                index, f"it is sealed under the subject's key {found.epoch}, and the one that counts is {key.epoch}"
            )
        return open_sealed(key.payload, found.data, payload_aad(entry["tenant"], entry["id"]))

    def _find(self, index: int, entry: Mapping[str, Any]) -> Sealed | None:
        """Of batches that were read again after a crash each has a file: any of them will do."""
        source = entry["src"]
        place = (source["topic"], source["partition"], source["inc"], source["offset"])
        for name in self._files(index):
            if (row := self._read(name).get(place)) is not None:
                return row
        return None

    def _read_file(self, name: str) -> Mapping[tuple[str, int, int, int], Sealed]:
        try:
            data = (self._folder / name).read_bytes()
        except FileNotFoundError:  # pruned meanwhile
            return {}
        return {row.place: row for row in _rows(name, data)}

    def _files(self, index: int) -> list[str]:
        """The files of the batch in which this entry is."""
        if not self._folder.is_dir():
            return []
        names = sorted(path.name for path in self._folder.iterdir() if _NAME.fullmatch(path.name))
        sizes = [int(name[:15]) for name in names]
        at = bisect_right(sizes, index)
        return [name for name, size in zip(names, sizes, strict=True) if at and size == sizes[at - 1]]


async def opening_key(entry: Mapping[str, Any], name: str, keys: EvidenceKeys, keyring: Keyring) -> bytes:
    """The key that opens one commitment of an entry, and no other: `name` is the field's.

    Raises SubjectErased; Refused (kind `no-key`); Refused (kind `no-commitment`) where the entry has none of that name.
    """
    if name not in entry.get("commit", {}):
        raise Refused(
            f"entry {entry.get('id')!r} commits to no {name!r}; it does to {', '.join(entry.get('commit', {})) or 'nothing'}",
            kind="no-commitment",
        )
    wanted = wanted_of(entry)
    key = keys.commitment_key(entry["tenant"]) if wanted is None else (await keyring.key(wanted)).commit
    return opening(key, entry["id"], name)


def _rows(name: str, data: bytes) -> Iterator[Sealed]:
    if not data.startswith(_HEAD):
        raise Refused(f"{FOLDER}/{name} is no file of sealed payloads", kind="payloads-damaged")
    at = len(_HEAD)
    while at < len(data):
        head, at = _part(name, data, at)
        body, at = _part(name, data, at)
        topic, partition, inc, offset, epoch = orjson.loads(head)
        yield Sealed((topic, partition, inc, offset), epoch, body)


def _part(name: str, data: bytes, at: int) -> tuple[bytes, int]:
    end = at + 4 + int.from_bytes(data[at : at + 4], "big")
    if end > len(data):
        raise Refused(f"{FOLDER}/{name} ends in the middle of a payload", kind="payloads-damaged")
    return data[at + 4 : end], end


def _none(index: int, why: str) -> Refused:
    return Refused(f"the payload of entry {index} is not kept: {why}", kind="no-payload")
