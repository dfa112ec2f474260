"""A whole log read once and assessed: every entry goes to the ledger, and the tiles' root is held against the signed one."""

from collections.abc import Iterable, Iterator
from typing import Any

from agents.evidence.controls import Ledger
from agents.evidence.edge import Edge
from agents.evidence.oscal import Result, assessment_results
from agents.evidence.snapshot import Say, Snapshot, parsed, silent
from agents.evidence.statements import Statement
from schemas.errors import Unavailable
from schemas.tlog import merkle


class Assessment:
    """Exhaust `entries`, then ask for `results` and `document`."""

    def __init__(self, log: Snapshot) -> None:
        self._log, self._ledger, self._edge = log, Ledger(), Edge(0, [])

    def entries(self, say: Say = silent) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
        """(index, entry, its value) of all entries, in order, each assessed. Raises Refused where the folder is damaged."""
        for first, entries in self._log.bundles():
            if first % 65_536 == 0:
                say(f"entry {first:,} of {self._log.size:,}")
            self._edge, _ = self._edge.extended([merkle.leaf_hash(entry) for entry in entries])
            for index, entry in enumerate(entries, first):
                value = parsed(entry)
                self._ledger.take(index, value)
                yield index, entry, value

    def results(self, statements: Iterable[Statement] = ()) -> list[Result]:
        """Every control. Raises Unavailable for a log without records."""
        if not self._ledger.last_ms:
            raise Unavailable(f"the log {self._log.checkpoint.origin} holds no record yet: there is nothing to assess")
        unbroken = self._edge.root() == self._log.checkpoint.root
        return self._ledger.results(unbroken=unbroken, statements=statements)

    def document(self, results: list[Result]) -> bytes:
        """The results as OSCAL has them."""
        return assessment_results(self._log.checkpoint, results, self._ledger.first_ms, self._ledger.last_ms)
