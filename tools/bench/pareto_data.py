"""A file of the `paretobandit` format: one JSON object per line, `prompt` and each arm's reward and cost. All else is not read."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from schemas.errors import Refused

Floats = NDArray[np.float64]
NANO = 1_000_000_000
MICRO = 1_000_000
MOST_ARMS = 64
ACCEPTED = (
    'a line {"prompt": text, "arms": {name: {"reward": 0 to 1, "cost": US dollars from 0}}}, the same arms in each'
)


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What each arm would have answered: rewards in millionths and costs in nano-dollars, [prompt, arm], arms sorted by name."""

    prompts: tuple[str, ...]
    arms: tuple[str, ...]
    rewards: NDArray[np.int64]
    costs: NDArray[np.int64]

    def part(self, at: NDArray[np.int64]) -> "Outcomes":
        """These rows, in this order."""
        places: list[int] = at.tolist()
        return Outcomes(tuple(self.prompts[i] for i in places), self.arms, self.rewards[at], self.costs[at])


def read(path: Path) -> Outcomes:
    """The file. Raises `Refused` for what it cannot read, with the line's number."""
    prompts: list[str] = []
    rewards: list[list[int]] = []
    costs: list[list[int]] = []
    arms: tuple[str, ...] = ()
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    prompt, found = _row(line, f"{path}:{number}")
                    arms = arms or tuple(sorted(found))
                    if tuple(sorted(found)) != arms:
                        raise _refused(
                            f"{path}:{number}", f"the arms are {sorted(found)}, those before it {list(arms)}"
                        )
                    prompts.append(prompt)
                    rewards.append([found[arm][0] for arm in arms])
                    costs.append([found[arm][1] for arm in arms])
    except (OSError, UnicodeDecodeError) as fault:
        raise Refused(
            f"{path}: cannot be read ({type(fault).__name__}); accepted: a JSON-lines file in UTF-8"
        ) from fault
    if not prompts:
        raise _refused(str(path), "there is no row")
    return Outcomes(tuple(prompts), arms, np.array(rewards, np.int64), np.array(costs, np.int64))


def _row(line: str, where: str) -> tuple[str, dict[str, tuple[int, int]]]:
    try:
        said: object = json.loads(line)
    except ValueError as fault:
        raise _refused(where, "it is no JSON") from fault
    row = _object(said)
    prompt, arms = row.get("prompt"), _object(row.get("arms"))
    if not isinstance(prompt, str):
        raise _refused(where, "`prompt` is no text")
    if not 1 <= len(arms) <= MOST_ARMS:
        raise _refused(where, f"`arms` is no object of 1 to {MOST_ARMS} arms")
    return prompt, {name: _outcome(value, f"{where}: arms.{name}") for name, value in arms.items()}


def _outcome(value: object, where: str) -> tuple[int, int]:
    row = _object(value)
    reward, cost = _number(row, "reward", where), _number(row, "cost", where)
    if not 0.0 <= reward <= 1.0:
        raise _refused(where, f"reward is {reward!r}")
    if not 0.0 <= cost <= 1.0:
        raise _refused(where, f"cost is {cost!r}; a request of more than 1 $ is beyond this benchmark")
    return round(reward * MICRO), round(cost * NANO)


def _object(value: object) -> Mapping[str, Any]:
    """The JSON object; of anything else an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _number(row: Mapping[str, Any], name: str, where: str) -> float:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _refused(where, f"`{name}` is no number")
    return float(value)


def _refused(where: str, why: str) -> Refused:
    return Refused(f"{where}: {why}; accepted: {ACCEPTED}", kind="invalid")
