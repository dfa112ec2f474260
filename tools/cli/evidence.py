"""`ratchet evidence`: export the log with its signed checkpoint, verify an export without any server."""

from pathlib import Path
from typing import Any

from schemas.errors import Refused, Unavailable
from tools.cli.place import settings
from tools.cli.screen import Exit, Screen, clean

LOG = "evidence"  # in the state folder


def verify(screen: Screen, folder: Path, policy: Path | None) -> int:
    """The offline verifier's word, unchanged: it is the one file that auditors are given."""
    from tools import verify_evidence

    if not folder.is_dir():
        raise Refused(f"{folder} is not a folder; give one that `ratchet evidence export` wrote", kind="usage")
    arguments = [str(folder), *(["--policy", str(policy)] if policy is not None else [])]
    return verify_evidence.main([*arguments, *(["--json"] if screen.as_json else [])])


def export(screen: Screen, out: Path) -> int:
    """Copy what the latest checkpoint covers into a new folder."""
    from agents.evidence.log import export as export_log

    source = settings().state_dir / LOG
    if not source.is_dir():
        raise Unavailable(f"there is no evidence log at {source}: the evidence agent writes it, `ratchet up` starts it")
    if out.exists() and any(out.iterdir() if out.is_dir() else [out]):
        raise Refused(f"{out} exists; give a folder that does not, or an empty one", kind="usage")
    with screen.progress(f"exporting to {out}"):
        checkpoint = export_log(source, out)
    row: dict[str, Any] = {"exported": str(out), "origin": checkpoint.origin, "size": checkpoint.size}
    screen.line(
        row,
        f"[green]exported[/] {checkpoint.size} leaves of {clean(checkpoint.origin)} to {clean(str(out))}\n"
        f"verify it anywhere: python tools/verify_evidence.py {clean(str(out))} --policy FILE",
    )
    return Exit.DONE
