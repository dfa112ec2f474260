"""`ratchet access`: all that the log holds of one person, with proofs, and why each of their requests was answered as it was.

The person's id goes nowhere: the log knows a pseudonym under the tenant's key. Texts are not in the log, so they are not in
what is written here either. That nothing of a tenant is left out, a tenant's bundle proves.
"""

import asyncio
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.evidence.export import beside
from agents.evidence.snapshot import Say, Snapshot, parsed
from schemas.errors import Refused
from schemas.payload import ID_PATTERN
from schemas.tlog.strict import encode_base64
from tools.cli.evidence import VERIFIER, open_log, pseudonym_of, write_proof
from tools.cli.explain import about, explanation, request_of
from tools.cli.screen import Exit, Screen, clean

ENTRIES, EXPLANATIONS, SUMMARY = "entries", "explanations", "access.json"
PAYLOADS = "texts are not in it: the log commits to them, and does not hold them; sealed payloads do not exist yet"
_PSEUDONYM = re.compile(r"[0-9a-f]{32}")
_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose entries. `pseudonym`: the subject is given as the log has it, and no key is needed."""

    subject: str
    tenant: str = "default"
    pseudonym: bool = False


def run(screen: Screen, asked: Asked, out: Path, folder: Path | None) -> int:
    """The command: `out` appears whole or not at all. Exit 1 where the log holds nothing of the person."""
    log = open_log(folder)
    subject = pseudonym_asked(asked)
    with screen.progress(f"reading {log.size:,} entries") as progress:
        found, requests = _gather(log, asked.tenant, subject, progress.say)
        if not found:
            words = f"the log holds no entry of this subject of tenant {asked.tenant!r} among its {log.size:,}"
            screen.line({"refused": words, "kind": "unknown-subject"}, f"[red]no[/]: {clean(words)}")
            return Exit.NO
        progress.say(f"writing {len(found)} entries")
        summary = _write(log, found, requests, out, {"tenant": asked.tenant, "subject": subject})
    if screen.as_json:
        screen.json({"written": str(out), **summary})
        return Exit.DONE
    place = clean(str(out))
    screen.say(
        f"[green]written[/]  {len(found)} entries of {len(requests)} requests of {subject} to {place}\n"
        f"holds    {ENTRIES}/NAME.json with its NAME.tlog-proof, {EXPLANATIONS}/REQUEST.json, {SUMMARY}\n"
        f"[yellow]lacks[/]    {PAYLOADS}\n"
        f"verify   python {VERIFIER} {place}/{ENTRIES}/NAME.tlog-proof --policy FILE"
    )
    return Exit.DONE


def pseudonym_asked(asked: Asked) -> str:
    """As the log has it. The id itself is never repeated."""
    if asked.pseudonym:
        if not _PSEUDONYM.fullmatch(asked.subject):
            raise Refused("the subject's pseudonym is not accepted: 32 digits and letters a to f", kind="usage")
        return asked.subject
    if not re.match(ID_PATTERN, asked.subject):
        raise Refused("the subject's id is not accepted: letters, digits, . _ - and at most 64 of them", kind="usage")
    return asyncio.run(pseudonym_of(asked.tenant, "subject", asked.subject))


def _gather(
    log: Snapshot, tenant: str, subject: str, say: Say
) -> tuple[dict[int, dict[str, Any]], dict[str, list[int]]]:
    """Entries by index: those that name the subject, and those about one of its requests. The requests with their entries."""
    mark = f'"subject":"{subject}"'.encode()
    found: dict[int, dict[str, Any]] = {}
    requests: dict[str, list[int]] = {}
    for index, entry in log.entries(say=say):
        if mark in entry and (value := parsed(entry)).get("subject") == subject and value.get("tenant") == tenant:
            found[index] = value
            if (request := request_of(value)) is not None:
                requests.setdefault(request, [])
    for index, value in about(log, requests, say):
        if value.get("tenant") == tenant and value.get("subject", subject) == subject:
            found[index] = dict(value)
            requests[str(request_of(value))].append(index)
    return dict(sorted(found.items())), requests


def _write(
    log: Snapshot, found: dict[int, dict[str, Any]], requests: dict[str, list[int]], out: Path, whose: dict[str, str]
) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    with beside(out) as temp:
        used: set[str] = set()
        for index, value in found.items():
            row = write_proof(log, index, temp / ENTRIES, _free(f"{value.get('id')}", index, used))
            rows.append(
                {name: row[name] for name in ("index", "name", "type", "place")} | {"request": request_of(value)}
            )
        (temp / EXPLANATIONS).mkdir()
        for request, indices in requests.items():
            said = explanation(log, request, [(index, found[index]) for index in indices])
            name = _free(request, indices[0], set())
            (temp / EXPLANATIONS / f"{name}.json").write_text(_text(said), encoding="utf-8")
        summary = whose | {
            "origin": log.checkpoint.origin,
            "size": log.size,
            "root": encode_base64(log.checkpoint.root),
            "requests": sorted(requests),
            "entries": rows,
            "payloads": PAYLOADS,
        }
        (temp / SUMMARY).write_text(_text(summary), encoding="utf-8")
    return summary


def _free(name: str, index: int, used: set[str]) -> str:
    """The name where it is a plain one and not taken: a dead letter has the id of the record that it holds."""
    found = name if _FILE.fullmatch(name) and name not in used else f"entry-{index}"
    used.add(found)
    return found


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
