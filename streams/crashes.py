"""What a process remembers of crashes over its restarts: three at one place halt the lane there."""

import json
import logging
from pathlib import Path

from streams.shapes import Place

log = logging.getLogger("streams")
POISON_AFTER = 3


class Crashes:
    """The crashes of one lane, in a small file under the runner's `state_dir`. Without one nothing is remembered.

    The file is replaced whole; one that cannot be read as ours, an empty one too, says nothing.
    """

    def __init__(self, state_dir: Path | None, agent: str, partition: int) -> None:
        self._file = None if state_dir is None else state_dir / "crashes" / f"{agent}-{partition}.json"

    def count(self, place: Place) -> None:
        """One more crash at `place`; a crash elsewhere begins anew."""
        if self._file is None:
            return
        known, count = self._known(self._file)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        beside = self._file.with_suffix(".new")
        beside.write_text(json.dumps({"place": str(place), "count": count + 1 if known == str(place) else 1}))
        beside.replace(self._file)

    def halted_at(self) -> str | None:
        """The place (`topic[partition]@offset`) before which the lane halts."""
        if self._file is None:
            return None
        place, count = self._known(self._file)
        return place if count >= POISON_AFTER else None

    @staticmethod
    def _known(file: Path) -> tuple[str | None, int]:
        """The place of the last crash, and how many there were at it."""
        try:
            known = json.loads(file.read_text())
            return str(known["place"]), int(known["count"])
        except FileNotFoundError:
            pass
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s is damaged, no crash is known from it: %r", file, error)
        return None, 0
