"""Seeded draws for simulations in tests: the same on every machine (SplitMix64, Steele, Lea & Flood 2014)."""

from collections.abc import Iterator

_MASK = (1 << 64) - 1


def uniforms(seed: int) -> Iterator[float]:
    """Endless numbers in [0, 1)."""
    state = seed
    while True:
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        mixed = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        yield ((mixed ^ (mixed >> 31)) >> 11) * 2.0**-53
