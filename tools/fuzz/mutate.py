"""Mutations of encoded records: what a damaged disk, a careless client or an attacker might send. Pure, drawn from the given dice.

A mutation takes the dice, the record and another record of the corpus, and gives the record that it becomes.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from random import Random  # noqa: TID251  the dice are seeded: a number of a seed is always the same mutant
from typing import Any, cast

from schemas.topics import TOPICS, deferred_topic
from streams.shapes import Record
from streams.wire import parked

Mutation = Callable[[Random, Record, Record], Record]
LARGE = 1 << 20
ODD_NUMBERS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-1e999",
    "-0",
    "5.0",
    "1e2",
    "9007199254740993",
    "0x10",
    "01",
    f"1{0:0400}",
)
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 1 << 31, 1 << 53, (1 << 53) - 1, 253_402_300_800_000, 1 << 63, 1 << 64, 10**400, 0.5, -0.5, 1e308,
    "", "0", "1", "true", "null", "a", "a\n", "\0", "a\0b", "é", "𝄞", "\u202eabc", "../../etc", "x" * 65, "x" * 300, "{text}", [], {}, [[]],
    [None], {"": 0}, {"text": "x"},
)  # fmt: skip
ODD_BYTES = (b"", b"\0", b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"1.0", b"null", b"x" * 300)
ODD_BODIES = (
    None,
    b"",
    b"null",
    b"[]",
    b"5",
    b'""',
    b"{}",
    b"{",
    b"\xff\xfe{}",
    b"\xef\xbb\xbf{}",
    b"[" * 3000,
    b'{"a":' * 900,
    b" ",
)
OURS = (
    "ce_id",
    "ce_type",
    "ce_source",
    "ce_specversion",
    "traceparent",
    "ratchet-principal",
    "ratchet-proof",
    "content-type",
)
PARTITIONS = 4
DEFERRING = ("router", "inference", "trust", "jobs", "grader", "shredder")


def _spot(dice: Random, data: Any) -> tuple[Any, Any] | None:
    """A container somewhere in a JSON value, and a key or index of it; None where there is none."""
    found: tuple[Any, Any] | None = None
    at = data
    while isinstance(at, dict | list) and at:
        inside = cast("Any", at)
        name = dice.choice(list(inside)) if isinstance(at, dict) else dice.randrange(len(inside))
        found = (inside, name)
        if dice.random() < 0.4:
            break
        at = inside[name]
    return found


def _changed(dice: Random, record: Record, change: Callable[[Any, Any], None]) -> Record:
    """The payload with a change at one spot of it."""
    try:
        data = json.loads(record.value or b"")
    except (ValueError, RecursionError):
        return record
    spot = _spot(dice, data)
    if spot is None:
        return record
    change(*spot)
    try:
        return replace(record, value=json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode())
    except UnicodeEncodeError:
        return record  # another mutation had put a lone surrogate there


def _headers(record: Record, change: Callable[[list[tuple[str, Any]], int], None], dice: Random) -> Record:
    rows: list[tuple[str, Any]] = list(record.headers)
    ours = [number for number, (name, _) in enumerate(rows) if name in OURS]
    if not ours:
        return record
    change(rows, dice.choice(ours))
    return replace(record, headers=tuple(rows))


def _as_is(dice: Random, record: Record, other: Record) -> Record:
    return record


def _bits(dice: Random, record: Record, other: Record) -> Record:
    data = bytearray(record.value or b"")
    for _ in range(dice.randint(1, 4) if data else 0):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    return replace(record, value=bytes(data))


def _cut(dice: Random, record: Record, other: Record) -> Record:
    data = record.value or b""
    return replace(record, value=data[: dice.randrange(len(data) + 1)])


def _spliced(dice: Random, record: Record, other: Record) -> Record:
    data, more = record.value or b"", other.value or b""
    return replace(record, value=data[: dice.randrange(len(data) + 1)] + more[dice.randrange(len(more) + 1) :])


def _inserted(dice: Random, record: Record, other: Record) -> Record:
    data = record.value or b""
    at = dice.randrange(len(data) + 1)
    return replace(record, value=data[:at] + dice.choice(ODD_BYTES) + data[at:])


def _body(dice: Random, record: Record, other: Record) -> Record:
    return replace(record, value=dice.choice(ODD_BODIES))


def _other_body(dice: Random, record: Record, other: Record) -> Record:
    return replace(record, value=other.value)


def _odd_value(dice: Random, record: Record, other: Record) -> Record:
    def change(at: Any, name: Any) -> None:
        at[name] = dice.choice(ODD_VALUES)

    return _changed(dice, record, change)


def _odd_number(dice: Random, record: Record, other: Record) -> Record:
    def change(at: Any, name: Any) -> None:
        at[name] = "@@"

    made = _changed(dice, record, change)
    return replace(made, value=(made.value or b"").replace(b'"@@"', dice.choice(ODD_NUMBERS).encode(), 1))


def _as_text(dice: Random, record: Record, other: Record) -> Record:
    """A number or boolean as text, a text as a list."""

    def change(at: Any, name: Any) -> None:
        value = at[name]
        at[name] = [value] if isinstance(value, str) else json.dumps(value)

    return _changed(dice, record, change)


def _removed(dice: Random, record: Record, other: Record) -> Record:
    def change(at: Any, name: Any) -> None:
        del at[name]

    return _changed(dice, record, change)


def _added(dice: Random, record: Record, other: Record) -> Record:
    def change(at: Any, name: Any) -> None:
        if isinstance(at, dict):
            at[dice.choice(("", "new", "At_ms", "x" * 300, "é", "a\0b", "__class__"))] = dice.choice(ODD_VALUES)
        else:
            at.append(dice.choice(ODD_VALUES))

    return _changed(dice, record, change)


def _repeated_key(dice: Random, record: Record, other: Record) -> Record:
    data = record.value or b""
    name = dice.choice((b"at_ms", b"route", b"tenant", b"request_id", b"arm", b"operator", b"by", b"messages"))
    value = dice.choice((b"1", b'"x"', b"null", b"[]", b'"another-1"'))
    row = b'"' + name + b'":' + value
    return replace(record, value=b"{" + row + b"," + data[1:] if dice.random() < 0.5 else data[:-1] + b"," + row + b"}")


def _surrogate(dice: Random, record: Record, other: Record) -> Record:
    escape = dice.choice((rb"\ud800", rb"\udc00", rb"\u0000", rb"\ud83d\ude00", rb"\x41"))
    return replace(record, value=(record.value or b"").replace(b':"', b':"' + escape, dice.randint(1, 3)))


def _deep(dice: Random, record: Record, other: Record) -> Record:
    depth = dice.choice((10, 150, 250, 1200, 20_000))
    nested = b"[" * depth + b"]" * depth if dice.random() < 0.5 else b'{"a":' * depth + b"1" + b"}" * depth
    return replace(record, value=(record.value or b"")[:-1] + b',"new":' + nested + b"}")


def _large(dice: Random, record: Record, other: Record) -> Record:
    """A text grown to the most that a record may have, or to some part of it."""
    small = dice.random() < 0.98
    size = dice.randint(1, 4000) if small else dice.choice((1 << 16, LARGE // 2, LARGE - 3000, LARGE))

    def change(at: Any, name: Any) -> None:
        at[name] = dice.choice(("x", "é", '"', "a b ")) * size

    return _changed(dice, record, change)


def _header_gone(dice: Random, record: Record, other: Record) -> Record:
    return _headers(record, lambda rows, at: rows.pop(at) and None, dice)


def _header_twice(dice: Random, record: Record, other: Record) -> Record:
    def change(rows: list[tuple[str, Any]], at: int) -> None:
        found = [value for name, value in other.headers if name == rows[at][0]]
        row = (rows[at][0], dice.choice((rows[at][1], *found, *ODD_BYTES)))
        rows.insert(dice.choice((0, len(rows))), row)

    return _headers(record, change, dice)


def _header_odd(dice: Random, record: Record, other: Record) -> Record:
    def change(rows: list[tuple[str, Any]], at: int) -> None:
        value = rows[at][1] or b""
        odd = (None, *ODD_BYTES, value + b"x", value[:-1], value.upper(), b" " + value, value + b"\n")
        rows[at] = (
            rows[at][0],
            dice.choice(odd) if dice.random() < 0.995 else b"x" * dice.choice((70_000, LARGE // 2)),
        )

    return _headers(record, change, dice)


def _header_name(dice: Random, record: Record, other: Record) -> Record:
    def change(rows: list[tuple[str, Any]], at: int) -> None:
        name, value = rows[at]
        rows[at] = (dice.choice((name.upper(), name + " ", "", name.replace("_", "-"), "é" + name)), value)

    return _headers(record, change, dice)


def _version(dice: Random, record: Record, other: Record) -> Record:
    """Another version of the schema, or a type that looks like ours."""

    def told(value: bytes) -> bytes:
        base = value.removesuffix(b".v1")
        odd = (b"%s.v2", b"%s.v0", b"%s", b"%s.v1.v1", b"ratchet.%s.v1", b"%s.V1", b"%s.v01", b" %s.v1")
        return dice.choice(odd) % base

    rows = tuple((name, told(value or b"") if name == "ce_type" else value) for name, value in record.headers)
    return replace(record, headers=rows)


def _type(dice: Random, record: Record, other: Record) -> Record:
    """The type of another event over this payload."""
    theirs = dict(other.headers).get("ce_type", b"")
    return replace(
        record, headers=tuple((name, theirs if name == "ce_type" else value) for name, value in record.headers)
    )


def _key(dice: Random, record: Record, other: Record) -> Record:
    key = record.key or b""
    return replace(
        record, key=dice.choice((None, b"", other.key, key + b"x", key[:-1], b"\xff" + key, key.upper(), b"\0"))
    )


def _place(dice: Random, record: Record, other: Record) -> Record:
    return replace(record, partition=dice.randrange(PARTITIONS))


def _topic(dice: Random, record: Record, other: Record) -> Record:
    """Another topic, placed well or not."""
    return replace(record, topic=dice.choice((other.topic, dice.choice(TOPICS).full)))


def _smuggled(dice: Random, record: Record, other: Record) -> Record:
    """Another whole event on this record's topic, under this key."""
    return replace(other, topic=record.topic, partition=record.partition, key=dice.choice((record.key, other.key)))


