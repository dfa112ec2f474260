"""`ratchet evidence`: prove, sample and export the log, verify an export without any server.

All but a whole export read the log's folder alone. That one asks Kafka to have the bundle recorded before it is written.
"""

import asyncio
import contextlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from agents.evidence import export as bundles
from agents.evidence.snapshot import Snapshot, name_of, parsed
from infra.artifacts import ArtifactCorrupt, DirectoryStore
from schemas.errors import Refused, Unavailable
from schemas.events import ExportMade
from schemas.tlog.note import Checkpoint
from schemas.tlog.strict import encode_base64
from streams.facts import Facts
from tools.cli.bus import now_ms
from tools.cli.place import open_broker, privacy_settings, settings, state_file, voice
from tools.cli.screen import Exit, Progress, Screen, clean

LOG = "evidence"  # in the state folder
POLICY = "evidence.policy"  # beside it: what is handed to auditors by another way
VERIFIER = "verify_evidence.py"
PLANS = 3
LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Asked:
    """What kind of export, and who makes it."""

    tenant: str | None = None
    log_only: bool = False
    proofs: Sequence[str] = ()
    by: str | None = None
    wait_s: float = 60


def verify(screen: Screen, target: Path, policy: Path | None) -> int:
    """The offline verifier's word, unchanged: it is the one file that auditors are given. As JSON on one line, as all others."""
    from tools import verify_evidence

    if not target.exists():
        raise Refused(
            f"{target} does not exist; give a folder that `ratchet evidence export` wrote, or a .tlog-proof file",
            kind="usage",
        )
    arguments = [str(target), *(["--policy", str(policy)] if policy is not None else [])]
    if not screen.as_json:
        return verify_evidence.main(arguments)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = verify_evidence.main([*arguments, "--json"])
    if said.getvalue():  # nothing where a package that it needs is missing
        screen.json(json.loads(said.getvalue()))
    return code


def prove(screen: Screen, event: str, out: Path, folder: Path | None) -> int:
    """Write an entry and its proof: two files that the verifier takes."""
    log = open_log(folder)
    with screen.progress(f"looking for {event} among {log.size:,} entries") as progress:
        found = log.find([event], progress.say) or log.begins(event, progress.say)
    if len(found) > 1:
        words = f"{len(found)} events begin with {event!r}: {', '.join(sorted(found)[:5])}; give more of the one that is meant"
        screen.line({"refused": words, "kind": "ambiguous-event"}, f"[red]no[/]: {clean(words)}")
        return Exit.NO
    if not found:
        return _unknown(screen, event, log)
    (places,) = found.values()
    row = write_proof(log, places[0], out)
    row |= {"origin": log.checkpoint.origin, "size": log.size, "root": encode_base64(log.checkpoint.root)}
    if screen.as_json:
        screen.json(row | {"also": places[1:]})
        return Exit.DONE
    screen.say(
        f"entry    {row['index']} of {log.size} in {clean(log.checkpoint.origin)}\n"
        f"what     {clean(row['type'])} {clean(row['place'])}\n"
        f"root     {row['root']}\n"
        f"written  {clean(row['proof'])}, {clean(row['entry'])}\n"
        f"verify   python {VERIFIER} {clean(row['proof'])} --policy FILE{_policy_words()}"
    )
    if places[1:]:
        more = ", ".join(f"entry-{index}" for index in places[1:])
        screen.say(f"[yellow]also[/]     the same id stands at {more}: prove them by these names")
    return Exit.DONE


def sample(screen: Screen, folder: Path | None, count: int, seed: str, out: Path | None) -> int:
    """Entries that chance picks, by the log's root and the auditor's seed: nobody can have chosen them."""
    log = open_log(folder)
    with screen.progress(f"drawing {count} of {log.size:,} entries") as progress:
        rows: list[dict[str, Any]] = []
        for number, index in enumerate(log.sample(count, seed)):
            rows.append(described(log, index) if out is None else write_proof(log, index, out))
            progress.say(f"{number + 1} of {count}")
    said = {"origin": log.checkpoint.origin, "size": log.size, "root": encode_base64(log.checkpoint.root), "seed": seed}
    if screen.as_json:
        screen.json(said | {"sample": rows})
        return Exit.DONE
    screen.say(
        f"{len(rows)} of {log.size} entries of {clean(log.checkpoint.origin)}, drawn by root {said['root']} and seed"
    )
    screen.table("", ("index", "name", "type", "where"), [(r["index"], r["name"], r["type"], r["place"]) for r in rows])
    if out is not None:
        screen.say(f"proofs in {clean(str(out))}: python {VERIFIER} {clean(str(out))}/NAME.tlog-proof --policy FILE")
    return Exit.DONE


