"""What was asked of an arm in a stretch of time, as sums: loads add in any order to the same. Integers only.

The latency histogram divides each octave of milliseconds into eight parts (as HdrHistogram, Tene 2012): a quantile read from it is
at most an eighth above the truth, never below.
"""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

PARTS = 8
LONGEST_MS = (1 << 23) - 1  # longer ones count as this: two hours


class Load(BaseModel):
    """Calls of an arm. `timed` of them say how long they took, `told` how many tokens went in and out."""

    model_config = ConfigDict(frozen=True)

    calls: int = 0
    served: int = 0
    timed: int = 0
    busy_us: int = 0
    told: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    spread: dict[int, int] = Field(default_factory=dict[int, int])

    def plus(self, other: "Load") -> "Load":
        """Both together."""
        return total((self, other))

    def halved(self) -> "Load":
        """Half of it: what is old counts less."""
        return Load(
            calls=self.calls // 2,
            served=self.served // 2,
            timed=self.timed // 2,
            busy_us=self.busy_us // 2,
            told=self.told // 2,
            tokens_in=self.tokens_in // 2,
            tokens_out=self.tokens_out // 2,
            spread={part: count // 2 for part, count in self.spread.items() if count > 1},
        )

    def mean_us(self) -> int:
        """Mean time of a call; 0 where none is known."""
        return self.busy_us // self.timed if self.timed else 0

    def quantile_ms(self, per_cent: int) -> int:
        """The latency that so many per cent of the timed calls kept; 0 where none is known."""
        count = sum(self.spread.values())
        rank, seen = -(-count * per_cent // 100), 0
        for part in sorted(self.spread):
            seen += self.spread[part]
            if seen >= rank:
                return _edge_ms(part)
        return 0


def call(latency_us: int, *, served: bool, tokens_out: int = 0) -> Load:
    """One call of which is known how long it took."""
    part = part_of(latency_us // 1000)
    return Load(
        calls=1, served=int(served), timed=1, busy_us=max(0, latency_us), tokens_out=tokens_out, spread={part: 1}
    )


def total(loads: Iterable[Load]) -> Load:
    """All of them together."""
    calls = served = timed = busy_us = told = tokens_in = tokens_out = 0
    spread: dict[int, int] = {}
    for load in loads:
        calls += load.calls
        served += load.served
        timed += load.timed
        busy_us += load.busy_us
        told += load.told
        tokens_in += load.tokens_in
        tokens_out += load.tokens_out
        for part, count in load.spread.items():
            spread[part] = spread.get(part, 0) + count
    return Load(
        calls=calls,
        served=served,
        timed=timed,
        busy_us=busy_us,
        told=told,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        spread={part: spread[part] for part in sorted(spread)},
    )


def part_of(latency_ms: int) -> int:
    """The part of the histogram that holds a latency."""
    value = min(max(0, latency_ms), LONGEST_MS)
    if value < PARTS:
        return value
    octave = value.bit_length() - 4  # 8..15 ms is octave 0
    return PARTS * (octave + 1) + (value >> octave) - PARTS


def _edge_ms(part: int) -> int:
    """The greatest whole latency in a part."""
    if part < PARTS:
        return part
    octave, step = divmod(part - PARTS, PARTS)
    return ((PARTS + step + 1) << octave) - 1
