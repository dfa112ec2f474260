"""Changed exports: of the bytes by anybody, of the values by a log that signs whatever it is given."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import evidence_bundle as made
from drawn import uniforms

JUNK: Sequence[Any] = (
    None, True, False, 0, 1, -1, 2**53, 10**400, 0.5, "", "x", "0" * 64, "\u00e4", "\ud800", "a\x00b", "trust", "coverage",
    [], [0], [[]], {}, {"": 0}, {"v": 1}, [[[[[]]]]], [0, 0, "lost"], {"topic": 1, "partition": "x", "inc": -1, "offset": None},
)  # fmt: skip


class Draws:
    """Numbers and choices, the same on every machine."""

    def __init__(self, seed: int) -> None:
        self._uniforms = uniforms(seed)

    def below(self, end: int) -> int:
        return int(next(self._uniforms) * end)

    def of(self, values: Sequence[Any]) -> Any:
        return values[self.below(len(values))]


def changed_bytes(data: bytes, draws: Draws) -> bytes:
    """A bit flipped, bytes put in, taken out, overwritten, repeated or moved. Never the same bytes."""
    at, length = draws.below(len(data) + 1), 1 + draws.below(40)
    some = bytes(draws.below(256) for _ in range(1 + draws.below(8)))
    flipped = bytearray(data or b"\0")
    flipped[at % len(flipped)] ^= 1 << draws.below(8)
    found = draws.of([
        bytes(flipped),
        data[:at] + some + data[at:],
        data[:at] + data[at + length :],
        data[:at] + some + data[at + len(some) :],
        data[:at] + data[at : at + length] * 2 + data[at + length :],
        data[at:] + data[:at],
        data[:at],
        data.replace(b"\n", b"\r\n", 1),
        data.replace(b"0", b"\xd9\xa0", 1),
    ])  # fmt: skip
    return found if found != data else data + b"\0"


def changed_value(value: Any, draws: Draws) -> Any:
    """The value with one of its parts replaced, dropped, doubled or renamed."""
    if isinstance(value, dict) and value and draws.below(5):
        key = draws.of(sorted(value))
        rest = {name: item for name, item in value.items() if name != key}
        how = draws.below(8)
        if how == 0:
            return rest
        if how == 1:
            return rest | {draws.of(["x", "src", "v", "last", key + "/0"]): value[key]}
        return rest | {key: changed_value(value[key], draws)}
    if isinstance(value, list) and value and draws.below(5):
        at = draws.below(len(value))
        how = draws.below(8)
        if how == 0:
            return value[:at] + value[at + 1 :]
        if how == 1:
            return [*value, value[at]]
        return [*value[:at], changed_value(value[at], draws), *value[at + 1 :]]
    if isinstance(value, int) and not isinstance(value, bool) and draws.below(2):
        return value + draws.of([-1, 1, 2, 10**6])
    return draws.of(JUNK)


def encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8", "surrogatepass")


def signed_mutants(entries: Sequence[bytes], seed: int, count: int) -> Iterator[list[bytes]]:
    """Logs, to be signed, in which one entry has another value, or in which entries were moved about."""
    draws = Draws(seed)
    for _ in range(count):
        mutant = list(entries)
        at = draws.below(len(mutant))
        how = draws.below(10)
        if how == 0:
            mutant.insert(draws.below(len(mutant)), mutant.pop(at))
        elif how == 1:
            mutant.insert(draws.below(len(mutant)), mutant[at])
        elif how == 2:
            mutant[at] = changed_bytes(mutant[at], draws)[: 2**16 - 1]
        else:
            mutant[at] = encoded(changed_value(json.loads(mutant[at]), draws))[: 2**16 - 1]
        if mutant != list(entries):
            yield mutant


def small_log() -> list[bytes]:
    """A log with every kind of entry in it, as short as can be."""
    spans = made.Spans()
    first = [made.record(offset, tenant=("acme", "globex")[offset % 2]) for offset in (0, 1, 2, 5)]
    again = [made.record(0, inc=1), made.record(0, partition=1)]
    lost = made.finding("range-lost", 3, 4)
    away = made.jcs({"v": 1, "type": "finding", "kind": "witness-away", "detail": {"tries": 3}})
    began = made.finding("source-reset", 0, 6, inc=1)
    closed = spans.close(first, {f"{made.TOPIC}/0": [[3, 4, "lost"]]})
    return [made.trust(made.policy_text()), *first, lost, closed, away, *again, began, spans.close(again)]
