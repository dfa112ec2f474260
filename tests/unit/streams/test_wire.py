"""Places, sizes, decoding, parking."""

import pytest
from streams_contract import request

from schemas.codec import encode
from schemas.errors import Refused, Undecodable
from streams.port import Outgoing
from streams.shapes import Held, Record
from streams.wire import (
    BROKER_BYTES,
    Decoder,
    Sent,
    TooLarge,
    Undecoded,
    Verbatim,
    cause_of,
    decode,
    largest,
    letter,
    murmur2,
    outgoing,
    parked,
    partition_of,
    size_of,
    unparked,
)


def record(*, partition: int | None = None, drop: str = "") -> Record:
    row = encode(request("r-1"), event_id="e-1", source="test", traceparent="")
    at = partition_of(row.key, 4) if partition is None else partition
    headers = tuple(header for header in row.headers if header[0] != drop)
    return Record("ratchet.requests", at, 7, row.key, row.value, headers, 0)


@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(key: bytes, hashed: int) -> None:
    """The vectors of Kafka's own UtilsTest."""
    assert murmur2(key) == hashed & 0xFFFFFFFF


def test_an_event_is_decoded_with_its_place() -> None:
    """Id, key, payload and place come from headers, key, value and record."""
    event = decode(record(), 4)
    assert (event.id, event.key, str(event.place)[-2:]) == ("e-1", "r-1", "@7")


def test_a_missing_id_is_derived_from_the_place() -> None:
    """The same record read again has the same id."""
    assert decode(record(drop="ce_id"), 4).id == decode(record(drop="ce_id"), 4).id != "e-1"


def test_a_missing_type_is_named() -> None:
    """A record without ce_type is undecodable, and the error says which header."""
    with pytest.raises(Undecodable) as error:
        decode(record(drop="ce_type"), 4)
    assert error.value.field == "ce_type"


def test_a_misplaced_request_is_told_where_it_belongs() -> None:
    """A request on another partition than murmur2 of its key is refused by name."""
    with pytest.raises(Refused) as error:
        decode(record(partition=(partition_of(b"r-1", 4) + 1) % 4), 4)
    assert error.value.kind == "misplaced"


def test_a_parked_record_comes_back_untouched() -> None:
    """Deferral keeps key, value, headers and the original place."""
    before = record()
    row = parked(before, attempt=2, topic="ratchet.x.deferred", not_before_ms=99)
    there = Record(row.topic, row.partition, 3, row.record.key, row.record.value, row.record.headers, 0)
    assert unparked(there) == (before, 2, 99)


def test_a_dead_letter_fits_where_its_source_did() -> None:
    """The largest record that a topic takes still fits the dead letters with its reason."""
    whole = Record("ratchet.requests", 0, 0, b"k", bytes(BROKER_BYTES - 200), (), 0)
    sent = letter(whole, agent="a", kind="k", message="m" * 5000, attempts=1, at_ms=0)
    assert size_of(sent.record) <= largest(sent.topic)


def test_a_held_record_is_the_same_record_again() -> None:
    """What a Fold keeps in its state becomes a dead letter byte for byte."""
    before = record()
    assert Held.model_validate_json(Held.of(before).model_dump_json()).record() == before


def test_a_shared_record_is_decoded_once_per_process() -> None:
    """Two agents that read one topic get the same event; nothing is kept after the last one."""
    decoder = Decoder()
    decoder.partitions = 4
    for _ in range(2):
        decoder.add_reader("ratchet.requests")
    assert decoder(record()) is decoder(record())
    assert decoder._kept == {}


def test_a_verbatim_emit_goes_out_as_it_is() -> None:
    """Without the codec a record that cannot be decoded passes through byte for byte, its size still checked."""
    broken = record(drop="ce_type")
    event = Undecoded()(broken)
    row = Outgoing(broken.key, broken.value, broken.headers)
    sent = outgoing(
        [Verbatim(event.data, row=Sent("out", 3, row))], cause_of(event), agent="a", partitions=4, now_ms=lambda: 0
    )
    assert sent == [Sent("out", 3, row)]
    large = Sent("out", 3, Outgoing(None, bytes(BROKER_BYTES)))
    with pytest.raises(TooLarge, match="for out"):
        outgoing([Verbatim(event.data, row=large)], cause_of(event), agent="a", partitions=4, now_ms=lambda: 0)


def test_size_is_an_upper_bound() -> None:
    """The bound is above the bytes themselves, and close."""
    row = Outgoing(b"key", bytes(1000), (("name", b"value"),))
    assert 1012 < size_of(row) < 1012 + 130
