"""What a process remembers of crashes over its restarts: three at one place halt the lane there."""

import json
from pathlib import Path

from streams.shapes import Place

POISON_AFTER = 3


class Crashes:
    """The crashes of one lane, in a small file under the runner's `state_dir`. Without one nothing is remembered."""

    def __init__(self, state_dir: Path | None, agent: str, partition: int) -> None:
        self._file = None if state_dir is None else state_dir / "crashes" / f"{agent}-{partition}.json"

    def count(self, place: Place) -> None:
        """One more crash at `place`; a crash elsewhere begins anew."""
        if self._file is None:
            return
        count = 1
        if self._file.exists():
            known = json.loads(self._file.read_text())
            count += known["count"] if known["place"] == str(place) else 0
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps({"place": str(place), "count": count}))

    def halted_at(self) -> str | None:
        """The place (`topic[partition]@offset`) before which the lane halts."""
        if self._file is None or not self._file.exists():
            return None
        known = json.loads(self._file.read_text())
        return known["place"] if known["count"] >= POISON_AFTER else None
