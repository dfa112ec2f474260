"""Check an exported evidence log without trusting those who made it.

    python verify_evidence.py DIR [--policy FILE] [--json]

One file, to be read and carried alone: the standard library and `cryptography`. It shares no code with the collector,
on purpose. Give `--policy`, a file that you got from the operator by another way than the export: without it the keys
in the export itself are used, which shows only that the export agrees with itself.

Checked: no file is unknown or missing; keys; the checkpoint's signature; every entry against its hash tile, every tile
against the tiles below it, the root against the checkpoint; that each entry is canonical JSON; that per topic partition
every offset, from the first to the frontier, is one entry or one skip with its reason, once.

Exit: 0 valid, 1 not valid, 2 used wrongly, 3 the library is missing.
"""

import argparse
import base64
import binascii
import functools
import hashlib
import importlib.util
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SKIP_KINDS = {
    "marker": "a transaction marker of the broker",
    "aborted": "a record of an aborted transaction",
    "compacted": "removed by compaction (a compacted topic)",
    "marker-or-aborted": "a marker or an aborted record: the reader did not tell them apart",
    "marker-aborted-or-compacted": "a marker, an aborted or a compacted record: the reader did not tell them apart",
    "before-first-read": "before the log's first read of this partition (a finding)",
    "lost": "evicted before it was read (a finding)",
    "unknown": "nobody knows (a finding)",
}
NEED_FINDING = {"before-first-read": "range-unread", "lost": "range-lost", "unknown": "offset-gap"}
OWN_TYPES = {"coverage", "finding"}
MAX_PROBLEMS = 50
WIDTH = 256
FIELD = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
CURVE_D = -121665 * pow(121666, FIELD - 2, FIELD) % FIELD


class Invalid(Exception):
    """The export is not valid; the message says where and why."""


@dataclass(frozen=True)
class Key:
    name: str
    key_id: bytes
    point: bytes


@dataclass
class Partition:
    """What the coverage entries say of one topic partition, and what was seen since."""

    first: int = 0
    next: int = 0
    entries: int = 0
    skips: Counter[str] = field(default_factory=Counter[str])
    pending: list[int] = field(default_factory=list[int])
    known: bool = False


@dataclass
class Report:
    """What was checked and what was found. Valid when there is no problem."""

    trust: str
    origin: str = ""
    size: int = 0
    root: str = ""
    keys: list[str] = field(default_factory=list[str])
    types: Counter[str] = field(default_factory=Counter[str])
    partitions: dict[str, Partition] = field(default_factory=dict[str, Partition])
    findings: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    problems: list[str] = field(default_factory=list[str])

    @property
    def valid(self) -> bool:
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        return {
            "valid": self.valid,
            "problems": self.problems,
            "trust": self.trust,
            "first_look_key": self.origin.startswith("dev."),
            "origin": self.origin,
            "size": self.size,
            "root": self.root,
            "keys": self.keys,
            "witnesses": [],
            "types": dict(sorted(self.types.items())),
            "partitions": {
                place: {
                    "from": state.first,
                    "next": state.next,
                    "entries": state.entries,
                    "skips": dict(sorted(state.skips.items())),
                }
                for place, state in sorted(self.partitions.items())
            },
            "findings": self.findings,
        }


# spelling


def from_base64(text: str, what: str) -> bytes:
    """Base64 in its only spelling: spare bits would hide changes."""
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError) as exc:
        raise Invalid(f"{what}: not base64") from exc
    if base64.b64encode(data).decode("ascii") != text:
        raise Invalid(f"{what}: base64 in another spelling than the one it has")
    return data


def from_decimal(text: str, what: str) -> int:
    if not re.fullmatch(r"0|[1-9][0-9]{0,17}", text):
        raise Invalid(f"{what}: {text!r} is not a plain decimal number")
    return int(text)


# keys


def curve_add(left: tuple[int, int], right: tuple[int, int]) -> tuple[int, int]:
    """Affine addition on edwards25519 (RFC 8032, 5.1.4); slow and plain."""
    (x1, y1), (x2, y2) = left, right
    product = CURVE_D * x1 * x2 * y1 * y2 % FIELD
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, FIELD) % FIELD
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, FIELD) % FIELD
    return x, y


