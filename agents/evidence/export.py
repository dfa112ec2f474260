"""What an auditor takes away: a folder made of the log, whole or one tenant's part of it.

A bundle is planned from one snapshot, its manifest's digest goes into the log as `export.made`, and the log is copied at a
checkpoint after that: the log's own signature vouches for every file, no second key is needed. The steps, with who waits:

1. `plan_all`, `plan_tenant`    every file but the log itself, and the manifest over them
2. the caller announces         `export.made` with the plan's digest
3. `announced`                  until the published checkpoint covers that entry
4. `write`                      log, files, proofs; under the final name only once all is there
"""

import re
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agents.evidence import attest
from agents.evidence.assess import Assessment
from agents.evidence.controls import sheet
from agents.evidence.coverage import COVERAGE, FINDING
from agents.evidence.log import CHECKPOINT, POLICY, export, tile_bytes
from agents.evidence.snapshot import Say, Snapshot, name_of, parsed, silent
from agents.evidence.trust import TRUST
from agents.evidence.violations import VIOLATION
from schemas import canonical
from schemas.errors import Refused
from schemas.ids import digest
from schemas.tlog import note, tiles

MANIFEST = "manifest.json"
OSCAL = "oscal.json"
CONTROLS = "controls.csv"
PROOFS = "proofs"
DISCLOSED = "disclosed"
OWN = frozenset({COVERAGE, FINDING, TRUST, VIOLATION})
"""Types of the collector's own entries: they belong to every tenant's bundle."""
_HEX = re.compile(r"[0-9a-f]{64}")

Fetch = Callable[[str], bytes | None]
"""The bytes whose SHA-256 this is, None where they are not kept (any more)."""


