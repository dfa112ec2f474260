"""What the log says of each request, as columns: the input of off-policy evaluation. Pure.

1. A row is left out, and counted, only for what was known before the draw: from a cache, personal (no vector), no draw of its own.
   A fallback's outcome stays with the arm that was drawn (intention to treat).
2. A session's later turn that kept the arm took no draw: it stands under the probabilities of the draw that gave it the arm.
3. Rows are in event time; equal times keep the order they came in.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from schemas.errors import Refused

WHOLE = 65_536
MICRO = 1_000_000
ONE = 4096  # fixed point of x: 2^-12
MOST_LABEL_WEIGHT = 20.0
Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Logged:
    """One decision and what came of it.

    `cluster`: the session, else the request: the unit of the bootstrap. `arm`: the drawn one, whoever answered in the end.
    `propensities`, `target`, `current`: out of 65,536, over the same context: as logged, the new policy's, the running policy's.
    `x`: fixed point 2^-12, None for a personal row. `reward`: quality in millionths, None without a label.
    `label_propensity`: out of 65,536, with which this row was to be labelled. `sticky`: the session kept its arm, no draw.
    """

    cluster: str
    at_ms: int
    arm: str
    propensities: Mapping[str, int]
    target: Mapping[str, int]
    current: Mapping[str, int]
    x: NDArray[np.int16] | None
    reward: int | None
    cost_nano: int
    label_propensity: int = WHOLE
    cached: bool = False
    sticky: bool = False


@dataclass(frozen=True, slots=True)
class Columns:
    """n rows over k arms, sorted by event time. `label_weight`: 0 without a label, else 1/label propensity, at most 20."""

    arms: tuple[str, ...]
    logged: Floats  # n, k
    target: Floats  # n, k
    current: Floats  # n, k
    drawn: Ints  # n: index of the arm
    x: Floats  # n, d: whole numbers, in 2^-12
    reward: Floats  # n: 0 without a label
    label_weight: Floats  # n: 0 without a label
    cost_nano: Floats  # n
    session: Ints  # n: 0 … sessions - 1, by first appearance
    left_out: Mapping[str, int]

    @property
    def rows(self) -> int:
        return len(self.drawn)

    @property
    def sessions(self) -> int:
        return int(self.session.max()) + 1 if self.rows else 0

    @property
    def labelled(self) -> NDArray[np.bool_]:
        return self.label_weight > 0.0

    def ratio(self, policy: Floats) -> Floats:
        """Importance weights: the policy's probability of the drawn arm over the logged one."""
        at = np.arange(self.rows)
        return policy[at, self.drawn] / self.logged[at, self.drawn]


def columns(rows: Iterable[Logged]) -> Columns:
    """The rows that can be judged, as columns. Raises `Refused` for a row that no such log can hold."""
    left_out: Counter[str] = Counter()
    kept = _usable(sorted(rows, key=lambda row: row.at_ms), left_out)
    arms = tuple(sorted({arm for row in kept for part in (row.propensities, row.target, row.current) for arm in part}))
    index = {arm: at for at, arm in enumerate(arms)}
    sessions: dict[str, int] = {}
    for row in kept:
        sessions.setdefault(row.cluster, len(sessions))
    vectors = [row.x for row in kept if row.x is not None]
    if len({len(x) for x in vectors}) > 1:
        raise Refused(
            f"x: vectors of {sorted({len(x) for x in vectors})} numbers; accepted: rows of one basis",
            kind="mixed-basis",
            field="x",
            accepted="rows of one basis",
        )
    return Columns(
        arms=arms,
        logged=_matrix("propensities", [row.propensities for row in kept], kept, index),
        target=_matrix("target", [row.target for row in kept], kept, index),
        current=_matrix("current", [row.current for row in kept], kept, index),
        drawn=np.array([index[row.arm] for row in kept], dtype=np.int64),
        x=np.array(vectors, dtype=np.float64).reshape(len(kept), -1 if kept else 0),
        reward=np.array([0 if row.reward is None else row.reward for row in kept], dtype=np.float64) / MICRO,
        label_weight=np.array([_label_weight(row) for row in kept], dtype=np.float64),
        cost_nano=np.array([row.cost_nano for row in kept], dtype=np.float64),
        session=np.array([sessions[row.cluster] for row in kept], dtype=np.int64),
        left_out=dict(sorted(left_out.items())),
    )


def _usable(rows: Sequence[Logged], left_out: Counter[str]) -> list[Logged]:
    draws: dict[str, Logged] = {}
    found: list[Logged] = []
    for row in rows:
        if row.cached or row.x is None:
            left_out["cached" if row.cached else "personal"] += 1
            continue
        stands = row
        if row.sticky:
            draw = draws.get(row.cluster)
            if draw is None or draw.arm != row.arm:
                left_out["draw unknown"] += 1
                continue
            stands = replace(row, propensities=draw.propensities, target=draw.target, current=draw.current)
        elif row.propensities.get(row.arm, 0) <= 0:
            left_out["not drawn"] += 1
            continue
        draws[row.cluster] = stands
        found.append(stands)
    return found


def _label_weight(row: Logged) -> float:
    if row.reward is None:
        return 0.0
    if not 0 < row.label_propensity <= WHOLE:
        accepted = f"1 to {WHOLE}"
        raise Refused(
            f"label_propensity: {row.label_propensity!r} of a labelled row, in {row.cluster!r} at {row.at_ms}; accepted: {accepted}",
            kind="label-propensity",
            field="label_propensity",
            accepted=accepted,
        )
    return min(WHOLE / row.label_propensity, MOST_LABEL_WEIGHT)


def _matrix(name: str, shares: Sequence[Mapping[str, int]], rows: Sequence[Logged], index: Mapping[str, int]) -> Floats:
    whole = np.array([[row.get(arm, 0) for arm in index] for row in shares], dtype=np.int64).reshape(
        len(shares), len(index)
    )
    wrong = np.flatnonzero((whole.sum(axis=1) != WHOLE) | (whole < 0).any(axis=1))
    if len(wrong):
        row, accepted = rows[int(wrong[0])], f"shares from 0 that sum to {WHOLE}"
        raise Refused(
            f"{name}: {whole[wrong[0]].tolist()} in {row.cluster!r} at {row.at_ms}; accepted: {accepted}",
            kind="propensities",
            field=name,
            accepted=accepted,
        )
    return whole / float(WHOLE)
