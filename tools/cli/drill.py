"""`ratchet evidence drill`: a restore, tried. The log is copied as a backup would, its tree is made again from the entries alone, and
the root must be the signed one. What came of it is recorded; the copy is removed.
"""

import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from agents.evidence.edge import Edge
from agents.evidence.log import export
from agents.evidence.snapshot import Say, Snapshot
from schemas.compliance import DrillCompleted
from schemas.errors import Refused, Unavailable
from schemas.tlog import merkle
from streams.facts import Facts
from tools.cli.bus import now_ms
from tools.cli.evidence import log_folder
from tools.cli.place import open_broker, voice
from tools.cli.screen import Exit, Screen, clean

NOTHING = "0" * 64


@dataclass(frozen=True, slots=True)
class Restored:
    """`root`: the signed one; `restored`: that of what was restored, NOTHING where it could not be read, and `why`. In hex."""

    size: int
    root: str
    restored: str
    why: str = ""

    @property
    def passed(self) -> bool:
        return self.root == self.restored


def restored(folder: Path, copy: Path, say: Say) -> Restored:
    """Copy the log in `folder` to `copy`, and make its tree again from the entries of the copy."""
    try:
        checkpoint = export(folder, copy)
    except FileNotFoundError as fault:
        raise Unavailable(f"{folder} holds no {Path(fault.filename).name}: nothing was signed there yet") from fault
    except OSError as fault:
        raise Unavailable(
            f"the copy in {copy} could not be written: {fault.strerror}; TMPDIR names another folder"
        ) from fault
    root = checkpoint.root.hex()
    try:
        found = rebuilt(Snapshot.open(copy), say)
    except Refused as fault:
        return Restored(checkpoint.size, root, NOTHING, str(fault))
    return Restored(checkpoint.size, root, found.hex())


def rebuilt(log: Snapshot, say: Say) -> bytes:
    """The root over the log's entries; no hash of the copy is used."""
    edge = Edge(0, [])
    for first, entries in log.bundles():
        if first % 65_536 == 0 and first:
            say(f"{first:,} of {log.size:,} entries restored")
        edge, _ = edge.extended([merkle.leaf_hash(entry) for entry in entries])
    return edge.root()


async def run(screen: Screen, by: str | None) -> int:
    """The command. Exit 1 where what was restored is not what was there."""
    folder, said = log_folder(), await voice("operator", by)
    with screen.progress("copying the log") as progress, tempfile.TemporaryDirectory(prefix="ratchet-drill-") as temp:
        found = restored(folder, Path(temp) / "log", progress.say)
        progress.say("telling the log")
        await _publish(found, said.name)
    row = {"size": found.size, "root": found.root, "restored": found.restored, "passed": found.passed, "by": said.name}
    if screen.as_json:
        screen.json(row | ({"why": found.why} if found.why else {}))
        return Exit.DONE if found.passed else Exit.NO
    if found.passed:
        screen.say(f"[green]restored[/] {found.size} entries from a copy: the same root {found.root}")
    else:
        why = clean(found.why) or f"root {found.restored}, and not {found.root}"
        screen.say(f"[red]not restored[/] {found.size} entries: {why}")
    screen.say(f"recorded as what {clean(said.name)} observed; the copy is removed")
    return Exit.DONE if found.passed else Exit.NO


async def _publish(found: Restored, by: str) -> None:
    event = DrillCompleted(
        at_ms=now_ms(),
        kind="restore",
        size=found.size,
        root=found.root,
        restored=found.restored,
        passed=found.passed,
        by=by,
    )
    facts = Facts(await open_broker(), "cli")
    try:
        await facts.send(event, secrets.token_hex(16))
    finally:
        await facts.stop()
