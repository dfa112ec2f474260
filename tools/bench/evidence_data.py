"""What `bench evidence` records: the events of made-up requests; and large logs of such entries, written without a sequencer.

A request leaves four entries: it was submitted, a result was completed, an answer released, a case answered. It is one of
10,000 persons'.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from agents.evidence.coverage import FULL_EVERY, Batch
from agents.evidence.edge import Edge
from agents.evidence.record import Draft, pseudonym
from agents.evidence.sequencer import MAX_BATCH
from schemas.codec import encode
from schemas.events import AnswerReleased, CaseAnswered, Message, RequestSubmitted, ResultCompleted
from schemas.ids import trace_parent
from schemas.payload import Payload
from schemas.tlog import merkle, tiles
from schemas.tlog.note import Checkpoint
from schemas.tlog.policy import Policy
from streams.shapes import Record

TENANT = "default"
KEY = bytes(32)
"""Of commitments and of pseudonyms: a benchmark has nothing to hide."""
AT_MS = 1_800_000_000_000
FLUSH = 65_536
_REQUEST = "q00000000"
_ID = "e0000000-0000-5000-8000-00000000bead"  # with letters: a mere row of digits is committed to, as a number of somebody's
_OFFSET = 987_654_321
SUBJECTS = 10_000
_PERSON, _PSEUDONYM = "person-000000", "00" * 16
_ROUTE, _ARM, _UUID = "bench.route", "small", "c1111111-1111-5111-8111-11111111cafe"


def records(count: int) -> list[Record]:
    """As Kafka would give them: four topics, one partition each."""
    samples = _samples()
    return [_numbered(samples[n % len(samples)], n, n // len(samples)) for n in range(count)]


def write_log(
    root: Path, count: int, first: bytes, policy: Policy, sign: Callable[[Checkpoint], bytes], origin: str
) -> int:
    """A log of at least `count` entries under `root`, the entry `first` before them, as `ratchet evidence export` gives it.

    Returns its size. Nothing is synced, and no more than a few batches are held in memory.
    """
    writer = _Writer(root)
    writer.add([first])
    for entries in _batches(count):
        writer.add(entries)
    edge = writer.finish()
    (root / "policy.txt").write_text(policy.text())
    (root / "checkpoint").write_bytes(sign(Checkpoint(origin, edge.size, edge.root())))
    return edge.size


def hash_reader(root: Path, size: int) -> merkle.ReadSubtree:
    """The hashes of a log's tiles on disk."""
    return tiles.subtree_reader(size, lambda tile: tiles.decode_tile((root / tile.path).read_bytes(), tile.width))


class _Writer:
    """Tiles and bundles, whole ones as they fill, the others at the end."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._edge = Edge(0, [])
        self._waiting: list[bytes] = []
        self._partial: dict[int | None, tuple[tiles.Tile, bytes]] = {}

    def add(self, entries: Sequence[bytes]) -> None:
        self._waiting += entries
        if len(self._waiting) >= FLUSH:
            self._flush(len(self._waiting) - len(self._waiting) % tiles.WIDTH)

    def finish(self) -> Edge:
        self._flush(len(self._waiting))
        for tile, data in self._partial.values():
            self._write(tile, data)
        return self._edge

    def _flush(self, count: int) -> None:
        entries, self._waiting = self._waiting[:count], self._waiting[count:]
        first = self._edge.size // tiles.WIDTH
        self._edge, made = self._edge.extended([merkle.leaf_hash(entry) for entry in entries])
        for number, at in enumerate(range(0, count, tiles.WIDTH), first):
            some = entries[at : at + tiles.WIDTH]
            made.append((tiles.Tile(None, number, len(some)), tiles.encode_bundle(some)))
        for tile, data in made:
            if tile.width < tiles.WIDTH:
                self._partial[tile.level] = (tile, data)
            else:
                self._partial.pop(tile.level, None)
                self._write(tile, data)

    def _write(self, tile: tiles.Tile, data: bytes) -> None:
        path = self._root / tile.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def _batches(count: int) -> Iterator[list[bytes]]:
    """Entries as the collector would have put them under checkpoints, each batch with what closes it."""
    samples = _samples()
    forms = [_form(Draft(_numbered(sample, 0, _OFFSET)).build(KEY, KEY)) for sample in samples]
    tag = pseudonym(KEY, "tenant", TENANT)
    frontiers = Batch({}).next()
    since_full = FULL_EVERY
    for start in range(0, count, MAX_BATCH):
        batch = Batch(frontiers)
        entries: list[bytes] = []
        for n in range(start, min(start + MAX_BATCH, count)):
            request, kind = divmod(n, len(forms))
            form, commitments = forms[kind]
            subject = _subject(request % SUBJECTS)[1]
            digest = hashlib.sha256(b"%d" % n).hexdigest().encode() * 2
            entries.append(form % (*(digest[at : at + 64] for at in range(commitments)), n, request, request, subject))
            batch.add(Record(samples[kind].topic, 0, request, None, None, (("ce_id", _id(n)),), AT_MS))
        full = since_full + len(entries) >= FULL_EVERY
        since_full = 0 if full else since_full + len(entries)
        yield entries + batch.closing({tag: len(entries)}, full=full)
        frontiers = batch.next()


def _form(entry: bytes) -> tuple[bytes, int]:
    """An entry as a format of its commitments, the number in its id, its request's, its offset and its subject, in the order in
    which JCS has them; and how many commitments there are."""
    form = entry.replace(b"%", b"%%").replace(b'"id":"' + _ID[:8].encode(), b'"id":"e%07x')
    form = form.replace(b'"request":"' + _REQUEST.encode(), b'"request":"q%08d')
    form = form.replace(b'"subject":"%s"' % _subject(_OFFSET % SUBJECTS)[1], b'"subject":"%s"')
    return _COMMITMENT.subn(b'"%s"', form.replace(b'"offset":%d' % _OFFSET, b'"offset":%d'))


def _numbered(sample: Record, number: int, offset: int) -> Record:
    """A sample as the record `number`, of the request `offset`."""
    request = f"q{offset % 10**8:08d}".encode() if offset != _OFFSET else _REQUEST.encode()
    person, subject = _subject(offset % SUBJECTS)
    replaced = {_REQUEST: request, _ID: _id(number), _PERSON: person, _PSEUDONYM: subject}

    def put(data: bytes | None) -> bytes | None:
        return None if data is None else _PLACES.sub(lambda match: replaced[match[0].decode()], data)

    headers = tuple((name, put(value) or b"") for name, value in sample.headers)
    return Record(sample.topic, 0, offset, put(sample.key), put(sample.value), headers, AT_MS)


@cache
def _subject(number: int) -> tuple[bytes, bytes]:
    """A person's id as upstream has it, and their pseudonym."""
    person = f"person-{number:06d}"
    return person.encode(), pseudonym(KEY, "subject", person).encode()