@functools.cache
def check_point(data: bytes, what: str) -> None:
    """A key's point must be canonical, on the curve and of order exactly L: others fit messages they never signed."""
    value = int.from_bytes(data, "little")
    sign, y = value >> 255, value % 2**255
    if y >= FIELD:
        raise Invalid(f"{what}: the key is not canonical")
    square = (y * y - 1) * pow(CURVE_D * y * y + 1, -1, FIELD) % FIELD
    x = pow(square, (FIELD + 3) // 8, FIELD)
    if (x * x - square) % FIELD:
        x = x * pow(2, (FIELD - 1) // 4, FIELD) % FIELD
    if (x * x - square) % FIELD or (x == 0 and sign):
        raise Invalid(f"{what}: the key is not a point of the curve")
    if x % 2 != sign:
        x = FIELD - x
    total, power, scalar = (0, 1), (x, y), ORDER
    while scalar:
        if scalar % 2:
            total = curve_add(total, power)
        power = curve_add(power, power)
        scalar //= 2
    if (x, y) == (0, 1) or total != (0, 1):
        raise Invalid(f"{what}: the key is a point of low or mixed order")


def parse_key(text: str) -> Key:
    """A verifier key `name+id+base64`, Ed25519 only."""
    match = re.fullmatch(r"([^\s+]+)\+([0-9a-f]{8})\+(\S+)", text)
    if match is None:
        raise Invalid("policy: not a verifier key")
    name = match[1]
    data = from_base64(match[3], f"key of {name}")
    if len(data) != 33 or data[0] != 1:
        raise Invalid(f"key of {name}: not Ed25519")
    expected = hashlib.sha256(name.encode() + b"\n" + data).digest()[:4]
    if expected.hex() != match[2]:
        raise Invalid(f"key of {name}: its id is not that of the key")
    check_point(data[1:], f"key of {name}")
    return Key(name, expected, data[1:])


def parse_policy(text: str, *, strict: bool) -> list[Key]:
    """The log keys of a tlog-policy without witnesses. `strict`: one spelling, as an export must have it."""
    keys: list[Key] = []
    quorum = False
    lines = text.split("\n")
    if strict and lines.pop() != "":
        raise Invalid("policy.txt: no newline at the end")
    for line in lines:
        words = line.split(" ") if strict else line.split()
        if not strict and (not words or words[0].startswith("#")):
            continue
        if words[0] == "log" and (len(words) == 2 or (len(words) == 3 and not strict)):
            key = parse_key(words[1])
            if any(known.point == key.point for known in keys):
                raise Invalid("policy: one key stands twice")
            keys.append(key)
        elif words == ["quorum", "none"] and not quorum:
            quorum = True
        else:
            raise Invalid(f"policy: cannot read {line[:40]!r}; known: log <vkey>, quorum none (no witnesses yet)")
    if not quorum or not keys:
        raise Invalid("policy: needs a log line and a quorum line")
    return keys


# checkpoint


def parse_checkpoint(data: bytes, keys: list[Key]) -> tuple[str, int, bytes, list[Key]]:
    """Origin, size, root and signers. Every signature line must be by a known key and verify."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise Invalid("checkpoint: not UTF-8") from exc
    match = re.fullmatch(r"(([^\s+]+)\n([0-9]+)\n([A-Za-z0-9+/]{43}=)\n)\n((?:\u2014 [^\s+]+ \S+\n)+)", text)
    if match is None:
        raise Invalid("checkpoint: not origin, size, root, empty line, signature lines")
    body, origin = match[1], match[2]
    size = from_decimal(match[3], "checkpoint size")
    root = from_base64(match[4], "checkpoint root")
    signers: list[Key] = []
    for line in match[5][:-1].split("\n"):
        _, name, encoded = line.split(" ")
        signature = from_base64(encoded, f"signature of {name}")
        found = [key for key in keys if key.name == name and key.key_id == signature[:4]]
        if not found or name != origin:
            raise Invalid(
                f"checkpoint: {name!r} with key id {signature[:4].hex()} is no key of the policy for {origin!r}"
            )
        try:
            Ed25519PublicKey.from_public_bytes(found[0].point).verify(signature[4:], body.encode())
        except InvalidSignature as exc:
            raise Invalid(f"checkpoint: the signature of {name} does not verify") from exc
        if found[0] in signers:
            raise Invalid(f"checkpoint: {name} signed twice")
        signers.append(found[0])
    return origin, size, root, signers


# tiles


def tile_path(level: str, number: int, width: int = WIDTH) -> str:
    digits = f"{number:03d}" if number < 1000 else ""
    if not digits:
        text = str(number)
        text = text.zfill(-(-len(text) // 3) * 3)
        groups = [text[at : at + 3] for at in range(0, len(text), 3)]
        digits = "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])
    return f"tile/{level}/{digits}" + ("" if width == WIDTH else f".p/{width}")


def expected_files(size: int) -> set[str]:
    names = {"checkpoint", "policy.txt"}
    rows = [("entries", size)]
    level = 0
    while size >> (8 * level):
        rows.append((str(level), size >> (8 * level)))
        level += 1
    for name, count in rows:
        full, part = divmod(count, WIDTH)
        names.update(tile_path(name, number) for number in range(full))
        if part:
            names.add(tile_path(name, full, part))
    return names


def files_of(directory: Path) -> Iterator[str]:
    """Every name under the folder; whatever is not a plain file or a folder that holds some is refused."""
    for item in sorted(directory.iterdir()):
        if item.is_symlink() or not (item.is_file() or item.is_dir()):
            raise Invalid(f"{item.name}: neither a file nor a folder")
        if item.is_dir():
            names = list(files_of(item))
            if not names:
                raise Invalid(f"{item.name}: an empty folder")
            yield from (f"{item.name}/{name}" for name in names)
        else:
            yield item.name


def check_files(directory: Path, size: int) -> None:
    present, expected = set(files_of(directory)), expected_files(size)
    for names, what in ((present - expected, "unknown file"), (expected - present, "missing file")):
        if names:
            raise Invalid(
                f"{what}: {', '.join(sorted(names)[:5])}" + (f" and {len(names) - 5} more" * (len(names) > 5))
            )


def pair_up(row: list[bytes]) -> bytes:
    """The RFC 6962 root over a row of subtree hashes of equal height (the last ones may be missing)."""
    if len(row) == 1:
        return row[0]
    split = 1 << (len(row) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + pair_up(row[:split]) + pair_up(row[split:])).digest()


class Tree:
    """Rebuilds every tile from the leaves up, one open tile per level."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._rows: list[list[bytes]] = []
        self._numbers: list[int] = []

    def add(self, value: bytes, level: int = 0) -> None:
        if level == len(self._rows):
            self._rows.append([])
            self._numbers.append(0)
        row = self._rows[level]
        row.append(value)
        if len(row) == WIDTH:
            self._check(level, row)
            self._rows[level] = []
            self._numbers[level] += 1
            self.add(pair_up(row), level + 1)

    def root(self) -> bytes:
        """The root, after the partial tiles at the right edge were checked."""
        right: bytes | None = None
        for level, row in enumerate(self._rows):
            if row:
                self._check(level, row)
                right = self._join(row, right)
        return right if right is not None else hashlib.sha256(b"").digest()

    def _check(self, level: int, row: list[bytes]) -> None:
        name = tile_path(str(level), self._numbers[level], len(row))
        if (self._directory / name).read_bytes() != b"".join(row):
            raise Invalid(f"{name}: not the hashes of what lies below it")

    @staticmethod
    def _join(row: list[bytes], right: bytes | None) -> bytes:
        """This level's subtrees, largest first, with the smaller tree to their right."""
        parts: list[bytes] = []
        at = 0
        while at < len(row):
            step = 1 << (len(row) - at).bit_length() - 1
            parts.append(pair_up(row[at : at + step]))
            at += step
        if right is not None:
            parts.append(right)
        result = parts.pop()
        while parts:
            result = hashlib.sha256(b"\x01" + parts.pop() + result).digest()
        return result


def entries_of(directory: Path, size: int) -> Iterator[bytes]:
    for number in range(-(-size // WIDTH)):
        width = min(WIDTH, size - number * WIDTH)
        name = tile_path("entries", number, width)
        data = (directory / name).read_bytes()
        at = 0
        for _ in range(width):
            end = at + 2 + int.from_bytes(data[at : at + 2], "big")
            if end > len(data) or at + 2 > len(data):
                raise Invalid(f"{name}: ends inside an entry")
            yield data[at + 2 : end]
            at = end
        if at != len(data):
            raise Invalid(f"{name}: bytes after the last entry")


# entries


def whole_number(text: str) -> int:
    value = int(text)
    if abs(value) >= 2**53:
        raise ValueError("integer beyond 2^53 - 1")
    return value


def no_float(text: str) -> float:
    raise ValueError(f"{text} is not an integer")


def ascii_keys(value: Any) -> bool:
    if isinstance(value, dict):
        return all(key.isascii() and ascii_keys(item) for key, item in value.items())  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType, reportUnknownArgumentType]
    return not isinstance(value, list) or all(ascii_keys(item) for item in value)  # pyright: ignore[reportUnknownVariableType]


def parse_entry(data: bytes) -> dict[str, Any]:
    """A canonical (RFC 8785) JSON object without floats."""
    try:
        value = json.loads(data, parse_float=no_float, parse_constant=no_float, parse_int=whole_number)
        again = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8")
    except (ValueError, RecursionError) as exc:
        raise Invalid("not canonical JSON") from exc
    if again != data or not isinstance(value, dict) or not (data.isascii() or ascii_keys(value)):
        raise Invalid("not canonical JSON: encoding it again gives other bytes")
    return value  # pyright: ignore[reportUnknownVariableType]


class Completeness:
    """Follows the entries and holds the coverage entries to them."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._announced: set[tuple[str, str, int, int]] = set()

    def take(self, entry: dict[str, Any]) -> None:
        kind = entry["type"]
        if entry["v"] != 1 or not isinstance(kind, str):
            raise Invalid(f"version {entry['v']!r}; known: 1")
        self._report.types[kind] += 1
        if kind == "coverage":
            for place, span in entry["partitions"].items():
                self._cover(place, span)
        elif kind == "trust" or (kind == "finding" and "src" not in entry):
            return
        elif kind == "finding":
            self._report.findings.append({key: entry[key] for key in ("kind", "src", "from", "to")})
            place = f"{entry['src']['topic']}/{entry['src']['partition']}"
            self._announced.add((place, entry["kind"], entry["from"], entry["to"]))
        else:
            source = entry["src"]
            offset = source["offset"]
            state = self._state(f"{source['topic']}/{source['partition']}")
            floor = state.pending[-1] + 1 if state.pending else state.next
            if type(offset) is not int or offset < floor:
                raise Invalid(f"offset {offset!r} of {source['topic']}/{source['partition']} again or out of order")
            state.pending.append(offset)

    def finish(self) -> None:
        for place, state in self._report.partitions.items():
            if state.pending:
                raise Invalid(
                    f"{place}: {len(state.pending)} entries from offset {state.pending[0]} are under no coverage"
                )

    def _state(self, place: str) -> Partition:
        return self._report.partitions.setdefault(place, Partition())

    def _cover(self, place: str, span: dict[str, Any]) -> None:
        state = self._state(place)
        first, end, skips = span["from"], span["next"], span["skips"]
        if first != state.next or span["inc"] != 0 or end < first:
            raise Invalid(f"{place}: coverage from {first} to {end} does not continue at {state.next}")
        inside = [offset for offset in state.pending if offset < end]
        at, skipped = first, set[int]()
        for low, high, kind in skips:
            if kind not in SKIP_KINDS or not at <= low <= high < end:
                raise Invalid(
                    f"{place}: skip [{low}, {high}, {kind!r}] is out of order, out of range or of no known kind"
                )
            if kind in NEED_FINDING and (place, NEED_FINDING[kind], low, high) not in self._announced:
                raise Invalid(f"{place}: skip [{low}, {high}, {kind!r}] has no finding")
            state.skips[kind] += high - low + 1
            skipped.update((low, high))
            at = high + 1
        count = sum(high - low + 1 for low, high, _ in skips)
        if len(inside) != span["entries"] or len(inside) + count != end - first:
            raise Invalid(
                f"{place}: offsets {first} to {end - 1} hold {len(inside)} entries and {count} skipped ones, "
                f"coverage says {span['entries']} entries: a gap that nothing explains"
            )
        ranges = iter(skips)
        current = next(ranges, None)
        for offset in inside:
            while current is not None and current[1] < offset:
                current = next(ranges, None)
            if current is not None and current[0] <= offset:
                raise Invalid(f"{place}: offset {offset} is both an entry and a skip")
        state.pending = state.pending[len(inside) :]
        state.next, state.entries, state.known = end, state.entries + len(inside), True


def verify(directory: Path, policy: str | None = None) -> Report:
    """Check the export in `directory`. `policy` is the text of a policy file; None trusts the export's own."""
    report = Report("given" if policy is not None else "bundle")
    try:
        check(report, directory, policy)
    except Invalid as exc:
        report.problems.append(str(exc))
    except (OSError, UnicodeDecodeError) as exc:
        report.problems.append(f"cannot be read: {exc}")
    return report


def check(report: Report, directory: Path, policy: str | None) -> None:
    """Fill the report; what makes going on useless is raised."""
    own = (directory / "policy.txt").read_bytes()
    own_keys = parse_policy(own.decode("utf-8"), strict=True)
    keys = parse_policy(policy, strict=False) if policy is not None else own_keys
    data = (directory / "checkpoint").read_bytes()
    report.origin, report.size, root, signers = parse_checkpoint(data, keys)
    report.root = base64.b64encode(root).decode()
    report.keys = [f"{key.name}+{key.key_id.hex()}" for key in signers]
    check_files(directory, report.size)
    tree, completeness = Tree(directory), Completeness(report)
    for index, entry in enumerate(entries_of(directory, report.size)):
        tree.add(hashlib.sha256(b"\x00" + entry).digest())
        try:
            completeness.take(parse_entry(entry))
        except (Invalid, KeyError, TypeError, ValueError, AttributeError) as exc:
            if len(report.problems) < MAX_PROBLEMS:
                report.problems.append(f"entry {index}: {exc or type(exc).__name__}")
    completeness.finish()
    if tree.root() != root:
        raise Invalid("the entries do not have the root that the checkpoint signs")


def show(report: Report) -> None:
    given = report.trust == "given"
    print(f"origin      {report.origin}")
    print(f"size        {report.size}")
    print(f"root        {report.root}")
    print(f"signed by   {', '.join(report.keys)}")
    print("witnesses   none: only the log itself vouches for its history")
    print(
        f"trust       {report.trust}"
        + ("" if given else "  !! SELF-CONSISTENT ONLY: the keys come from the export. Give --policy.")
    )
    if report.origin.startswith("dev."):
        print("key         !! a local key file, for a first look: whoever reads it can sign as this log")
    for place, state in sorted(report.partitions.items()):
        skips = "".join(f", {count} {kind}" for kind, count in sorted(state.skips.items()))
        print(f"partition   {place}: {state.first} to {state.next - 1}, {state.entries} entries{skips}")
    for finding in report.findings:
        print(f"finding     {json.dumps(finding, sort_keys=True)}")
    for problem in report.problems:
        print(f"PROBLEM     {problem}")
    print("VALID" if report.valid else "NOT VALID")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check an exported evidence log.")
    parser.add_argument("directory", type=Path, metavar="DIR", help="the export: checkpoint, policy.txt, tile/")
    parser.add_argument("--policy", type=Path, metavar="FILE", help="the keys you trust, got by another way")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("cryptography") is None:
        print("the Python library `cryptography` is missing: pip install cryptography", file=sys.stderr)
        return 3
    if not options.directory.is_dir():
        parser.error(f"{options.directory} is not a folder")
    policy: str | None = None
    try:
        if options.policy is not None:
            text: str = options.policy.read_text(encoding="utf-8")
            parse_policy(text, strict=False)
            policy = text
    except (OSError, UnicodeDecodeError, Invalid) as exc:
        parser.error(f"{options.policy}: {exc}")
    report = verify(options.directory, policy)
    if options.json:
        print(json.dumps(report.as_json(), indent=1))
    else:
        show(report)
    return 0 if report.valid else 1


if __name__ == "__main__":
    sys.exit(main())
