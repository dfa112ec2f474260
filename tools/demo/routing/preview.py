"""`ratchet preview ROUTE --router FILE`, called as an operator would, and what it says."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from infra.settings import env_name, process_environment
from schemas.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Preview:
    """The command's word on a router file. `told`: all that it said, as JSON."""

    may_roll_out: bool
    words: str
    told: dict[str, Any]


def previewed(state: Path, route: str, file: Path, since_ms: int) -> Preview:
    """Judge the file from the running stack's log since then. Raises `Unavailable` where the command gives no verdict."""
    argv = [
        sys.executable,
        "-m",
        "tools.ratchet",
        "preview",
        route,
        "--router",
        str(file),
        "--since",
        str(since_ms),
        "--json",
    ]
    environment = process_environment() | {env_name("state_dir"): str(state)}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=120)
    told = _last_object(done.stdout)
    if done.returncode > 1 or not told:
        raise Unavailable(f"preview ended with {done.returncode}: {done.stderr[-400:] or done.stdout[-400:]}")
    return Preview(done.returncode == 0, in_words(told), told)


def in_words(told: dict[str, Any]) -> str:
    """Estimates of quality, and what holds the policy back."""
    said: list[str] = []
    row: dict[str, Any] = told.get("verdict", {}).get("dr") or {}
    if row:
        apart = row["difference"]
        said.append(
            f"quality {row['target']['value']:.3f} for {row['current']['value']:.3f}, "
            f"difference {apart['value']:+.3f} ({apart['low']:+.3f} to {apart['high']:+.3f})"
        )
    holds = told.get("holds") or ()
    return "; ".join([*said, *(str(one) for one in holds)])


def _last_object(text: str) -> dict[str, Any]:
    for line in reversed(text.splitlines()):
        try:
            found: Any = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(found, dict):
            return cast("dict[str, Any]", found)
    return {}
