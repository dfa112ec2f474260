"""Is the router's picture of its arms still true, and does it make up its mind? Folds of bounded memory. Pure; integers throughout.

1. Calibration: predicted against graded quality, by arm and decile. An alarm needs 100 grades, a gap of 5 points, and 4 standard
   errors: it is looked at after every grade.
2. Old grades fade: past 4,000 of an arm all its counts are halved.
3. Oscillation: more than three A→B→A within ten minutes of event time, told once until it has calmed down.
4. A switch of the preferred arm needs a gain of a point: less is noise, and would oscillate.
"""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict

MICRO = 1_000_000
BINS, DECILES = 100, 10
LEAST_GRADES, MOST_GAP, ERRORS = 100, 50_000, 4
MOST_GRADES, MOST_ARMS, MOST_KEYS = 4_000, 64, 256
WHOLE = 65_536  # a label propensity of 1
WEIGHT_ONE, MOST_WEIGHT = 16, 320  # the weight of a label propensity of 1, and of 1/20 or less
SWING_MS, MOST_SWINGS = 600_000, 3
SWITCH_GAIN = 10_000  # micro


class Bin(NamedTuple):
    """Sums over grades: how many; weight w; w·predicted, w·(graded - predicted), (w·(graded - predicted))²; qualities in micro."""

    n: int = 0
    weight: int = 0
    predicted: int = 0
    gap: int = 0
    square: int = 0

    def plus(self, other: "Bin") -> "Bin":
        return Bin(*(a + b for a, b in zip(self, other, strict=True)))

    def halved(self) -> "Bin":
        return Bin(*(part // 2 for part in self))


class Gap(NamedTuple):
    """A decile of an arm's predictions. `predicted`: their mean, `gap`: mean of graded - predicted, both in micro, weighted."""

    arm: str
    decile: int
    n: int
    predicted: int
    gap: int
    alarm: bool


class Calibration(BaseModel):
    """Per arm, the grades by hundredth of the predicted quality; deciles are formed when it is read."""

    model_config = ConfigDict(frozen=True)

    arms: dict[str, dict[int, Bin]] = {}

    def add(self, arm: str, predicted: int, graded: int, label_propensity: int = WHOLE) -> Self:
        """One grade. Raises ValueError for a quality outside 0 to 1,000,000 or a label propensity outside 1 to 65,536."""
        if not (0 <= predicted <= MICRO and 0 <= graded <= MICRO and 0 < label_propensity <= WHOLE):
            raise ValueError(
                f"predicted {predicted!r}, graded {graded!r}, label propensity {label_propensity!r}; accepted: 0 to {MICRO}, "
                f"1 to {WHOLE}"
            )
        weight = min(WEIGHT_ONE * WHOLE // label_propensity, MOST_WEIGHT)
        gap = weight * (graded - predicted)
        at = min(predicted * BINS // MICRO, BINS - 1)
        bins = dict(self.arms.get(arm, {}))
        bins[at] = bins.get(at, Bin()).plus(Bin(1, weight, weight * predicted, gap, gap * gap))
        if sum(part.n for part in bins.values()) > MOST_GRADES:
            bins = {key: part.halved() for key, part in bins.items() if part.n > 1}
        arms = {**self.arms, arm: bins}
        if len(arms) > MOST_ARMS:
            del arms[min((name for name in arms if name != arm), key=lambda name: (_grades(arms[name]), name))]
        return self.model_copy(update={"arms": arms})

    def gaps(self) -> Iterator[Gap]:
        """By arm, then from the lowest predictions up."""
        for arm in sorted(self.arms):
            for decile, part in _deciles(self.arms[arm]):
                if part.weight > 0:
                    gap = part.gap // part.weight
                    yield Gap(arm, decile, part.n, part.predicted // part.weight, gap, _alarming(part, gap))

    def alarms(self) -> tuple[Gap, ...]:
        """The deciles in which an arm is not what was predicted."""
        return tuple(gap for gap in self.gaps() if gap.alarm)


def _grades(bins: Mapping[int, Bin]) -> int:
    return sum(part.n for part in bins.values())


def _deciles(bins: Mapping[int, Bin]) -> Iterator[tuple[int, Bin]]:
    """Bins merged by the tenth of the grades in which their middle falls: a heavy bin is a decile of its own."""
    whole, below = _grades(bins), 0
    placed: list[tuple[int, Bin]] = []
    for at in sorted(bins):
        part = bins[at]
        placed.append(((2 * below + part.n) * DECILES // (2 * whole), part))
        below += part.n
    for decile, group in groupby(placed, key=lambda row: row[0]):
        merged = Bin()
        for _, part in group:
            merged = merged.plus(part)
        yield decile, merged


def _alarming(part: Bin, gap: int) -> bool:
    """Gap² > 16 · Σ(w·residual)² / (Σw)²: the residuals about 0, so slightly more cautious than about their mean."""
    return part.n >= LEAST_GRADES and abs(gap) > MOST_GAP and part.gap**2 > ERRORS**2 * part.square


class Track(NamedTuple):
    """One key's arm, the one before, the latest swings, and whether they were told."""

    arm: str
    before: str = ""
    at_ms: int = 0
    swings: tuple[int, ...] = ()
    told: bool = False


class Swinging(NamedTuple):
    """The alarm: `key` went back and forth `swings` times within ten minutes, at last to `arm`."""

    key: str
    arm: str
    before: str
    swings: int


class Oscillation(BaseModel):
    """What each key (a complexity tier, an arm whose fallback it is) preferred. Beyond 256 keys the longest unseen is forgotten."""

    model_config = ConfigDict(frozen=True)

    keys: dict[str, Track] = {}

    def see(self, key: str, arm: str, at_ms: int) -> tuple[Self, Swinging | None]:
        """The key prefers this arm now. Time never runs backwards: an earlier one counts as the latest seen."""
        track = self.keys.get(key)
        if track is None:
            return self._with(key, Track(arm, at_ms=at_ms)), None
        now = max(at_ms, track.at_ms)
        swings = tuple(at for at in track.swings if at > now - SWING_MS)
        before = track.before
        if arm != track.arm:
            swings = (*swings, now)[-MOST_SWINGS - 1 :] if arm == before else swings
            before = track.arm
        many = len(swings) > MOST_SWINGS
        alarm = Swinging(key, arm, before, len(swings)) if many and not track.told else None
        return self._with(key, Track(arm, before, now, swings, many)), alarm

    def _with(self, key: str, track: Track) -> Self:
        keys = {**self.keys, key: track}
        if len(keys) > MOST_KEYS:
            del keys[min((name for name in keys if name != key), key=lambda name: (keys[name].at_ms, name))]
        return self.model_copy(update={"keys": keys})


def preferred(current: str, quality: Mapping[str, int]) -> str:
    """The arm to prefer by quality in micro: the current one, unless another is a point better or the current is gone."""
    best = min(quality, key=lambda arm: (-quality[arm], arm))
    if current in quality and quality[best] - quality[current] < SWITCH_GAIN:
        return current
    return best