def findings(screen: Screen, folder: Path | None) -> int:
    """What the collector found wrong, as the log says it, with the controls that it violates. Exit 1 where there is something."""
    log = open_log(folder)
    found: list[tuple[int, Mapping[str, Any]]] = []
    violated: dict[int, tuple[int | None, list[str]]] = {}
    with screen.progress(f"reading {log.size:,} entries") as progress:
        for index, entry in log.entries(say=progress.say):
            if b'"type":"finding"' in entry or b'"type":"violation"' in entry:
                value = parsed(entry)
                if value.get("type") == "finding":
                    found.append((index, value))
                elif value.get("type") == "violation":  # of the entry before it
                    violated[index - 1] = index, value["controls"]
    for index, value in found:
        at, controls = violated.get(index, (None, list[str]()))
        said = {name: item for name, item in value.items() if name not in ("v", "type")}
        source: Mapping[str, Any] = value.get("src", {})
        where = f" {source['topic']}[{source['partition']}] offsets {value['from']} to {value['to']}" if source else ""
        violates = f", violates {', '.join(controls)} (entry {at})" if controls else ""
        screen.line(
            {"index": index, **said, "violates": controls, "violation": at},
            f"entry {index}: [yellow]{clean(str(value['kind']))}[/]{clean(where)}{clean(violates)}",
        )
    if not found:
        screen.say(f"no finding among {log.size} entries")
    return Exit.NO if found else Exit.DONE


def export(screen: Screen, out: Path, asked: Asked) -> int:
    """A bundle under `out`, whole or not at all."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Refused(f"{out} exists; give a folder that does not, or an empty one", kind="usage")
    if asked.log_only and asked.tenant is not None:
        raise Refused("--log-only gives every tenant's entries: leave out --tenant, or --log-only", kind="usage")
    folder = log_folder()
    with screen.progress(f"exporting to {out}") as progress:
        for _ in range(PLANS):
            try:
                return _export(screen, folder, out, asked, progress)
            except bundles.Moved:
                progress.say("keys or witnesses of the log changed meanwhile: beginning again")
            except Refused as fault:
                if fault.kind != "unknown-event":
                    raise
                screen.line({"refused": str(fault), "kind": fault.kind}, f"[red]no[/]: {clean(str(fault))}")
                return Exit.NO
    raise Unavailable(
        f"the log's keys changed {PLANS} times while it was exported: try again once the rotation is over"
    )


def _export(screen: Screen, folder: Path, out: Path, asked: Asked, progress: Progress) -> int:
    log, say = open_log(None), progress.say
    if asked.log_only:
        proofs = bundles.chosen(log, asked.proofs, say)
        checkpoint = bundles.write_log(folder, out, proofs, say)
        _say_exported(screen, out, checkpoint, {"kind": "log", "proofs": sorted(proofs)})
        return Exit.DONE
    fetch = _fetch(DirectoryStore(settings().state_dir / "artifacts"))
    proofs = bundles.chosen(log, asked.proofs, say, asked.tenant)
    if asked.tenant is None:
        plan = bundles.plan_all(log, fetch, proofs, say)
    else:
        count, tags = bundles.tags_of(log, asked.tenant, say)
        if not count:
            words = f"the log holds no entry of tenant {asked.tenant!r}"
            screen.line({"refused": words, "kind": "unknown-tenant"}, f"[red]no[/]: {clean(words)}")
            return Exit.NO
        tag = next(iter(tags)) if len(tags) == 1 else asyncio.run(pseudonym_of(asked.tenant, "tenant", asked.tenant))
        if tag not in tags:
            raise Refused(f"the log's coverage does not count the entries of tenant {asked.tenant}", kind="log-damaged")
        plan = bundles.plan_tenant(log, fetch, proofs, asked.tenant, tag, say)
    kind: Literal["full", "tenant"] = "full" if plan.tenant is None else "tenant"
    made = partial(ExportMade, tenant=plan.tenant or "default", manifest=plan.digest, kind=kind, files=len(plan.files))
    by = asyncio.run(
        announce(folder, made, plan.size, asked, progress, "--log-only exports the log alone, as it is signed")
    )
    checkpoint = bundles.write(folder, plan, out, say)
    more: dict[str, Any] = {"kind": plan.kind, "manifest": plan.digest, "by": by, "files": sorted(plan.files)}
    more |= {"proofs": sorted(plan.proofs), "missing": list(plan.missing)}
    _say_exported(screen, out, checkpoint, more | ({} if plan.tenant is None else {"tenant": plan.tenant}))
    return Exit.DONE


async def announce(
    folder: Path, made: Callable[..., ExportMade], size: int, asked: Asked, progress: Progress, instead: str
) -> str:
    """Have `export.made` recorded and wait until the published checkpoint, of more than `size` entries, covers it. Who made it.

    `made` lacks who and when. `instead`: what works without Kafka.
    """
    progress.say("telling the log of the export")
    try:
        by = (await voice("operator", asked.by)).name
        event = made(at_ms=now_ms(), by=by)
        facts = Facts(await open_broker(), "cli")
        try:
            await facts.send(event, event.manifest)
        finally:
            await facts.stop()
    except Unavailable as fault:
        raise Unavailable(f"{fault}. An export is recorded in the log before it is written; {instead}") from fault
    loop, seen = asyncio.get_running_loop(), size
    deadline = loop.time() + asked.wait_s
    while True:
        log = Snapshot.open(folder)
        if bundles.announced(log, event.manifest, seen):
            return by
        seen = log.size
        if loop.time() > deadline:
            raise Unavailable(
                f"the export was announced, and no signed checkpoint covers it after {asked.wait_s:g} s: the evidence agent "
                f"does not run, is behind (--wait SECONDS) or cannot sign; `ratchet status` says which. Else {instead}"
            )
        progress.say(f"waiting for the log to record the export; it has {log.size:,} entries")
        await asyncio.sleep(LOOK_S)


async def pseudonym_of(tenant: str, label: str, identifier: str) -> str:
    """A pseudonym under the tenant's key, as the collector and the router make them."""
    from agents.evidence.record import pseudonym
    from agents.wiring import TenantKeys
    from infra.secrets import open_secrets

    secrets = await open_secrets(privacy_settings(), lambda _: None)
    try:
        keys = TenantKeys(await secrets.commitment_key("tenants"))
    finally:
        await secrets.close()
    return pseudonym(keys.pseudonym_key(tenant), label, identifier)