class Moved(Exception):
    """The log's keys or witnesses changed while a bundle was made: plan it again."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A bundle but for the log. `size` is that of the log it was planned from, `missing` what should be in it and is not kept."""

    origin: str
    size: int
    files: Mapping[str, bytes]
    proofs: Mapping[str, int]
    tenant: str | None = None
    tag: str | None = None
    missing: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return "full" if self.tenant is None else "tenant"

    @property
    def manifest(self) -> bytes:
        return canonical.encode(
            {
                "v": 1,
                "kind": "ratchet-evidence",
                "origin": self.origin,
                "tenant": self.tenant,
                "tag": self.tag,
                "files": {path: _sha256(data) for path, data in self.files.items()},
                "proofs": sorted(f"{name}.tlog-proof" for name in self.proofs),
            }
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest as hex: what `export.made` says."""
        return _sha256(self.manifest)


@dataclass(slots=True)
class _Attested:
    """The statements about entries of the log, picked up entry by entry."""

    folder: Path
    fetch: Fetch
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    missing: list[str] = field(default_factory=list[str])

    def take(self, index: int, entry: bytes, value: Mapping[str, Any]) -> None:
        kind = attest.kind_of(entry)
        if kind is not None:
            path = attest.path_of(index, kind)
            self._keep(path, _read(self.folder / path))
        elif value["type"] == "adapter.registered":
            name = str(value["facts"].get("adapter", "")).removeprefix("sha256:")
            if _HEX.fullmatch(name):
                self._keep(f"{attest.FOLDER}/adapter-{name}.dsse.json", self.fetch(name))

    def _keep(self, path: str, data: bytes | None) -> None:
        if data is None:
            self.missing.append(path)
        else:
            self.files[path] = data


def plan_all(log: Snapshot, fetch: Fetch, proofs: Mapping[str, int], say: Say = silent) -> Plan:
    """The bundle of the whole log: policy, statements, OSCAL results. Raises Moved, Unavailable for a log without records."""
    _belongs(log)
    attested, assessment = _Attested(log.folder, fetch), Assessment(log)
    for index, entry, value in assessment.entries(say):
        attested.take(index, entry, value)
    results = assessment.results()
    oscal = assessment.document(results)
    files = {POLICY: log.policy, OSCAL: oscal, CONTROLS: sheet(results)} | attested.files
    return Plan(log.checkpoint.origin, log.size, files, proofs, missing=tuple(attested.missing))


def plan_tenant(
    log: Snapshot, fetch: Fetch, proofs: Mapping[str, int], tenant: str, tag: str, say: Say = silent
) -> Plan:
    """The bundle of one tenant: policy and the statements about its entries. `tag` is how coverage names it. Raises Moved."""
    _belongs(log)
    attested = _Attested(log.folder, fetch)
    for index, entry in log.entries(say=say):
        value = parsed(entry)
        if value.get("tenant") == tenant:
            attested.take(index, entry, value)
    files = {POLICY: log.policy} | attested.files
    return Plan(log.checkpoint.origin, log.size, files, proofs, tenant, tag, tuple(attested.missing))


def tags_of(log: Snapshot, tenant: str, say: Say = silent) -> tuple[int, frozenset[str]]:
    """How many entries a tenant has, and the tags that may be its: those whose count is its own in every batch.

    Almost always one. More where other tenants had as many entries in each batch; then only the tenant's key tells.
    """
    total = ours = 0
    counts: dict[str, int] = {}
    wrong: set[str] = set()
    fits: set[str] | None = None
    closing = False

    def close() -> None:
        nonlocal fits
        if ours:
            matching = {tag for tag, count in counts.items() if count == ours} - wrong
            fits = matching if fits is None else fits & matching
        else:
            wrong.update(counts)
            fits = None if fits is None else fits - counts.keys()

    for _, entry in log.entries(say=say):
        value = parsed(entry)
        if value["type"] == "coverage":
            counts |= value["tenants"]
            closing = True
            continue
        if closing:
            close()
            total, ours, counts, closing = total + ours, 0, {}, False
        ours += value.get("tenant") == tenant
    if closing:
        close()
    return total + ours, frozenset(fits or ())


def chosen(log: Snapshot, names: Sequence[str], say: Say = silent, tenant: str | None = None) -> dict[str, int]:
    """The proofs to make: file name to index, of each named event its first entry. Raises Refused naming an unknown one."""
    found = log.find(names, say) if names else {}
    proofs: dict[str, int] = {}
    for name in names:
        places = found.get(name)
        if not places:
            raise Refused(f"the log has no event {name!r} among its {log.size:,} entries", kind="unknown-event")
        value = parsed(log.entry(places[0]))
        if tenant is not None and value.get("tenant") != tenant and value["type"] not in OWN:
            raise Refused(f"event {name!r} is not one of tenant {tenant}", kind="unknown-event")
        file = name_of(places[0], value)
        if proofs.setdefault(file, places[0]) != places[0]:
            raise Refused(f"two entries would have the proof {file}.tlog-proof: choose one of them", kind="usage")
    return proofs


def announced(log: Snapshot, digest: str, start: int) -> bool:
    """Whether an `export.made` entry with this digest stands at `start` or after."""
    mark = digest.encode()
    return any(
        mark in entry and (value := parsed(entry))["type"] == "export.made" and value["facts"].get("manifest") == digest
        for _, entry in log.entries(start)
    )


def write(log_dir: Path, plan: Plan, out: Path, say: Say = silent) -> note.Checkpoint:
    """Make the bundle at the checkpoint that is published now. Raises Moved; then nothing is left behind.

    `out` must not exist, or be an empty folder: it appears whole or not at all.
    """
    with beside(out) as temp:
        if plan.tenant is None:
            say("copying the log")
            export(log_dir, temp)
            log = Snapshot.open(temp)
        else:
            log = Snapshot.open(log_dir)
            if plan.tag not in tags_of(log, plan.tenant, say)[1]:
                raise Moved  # a tag that was taken for the tenant's no longer counts as it does
            _write_part(log, plan, temp, say)
        _belongs(log, plan.size)
        if log.policy != plan.files[POLICY]:
            raise Moved
        for path, data in (*plan.files.items(), (MANIFEST, plan.manifest)):
            _write(temp / path, data)
        for name, index in plan.proofs.items():
            _write(temp / PROOFS / f"{name}.tlog-proof", log.proof(index).encode())
    return log.checkpoint


def write_log(log_dir: Path, out: Path, proofs: Mapping[str, int], say: Say = silent) -> note.Checkpoint:
    """The log alone, at the checkpoint that is published now, with proofs. Raises Moved; then nothing is left behind."""
    with beside(out) as temp:
        say("copying the log")
        export(log_dir, temp)
        log = Snapshot.open(temp)
        _belongs(log)
        for name, index in proofs.items():
            _write(temp / PROOFS / f"{name}.tlog-proof", log.proof(index).encode())
    return log.checkpoint


def _belongs(log: Snapshot, start: int = 0) -> None:
    """Raise Moved where the policy is not the one that the last `trust` entry, from `start` on, names."""
    trusted = log.trusted_policy(start)
    if trusted is not None and trusted != _sha256(log.policy):
        raise Moved


def _write_part(log: Snapshot, plan: Plan, out: Path, say: Say) -> None:
    """The tenant's view: checkpoint, hash tiles, and of the entries those that are its business."""
    _write(out / CHECKPOINT, log.note)
    for tile in tiles.tiles_of(log.size):
        if tile.level is not None:
            _write(out / tile.path, tile_bytes(log.folder, tile))
    for first, entries in log.bundles():
        if first % 65_536 == 0:
            say(f"entry {first:,} of {log.size:,}")
        shown = [entry if _concerns(parsed(entry), plan) else b"" for entry in entries]
        if any(shown):
            tile = tiles.Tile(None, first // tiles.WIDTH, len(entries))
            _write(out / disclosed_path(tile), tiles.encode_bundle(shown))


def disclosed_path(tile: tiles.Tile) -> str:
    """Where a tenant's bundle holds what it discloses of an entry bundle; withheld entries have length 0 there."""
    return DISCLOSED + tile.path.removeprefix(f"tile/{tiles.ENTRIES}")


def _concerns(value: Mapping[str, Any], plan: Plan) -> bool:
    if value.get("tenant") == plan.tenant or value["type"] in OWN:
        return True
    return value["type"] == "export.made" and value["facts"].get("manifest") == plan.digest


@contextmanager
def beside(out: Path, mode: int = 0o777) -> Generator[Path]:
    """A folder beside `out` that takes its name at the end, and is gone when something goes wrong. `mode`: less the user's mask."""
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise Refused(f"{out} exists; give a folder that does not, or an empty one", kind="usage")
    temp = out.parent / f".{out.name}.partial"
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        temp.mkdir(mode)
    except FileExistsError as exc:
        raise Refused(
            f"{temp} stands there: another export is being made, or one was killed; remove it in that case",
            kind="usage",
        ) from exc
    try:
        yield temp
        temp.rename(out)
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _sha256(data: bytes) -> str:
    return digest(data).removeprefix("sha256:")