def _time(dice: Random, record: Record, other: Record) -> Record:
    later = record.timestamp_ms + dice.choice((-1, 1)) * dice.choice((1, 60_000, 86_400_000, 40 * 86_400_000))
    return replace(record, timestamp_ms=dice.choice((0, later, later)))


def _parked(dice: Random, record: Record, other: Record) -> Record:
    """On a deferred topic, as if the agent had put it off, or nearly so."""
    row = parked(record, attempt=1, topic=deferred_topic(dice.choice(DEFERRING)), not_before_ms=record.timestamp_ms)
    made = replace(record, topic=row.topic, headers=row.record.headers)
    if dice.random() < 0.3:
        return made
    odd = (
        b"-1",
        b"1e3",
        b"9" * 400,
        b"9" * 5000,
        b"ratchet.requests[0]@-1",
        b"x[0]@0",
        b"ratchet.answers[9]@9",
        *ODD_BYTES,
    )
    at = dice.randrange(len(record.headers), len(made.headers))
    told = (made.headers[at][0], dice.choice(odd))
    return replace(made, headers=(*made.headers[:at], *dice.choice(((), (told,))), *made.headers[at + 1 :]))


MUTATIONS: dict[str, tuple[Mutation, int]] = {
    "as-is": (_as_is, 2),
    "bits": (_bits, 6),
    "cut": (_cut, 2),
    "spliced": (_spliced, 2),
    "inserted": (_inserted, 3),
    "body": (_body, 1),
    "other-body": (_other_body, 2),
    "odd-value": (_odd_value, 16),
    "odd-number": (_odd_number, 8),
    "as-text": (_as_text, 6),
    "removed": (_removed, 6),
    "added": (_added, 6),
    "repeated-key": (_repeated_key, 3),
    "surrogate": (_surrogate, 2),
    "deep": (_deep, 1),
    "large": (_large, 2),
    "header-gone": (_header_gone, 3),
    "header-twice": (_header_twice, 3),
    "header-odd": (_header_odd, 6),
    "header-name": (_header_name, 1),
    "version": (_version, 2),
    "type": (_type, 3),
    "key": (_key, 4),
    "place": (_place, 3),
    "topic": (_topic, 3),
    "smuggled": (_smuggled, 3),
    "time": (_time, 3),
    "parked": (_parked, 2),
}
_NAMES, _WEIGHTS = list(MUTATIONS), [weight for _, weight in MUTATIONS.values()]


def mutant(dice: Random, record: Record, others: Sequence[Record]) -> tuple[tuple[str, ...], Record]:
    """What was done to the record, one to three mutations, and what it has become."""
    names = tuple(dice.choices(_NAMES, _WEIGHTS, k=dice.choice((1, 1, 1, 1, 2, 2, 3))))
    for name in names:
        record = MUTATIONS[name][0](dice, record, dice.choice(others))
    return names, record
