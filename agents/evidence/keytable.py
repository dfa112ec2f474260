"""Which keys subjects have, by the keyring's events, and what is derived from one. Pure.

Rules:
1. The order in which events of different record keys come does not count: partitions are read side by side.
2. A marker is for ever: what it covers is erased, whatever comes after it.
3. Where nobody can tell what an erasure covers, all of it is erased.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from schemas.compliance import Cut, KeyErased, KeyRemoved, KeyWrapped
from schemas.hkdf import hkdf
from schemas.payload import Payload
from schemas.topics import PREFIX
from schemas.value import value

KEY_BYTES: Final = 32
COMMIT, PAYLOAD, ROWS = b"commit/1", b"payload/1", b"rows/1"
REQUESTS: Final = f"{PREFIX}requests"
Place = tuple[int, int]
"""Where a request lies on `ratchet.requests`: (partition, offset)."""


@value
class Wanted:
    """Whose key, for which request. No `place`: nobody can say which request it is."""

    tenant: str
    subject: str
    place: Place | None = None

    def __str__(self) -> str:
        return f"subject {self.subject} of tenant {self.tenant!r}"


@value
class Live:
    """There is a key: its epoch, and the key as the tenant's key wraps it."""

    epoch: int
    wrapped: str


@value
class Erased:
    """There is none, and never will be: keys up to `epoch` are erased by the command `erasure`, for requests below `cut`.

    `erasure` is empty while the marker itself is not read yet.
    """

    epoch: int
    cut: tuple[Cut, ...]
    erasure: str


@value
class Missing:
    """There is none yet; the first, or the first since an erasure, would be of this epoch."""

    epoch: int


State = Live | Erased | Missing


@dataclass(slots=True)
class _Row:
    live: Live | None = None
    removed: int = 0  # the newest epoch whose key was taken away
    marker: Erased | None = None


class KeyTable:
    """The keyring as a table. Memory: one row per subject."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], _Row] = {}

    def apply(self, event: Payload) -> None:
        """Take in an event of the keyring. Repeating one changes nothing."""
        match event:
            case KeyWrapped():
                row = self._row(event)
                if row.live is None or event.epoch >= row.live.epoch:
                    row.live = Live(event.epoch, event.wrapped)
            case KeyRemoved():
                row = self._row(event)
                row.removed = max(row.removed, event.epoch)
            case KeyErased():
                row = self._row(event)
                if row.marker is None or event.epoch >= row.marker.epoch:
                    row.marker = Erased(event.epoch, event.cut, event.erasure)
            case _:
                raise TypeError(f"{event.TYPE} is no event of the keyring")

    def state(self, wanted: Wanted) -> State:
        """What holds for the request at that place."""
        row = self._rows.get((wanted.tenant, wanted.subject))
        if row is None:
            return Missing(1)
        marked = row.marker.epoch if row.marker is not None else 0
        if row.removed > marked:  # its marker, of the same transaction, lies in a partition that is not read that far
            return Erased(row.removed, (), "")
        if row.marker is not None and _covers(row.marker, wanted.place):
            return row.marker
        if row.live is not None and row.live.epoch > marked:
            return row.live
        return Missing(marked + 1)

    def marker(self, tenant: str, subject: str) -> Erased | None:
        """The subject's newest erasure."""
        row = self._rows.get((tenant, subject))
        return row.marker if row is not None else None

    def live(self, tenant: str, subject: str) -> Live | None:
        """The key that no erasure covers: what an erasure would take away."""
        row = self._rows.get((tenant, subject))
        if row is None or row.live is None:
            return None
        return row.live if row.live.epoch > self.erased(tenant, subject) else None

    def erased(self, tenant: str, subject: str) -> int:
        """Up to which epoch keys are erased, 0 for none."""
        row = self._rows.get((tenant, subject))
        return 0 if row is None else max(row.removed, row.marker.epoch if row.marker is not None else 0)

    def epoch(self, tenant: str, subject: str) -> int:
        """The newest epoch that anything is known of, 0 where nothing is."""
        row = self._rows.get((tenant, subject))
        live = row.live.epoch if row is not None and row.live is not None else 0
        return max(self.erased(tenant, subject), live)

    def _row(self, event: KeyWrapped | KeyRemoved | KeyErased) -> _Row:
        return self._rows.setdefault((event.tenant, event.subject), _Row())


def _covers(marker: Erased, place: Place | None) -> bool:
    """Whether a request lies below the cut. Of one that cannot be placed nobody can say that it does not."""
    if place is None:
        return True
    return any(cut.partition == place[0] and place[1] < cut.offset for cut in marker.cut)


class SubjectKey:
    """A subject's key, opened, and the keys derived from it: HKDF without a salt. Its repr holds none of them."""

    __slots__ = ("_dek", "commit", "epoch", "payload")

    def __init__(self, epoch: int, dek: bytes) -> None:
        if len(dek) != KEY_BYTES:
            raise ValueError(f"a key of {len(dek)} bytes; accepted: {KEY_BYTES}")
        self.epoch = epoch
        self._dek = dek
        self.commit = hkdf(dek, COMMIT)
        """k_subject, under which texts are committed to."""
        self.payload = hkdf(dek, PAYLOAD)
        """Seals payloads beside the log."""

    @property
    def rows(self) -> bytes:
        """Seals the subject's rows of training data."""
        return hkdf(self._dek, ROWS)

    def __repr__(self) -> str:
        return f"SubjectKey(epoch={self.epoch})"


def payload_aad(tenant: str, record_id: str) -> bytes:
    """What a sealed payload belongs to."""
    return orjson.dumps(
        {"id": record_id, "tenant": tenant, "version": 1}
    )  # sorted, and so canonical (schemas.canonical)


def wanted_of(entry: Mapping[str, Any]) -> Wanted | None:
    """Whose key an entry of the log is committed under; None: the tenant's.

    A subject has a key for its requests and what follows from them. What is recorded about the subject alone (that it was erased)
    must stay readable, and must not make keys.
    """
    subject = entry.get("subject")
    if subject is None or not ("request" in entry or "request" in entry.get("commit", {})):
        return None
    source = entry["src"]
    place = request_place(source["topic"], source["partition"], source["offset"], entry["facts"])
    return Wanted(entry["tenant"], subject, place)


def request_place(topic: str, partition: int, offset: int, facts: Mapping[str, Any]) -> Place | None:
    """Where the request lies that a record at this place is of, or follows from, by the record's facts."""
    if topic == REQUESTS:
        return partition, offset
    if topic.endswith(".dlq"):
        names = ("partition", "offset") if topic == f"{REQUESTS}.dlq" and facts.get("topic") == REQUESTS else ()
    else:
        names = ("request_partition", "request_offset")
    found = tuple(facts[name] for name in names if isinstance(facts.get(name), int))
    return (found[0], found[1]) if len(found) == 2 else None