def _id(number: int) -> bytes:
    return b"e%07x" % number + _ID[8:].encode()


def _samples() -> list[Record]:
    """One record of each kind."""
    found: list[Record] = []
    for payload, source in _payloads():
        made = encode(payload, event_id=_ID, source=source, traceparent=trace_parent(None, _ID), extra=_CAUSE)
        found.append(Record(f"ratchet.{payload.TOPIC}", 0, 0, made.key, made.value, made.headers, AT_MS))
    return found


_PLACES = re.compile("|".join((_REQUEST, _ID, _PERSON, _PSEUDONYM)).encode())
_COMMITMENT = re.compile(rb'"[0-9a-f]{64}"')
_CAUSE = (("ratchet-cause", _UUID.encode()), ("ratchet-at", b"ratchet.requests[0]@7"))


def _payloads() -> list[tuple[Payload, str]]:
    request: dict[str, Any] = {"route": _ROUTE, "at_ms": AT_MS, "request_id": _REQUEST}
    at: dict[str, Any] = {"request_partition": 0, "request_offset": 7, "request_at_ms": AT_MS}
    place: dict[str, Any] = {**request, **at, "subject": _PSEUDONYM}
    span: Mapping[str, Any] = {"decision_id": _UUID, "assigned_at_ms": AT_MS, "window_end_ms": AT_MS + 15_000}
    text = "I still have not received my new card, I ordered over a week ago."
    return [
        (
            RequestSubmitted(
                **request, subject=_PERSON, session_id="s-1", messages=(Message(role="user", content=text),)
            ),
            "bench",
        ),
        (
            ResultCompleted(
                **place, **span, arm=_ARM, adapter=None, shadow=False, final=True, attempt=1, latency_ms=90.5,
                instance="bench", text="card_arrival", tokens_in=17, tokens_out=3, ttft_ms=20.25, engine_ms=70.5,
                finish_reason="stop", logprobs=(-0.29, -0.28, -0.42), engine="scripted", replica="bench-0",
                cost_nano_usd=200, cache_key="cache:" + hashlib.sha256(b"bench").hexdigest(),
            ),
            "ratchet/inference",
        ),
        (
            AnswerReleased(
                **place, text="card_arrival", arm=_ARM, score=0.58, certified=False, reviewed=False, decision_id=_UUID,
                result_id=_UUID, latency_ms=208.0,
            ),
            "ratchet/trust",
        ),
        (
            CaseAnswered(
                **place, **span, arm=_ARM, drawn=_ARM, experiment="", arenas=(), ok=True, latency_us=71_000,
                tokens_out=3, released=True, shadows=("big",), cost_nano_usd=180, strategy="champion",
            ),
            "ratchet/cases",
        ),
    ]  # fmt: skip
