"""`ratchet evidence sign`: a person's word on a control that no log can show, in a file that `ratchet evidence controls` reads.

The key is an Ed25519 key in a file of the person's, made here at first use with mode 0600; whoever reads that file can sign as the person,
which is why its name begins with `dev.`. Whose statements count, the reader says: `--signer`.
"""

import os
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

from agents.evidence.statements import Statement, read, text
from infra.notary import LocalNotary, verify
from schemas.errors import Refused
from schemas.tlog.note import parse_vkey, sign_line
from tools.cli.bus import now_ms
from tools.cli.evidence import open_log
from tools.cli.place import operator, state_file
from tools.cli.screen import Exit, Screen, clean

FOLDER = "statements"  # in the state folder


@dataclass(frozen=True, slots=True)
class Asked:
    """What is stated. `key`, `file`: else NAME.key and NAME.note in the state folder."""

    control: str
    result: Literal["satisfied", "not-applicable"]
    until: str
    reason: str
    by: str | None = None
    key: Path | None = None
    file: Path | None = None


def sign(screen: Screen, asked: Asked, folder: Path | None) -> int:
    """The command: the file with the other statements of the same signer, and this one, signed anew."""
    origin = open_log(folder).checkpoint.origin
    name = operator(asked.by)
    key = asked.key or state_file(FOLDER) / f"{name}.key"
    file = asked.file or state_file(FOLDER) / f"{name}.note"
    notary = LocalNotary.create(key, f"dev.{name}")
    vkey = notary.vkey(1)
    says: Literal["reviewed", "not-applicable"] = "reviewed" if asked.result == "satisfied" else asked.result
    fresh = Statement(asked.control, says, asked.until, asked.reason, notary.name)
    before = read(file.read_bytes(), origin, [parse_vkey(vkey)], verify) if file.exists() else ()
    body = text(origin, (*before, fresh))
    _still_to_come(asked.until)
    _replace(file, f"{body}\n{sign_line(parse_vkey(vkey), notary.sign(body.encode()))}".encode())
    if screen.as_json:
        said = {"control": asked.control, "says": says, "until": asked.until, "why": asked.reason}
        screen.json({"signed": said, "file": str(file), "signer": vkey, "origin": origin})
        return Exit.DONE
    screen.say(
        f"[green]signed[/]   {clean(asked.control)}: {says} until {clean(asked.until)}, about {clean(origin)}\n"
        f"signer   {clean(vkey)} (key file {clean(str(key))}: keep it to yourself)\n"
        f"written  {clean(str(file))}\n"
        f"assess   ratchet evidence controls --statements {clean(str(file))} --signer {clean(vkey)}"
    )
    return Exit.DONE


def _still_to_come(until: str) -> None:
    if date.fromisoformat(until) < datetime.fromtimestamp(now_ms() / 1000, UTC).date():
        raise Refused(f"--until {until} is over; accepted: today or a later day (UTC)", kind="usage")


def _replace(file: Path, data: bytes) -> None:
    """The old statements or the new ones, whatever happens meanwhile."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.new")
    try:
        with fresh.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(file)
    except OSError as fault:
        raise Refused(f"{file}: cannot be written: {fault.strerror}", kind="usage") from fault
