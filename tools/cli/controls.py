"""`ratchet evidence controls`: what the log shows of each control of the catalogue, as table, JSON, CSV and OSCAL."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.evidence.assess import Assessment
from agents.evidence.catalogue import CROSSWALK, DEADLINES
from agents.evidence.controls import row_of, sheet
from agents.evidence.statements import Statement, read
from infra.notary import verify
from schemas.errors import Refused
from schemas.tlog.note import VerifierKey, parse_vkey
from schemas.tlog.strict import Malformed, encode_base64
from tools.cli.evidence import open_log
from tools.cli.screen import Exit, Screen, clean


@dataclass(frozen=True, slots=True)
class Asked:
    """Files to read and to write besides. `signers`: the keys whose statements count."""

    statements: Path | None = None
    signers: Sequence[str] = ()
    oscal: Path | None = None
    sheet: Path | None = None


def run(screen: Screen, folder: Path | None, asked: Asked) -> int:
    """The command. Exit 1 where a control is not satisfied; without evidence is no failure, and no pass."""
    log = open_log(folder)
    statements = _statements(asked, log.checkpoint.origin)
    assessment = Assessment(log)
    with screen.progress(f"assessing {log.size:,} entries") as progress:
        for _ in assessment.entries(progress.say):
            pass
    results = assessment.results(statements)
    for file, data in ((asked.oscal, assessment.document(results)), (asked.sheet, sheet(results))):
        if file is not None:
            _write(file, data)
    counts = Counter(one.state for one in results)
    code = Exit.NO if counts["not-satisfied"] else Exit.DONE
    if screen.as_json:
        screen.json(
            {
                "origin": log.checkpoint.origin,
                "size": log.size,
                "root": encode_base64(log.checkpoint.root),
                "counts": counts,
                "controls": [row_of(one) for one in results],
                "deadlines": [row.as_json() for row in DEADLINES],
                "crosswalk": CROSSWALK,
            }
        )
        return code
    screen.say(f"{log.size} entries of {clean(log.checkpoint.origin)}")
    rows = [
        (one.control, one.state, one.population, f"{len(one.failed)} failed" if one.failed else "", one.title)
        for one in results
    ]
    screen.table("", ("control", "result", "cases", "", "what"), rows)
    for one in results:
        if one.state in ("not-satisfied", "not-applicable"):
            screen.say(f"{one.control}: {clean(one.why)}{_first(one.failed)}")
    screen.say(", ".join(f"{count} {state}" for state, count in sorted(counts.items())) + "; no evidence is no pass")
    for file in (asked.oscal, asked.sheet):
        if file is not None:
            screen.say(f"written  {clean(str(file))}")
    return code


def _first(failed: Sequence[int]) -> str:
    return f" (entry-{failed[0]}{', …' if len(failed) > 1 else ''})" if failed else ""


def _statements(asked: Asked, origin: str) -> tuple[Statement, ...]:
    if asked.statements is None:
        if asked.signers:
            raise Refused("--signer without --statements; give the file that they signed", kind="usage")
        return ()
    if not asked.signers:
        raise Refused("--statements needs --signer VKEY: whose statements count", kind="usage")
    try:
        data = asked.statements.read_bytes()
    except OSError as fault:
        raise Refused(f"{asked.statements}: cannot be read: {type(fault).__name__}", kind="usage") from fault
    return read(data, origin, [_key(text) for text in asked.signers], verify)


def _key(text: str) -> VerifierKey:
    try:
        return parse_vkey(text)
    except Malformed as fault:
        raise Refused(f"--signer {text!r}: {fault}; accepted: NAME+KEYID+KEY", kind="usage") from fault


def _write(file: Path, data: bytes) -> None:
    try:
        file.write_bytes(data)
    except OSError as fault:
        raise Refused(f"{file}: cannot be written: {fault.strerror}", kind="usage") from fault
