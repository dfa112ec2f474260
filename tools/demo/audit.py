"""The last act: one request is followed to its proof, and a stranger's look at the exported bundle, each step a command that
anyone can run. Then one bit of it is changed, and the verifier must refuse it."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.settings import Settings, process_environment
from schemas.errors import Unavailable

VERIFIER = Path(__file__).parents[1] / "verify_evidence.py"
ANSWERS = ("answer.released", "answer.withheld")


def audit(settings: Settings, request: str, out: Path) -> dict[str, Any]:
    """`ratchet trace`, `evidence export` with the proof of the request's answer, the verifier on it; what they said.

    Adds to the verifier's words `exit`, `followed` and `refused` (of the copy with one bit changed). The log must hold the request.
    Raises Unavailable where a command has no answer.
    """
    events = _said(settings, "trace", request)["events"]
    answer = next((row for row in events if row["type"] in ANSWERS), events[0])
    _said(settings, "evidence", "export", str(out), "--proof", answer["id"])
    said = verdict(out, settings.state_dir / "evidence.policy")
    followed = {"request": request, "event": answer["id"], "type": answer["type"], "index": answer["log_index"]}
    return said | {"followed": followed, "refused": _bit_refused(out, settings.state_dir / "evidence.policy")}


def accepted(said: Mapping[str, Any]) -> bool:
    """Whether the whole log was exported, verified, and refused with one bit changed."""
    return said.get("exit") == 0 and not said.get("missing") and bool(said.get("refused"))


def evidence_lines(report: Mapping[str, Any], bundle: Path) -> list[str]:
    """The last screen's lines about the evidence."""
    word = "[green]accepts[/]" if report["evidence_verified"] else "[red]rejects[/]"
    lines = [f"the offline verifier {word} the evidence in {bundle}"]
    followed = report["evidence_followed"]
    if followed:
        lines.append(
            f"{followed['type']} of {followed['request']} is entry {followed['index']}: `ratchet evidence prove "
            f"{followed['event']} --log {bundle}`"
        )
    if report["evidence_refused"]:
        lines.append(f"with one bit changed it says: {report['evidence_refused']}")
    return lines


def verdict(bundle: Path, policy: Path) -> dict[str, Any]:
    """What the offline verifier says, in a process of its own, with its `exit`. Raises Unavailable where it says nothing."""
    done = _run([sys.executable, "-I", str(VERIFIER), str(bundle), "--policy", str(policy), "--json"], None)
    try:
        said: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise Unavailable(f"the verifier said nothing: {done.stderr[-500:]}") from None
    return said | {"exit": done.returncode}


def _bit_refused(bundle: Path, policy: Path) -> str:
    """Why the bundle is refused with one bit of an entry changed; empty where it is not. The bundle is left as it was."""
    path = next(iter(sorted((bundle / "tile" / "entries").rglob("000*"))))
    path = next(iter(sorted(path.iterdir()))) if path.is_dir() else path
    data = path.read_bytes()
    changed = bytearray(data)
    changed[len(changed) // 2] ^= 1
    path.write_bytes(changed)
    try:
        said = verdict(bundle, policy)
    finally:
        path.write_bytes(data)
    return "" if said["exit"] != 1 else str(said["problems"][0])


def _said(settings: Settings, *words: str) -> dict[str, Any]:
    """What a command of ours says in JSON."""
    around = process_environment() | {"RATCHET_STATE_DIR": str(settings.state_dir)}
    done = _run([sys.executable, "-m", "tools.ratchet", *words, "--json"], around)
    try:
        said: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError:
        said = {}
    if done.returncode != 0:
        raise Unavailable(f"`ratchet {' '.join(words)}` ended with {done.returncode}: {done.stderr[-500:] or said}")
    return said


def _run(command: list[str], around: dict[str, str] | None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=around, cwd=Path(__file__).parents[2]
    )