def _say_exported(screen: Screen, out: Path, checkpoint: Checkpoint, more: Mapping[str, Any]) -> None:
    row = {"exported": str(out), "origin": checkpoint.origin, "size": checkpoint.size}
    if screen.as_json:
        screen.json(row | {"root": encode_base64(checkpoint.root)} | dict(more))
        return
    place = clean(str(out))
    screen.say(f"[green]exported[/] {checkpoint.size} entries of {clean(checkpoint.origin)} to {place}")
    if more["kind"] == "log":
        screen.say(
            "[yellow]the log alone[/]: no manifest, statements or control results, and the log does not know of it"
        )
    else:
        whose = f" for tenant {clean(more['tenant'])}, all other entries withheld" if "tenant" in more else ""
        screen.say(
            f"manifest {more['manifest']}, recorded by {clean(more['by'])}{whose}\n"
            f"holds    {', '.join(map(clean, more['files']))}"
        )
    if more["proofs"]:
        screen.say(f"proofs   {', '.join(map(clean, more['proofs']))}")
    if more.get("missing"):
        screen.say(f"[yellow]lacks[/]    {', '.join(map(clean, more['missing']))}: not signed yet, or not kept here")
    screen.say(f"verify   python {VERIFIER} {place} --policy FILE{_policy_words()}")


def open_log(folder: Path | None) -> Snapshot:
    """The log that runs here, or the one in an exported folder. Raises `Refused` where there is no such folder."""
    if folder is not None and not folder.is_dir():
        raise Refused(
            f"{folder} is no folder; give one that `ratchet evidence export` wrote, or none for the log that runs here",
            kind="usage",
        )
    return Snapshot.open(log_folder() if folder is None else folder)


def log_folder() -> Path:
    """Where the log of the stack lies. Raises `Unavailable`."""
    found = settings().state_dir / LOG
    if not found.is_dir():
        raise Unavailable(f"there is no evidence log at {found}: the evidence agent writes it, `ratchet up` starts it")
    return found


def described(log: Snapshot, index: int) -> dict[str, Any]:
    """An entry in a few words."""
    value = parsed(log.entry(index))
    source = value.get("src", {})
    place = f"{source['topic']}[{source['partition']}]@{source['offset']}" if "offset" in source else "the log's own"
    return {"index": index, "name": name_of(index, value), "type": str(value.get("type")), "place": place}


def write_proof(log: Snapshot, index: int, out: Path, name: str | None = None) -> dict[str, Any]:
    """NAME.json, the entry's bytes, and NAME.tlog-proof; what they are about."""
    row = described(log, index)
    row["name"] = row["name"] if name is None else name
    entry, proof = out / f"{row['name']}.json", out / f"{row['name']}.tlog-proof"
    out.mkdir(parents=True, exist_ok=True)
    entry.write_bytes(log.entry(index))
    proof.write_bytes(log.proof(index).encode())
    return row | {"proof": str(proof), "entry": str(entry)}


def _fetch(store: DirectoryStore) -> bundles.Fetch:
    def fetch(name: str) -> bytes | None:
        try:
            return store.get_bytes(f"sha256:{name}")
        except (Unavailable, ArtifactCorrupt):
            return None

    return fetch


def _unknown(screen: Screen, event: str, log: Snapshot) -> int:
    words = (
        f"the log has no event {event!r} among its {log.size:,} entries; `ratchet trace REQUEST` shows a request's event ids, and "
        "what was written a moment ago is signed within a second"
    )
    screen.line({"refused": words, "kind": "unknown-event", "event": event}, f"[red]no[/]: {clean(words)}")
    return Exit.NO


def _policy_words() -> str:
    """Which file that is, on the machine of the log."""
    own = next((path for path in (state_file(POLICY), state_file(LOG) / "policy.txt") if path.exists()), None)
    return (
        ""
        if own is None
        else f"\n         FILE is the log's policy, got by another way; this stack's is {clean(str(own))}"
    )
