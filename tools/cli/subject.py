"""`ratchet access`: all that the log holds of one person, with proofs, why each request was answered as it was, and the texts.

The person's id goes nowhere: the log knows a pseudonym under the tenant's key. Texts are not in the log: they are opened beside it, where
their keys can be. The export is recorded in the log before the folder appears: how many entries it holds, and how many there are.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from agents.evidence.export import beside
from agents.evidence.snapshot import Say, Snapshot, parsed
from schemas.errors import Refused
from schemas.events import ExportMade
from schemas.ids import digest
from schemas.payload import ID_PATTERN
from schemas.tlog.strict import encode_base64
from tools.cli import erased, evidence
from tools.cli.evidence import VERIFIER, open_log, pseudonym_of, write_proof
from tools.cli.explain import about, explanation, request_of
from tools.cli.screen import Exit, Progress, Screen, clean
from tools.cli.texts import Texts, open_texts

ENTRIES, EXPLANATIONS, TEXTS, SUMMARY = "entries", "explanations", "texts", "access.json"
ELSEWHERE = "texts lie sealed beside the log of the stack, not in an export of it"
UNRECORDED = "not recorded in the log"
_PSEUDONYM = re.compile(r"[0-9a-f]{32}")
_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
Found = Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Asked:
    """Whose entries. `pseudonym`: the subject is given as the log has it, and no key is needed. `record`: whether the log is told."""

    subject: str
    tenant: str = "default"
    pseudonym: bool = False
    record: bool = True
    by: str | None = None
    wait_s: float = 60


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
        expected = _expected(log, asked.tenant, subject, progress.say)
        texts = Texts(why=ELSEWHERE) if folder is not None else asyncio.run(open_texts(log.folder, found, progress.say))
        progress.say(f"writing {len(found)} entries")
        with beside(out, 0o700) as temp:
            summary = _write(log, found, requests, texts, temp, {"tenant": asked.tenant, "subject": subject})
            files = _digests(temp)
            data = _text(summary | {"files": files}).encode()
            (temp / SUMMARY).write_bytes(data)
            manifest = digest(data).removeprefix("sha256:")
            counts = {"files": 1 + len(files), "entries": len(summary["entries"]), "expected": expected}
            recorded = folder is None and asked.record
            by = _told(log, asked, {"manifest": manifest, **counts}, progress) if recorded else ""
    summary |= {"manifest": manifest, "expected": expected, "recorded_by": by}
    if screen.as_json:
        screen.json({"written": str(out), **summary})
        return Exit.DONE
    _say(screen, out, summary)
    return Exit.DONE


def _say(screen: Screen, out: Path, summary: Mapping[str, Any]) -> None:
    place, texts = clean(str(out)), summary["texts"]
    screen.say(
        f"[green]written[/]  {len(summary['entries'])} entries of {len(summary['requests'])} requests of {summary['subject']} to {place}\n"
        f"holds    {ENTRIES}/NAME.json with its NAME.tlog-proof, {EXPLANATIONS}/REQUEST.json, {TEXTS}/NAME.json, {SUMMARY}"
    )
    for row in summary["purposes"]:
        screen.say(
            f"purpose  {clean(row['purpose'])}, on the legal basis {clean(row['legal_basis'])}: {row['requests']} requests"
        )
    for row in summary["erased"]:
        screen.say(f"[yellow]erased[/]   {clean(row['words'])}")
    shut = f"; the others are closed: {clean(texts['why'])}" if texts["why"] else ""
    screen.say(
        f"texts    {texts['opened']} opened, {texts['erased']} erased, {texts['not_kept']} not kept any more{shut}"
    )
    recorded = f"manifest {summary['manifest']}, recorded by {clean(summary['recorded_by'])}"
    screen.say(
        recorded if summary["recorded_by"] else f"[yellow]{UNRECORDED}[/]: nobody can show later what was handed out"
    )
    screen.say(f"verify   python {VERIFIER} {place}/{ENTRIES}/NAME.tlog-proof --policy FILE")


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


def _expected(log: Snapshot, tenant: str, subject: str, say: Say) -> int:
    """How many entries there are, counted another way: every entry is read whole, whatever its bytes look like."""
    named: set[str] = set()
    ours = 0
    unnamed: Counter[str] = Counter()
    for _, entry in log.entries(say=say):
        value = parsed(entry)
        if value.get("tenant") != tenant:
            continue
        request = request_of(value)
        if value.get("subject") == subject:
            ours += 1
            named |= set() if request is None else {request}
        elif "subject" not in value and request is not None:
            unnamed[request] += 1
    return ours + sum(unnamed[request] for request in named)


def _told(log: Snapshot, asked: Asked, made: Mapping[str, Any], progress: Progress) -> str:
    """Have the log record what is handed out; by whom."""
    event = partial(ExportMade, tenant=asked.tenant, kind="subject", **made)
    who = evidence.Asked(by=asked.by, wait_s=asked.wait_s)
    instead = "--unrecorded writes it without a trace in the log"
    return asyncio.run(evidence.announce(log.folder, event, log.size, who, progress, instead))


def _write(
    log: Snapshot, found: Found, requests: Mapping[str, list[int]], texts: Texts, temp: Path, whose: dict[str, str]
) -> dict[str, Any]:
    """Every file but the summary, which is returned."""
    receipts = erased.receipts(log, whose["tenant"], whose["subject"])
    rows: list[dict[str, Any]] = []
    used: set[str] = set()
    for index, value in found.items():
        row = write_proof(log, index, temp / ENTRIES, _free(f"{value.get('id')}", index, used))
        if index in texts.opened:
            (temp / TEXTS).mkdir(exist_ok=True)
            (temp / TEXTS / f"{row['name']}.json").write_bytes(texts.opened[index])
        rows.append({name: row[name] for name in ("index", "name", "type", "place")} | {"request": request_of(value)})
    (temp / EXPLANATIONS).mkdir()
    for request, indices in requests.items():
        said = explanation(log, request, [(index, found[index]) for index in indices], receipts)
        name = _free(request, indices[0], set())
        (temp / EXPLANATIONS / f"{name}.json").write_text(_text(said), encoding="utf-8")
    return whose | {
        "origin": log.checkpoint.origin,
        "size": log.size,
        "root": encode_base64(log.checkpoint.root),
        "requests": sorted(requests),
        "entries": rows,
        "purposes": _purposes(found.values()),
        "erased": [{"entry": one.index, "day": one.day, "words": erased.words(one)} for one in receipts],
        "texts": texts.as_json(),
    }


def _purposes(values: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For what the person's requests were made, and on which basis, as the gate took them."""
    by_request: dict[str, tuple[str, str]] = {}
    for value in values:
        said: Mapping[str, Any] = value.get("facts", {}).get("gate") or {}
        if said.get("purpose") and value.get("type") in ("decision.routed", "answer.refused"):
            by_request[str(request_of(value))] = said["purpose"], said.get("legal_basis") or "that is not recorded"
    counts = Counter(by_request.values())
    return [
        {"purpose": purpose, "legal_basis": basis, "requests": count}
        for (purpose, basis), count in sorted(counts.items())
    ]


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): digest(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _free(name: str, index: int, used: set[str]) -> str:
    """The name where it is a plain one and not taken: a dead letter has the id of the record that it holds."""
    found = name if _FILE.fullmatch(name) and name not in used else f"entry-{index}"
    used.add(found)
    return found


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"
