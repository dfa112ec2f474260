"""Check an exported evidence log without trusting those who made it.

    python verify_evidence.py DIR [--policy FILE] [--json]
    python verify_evidence.py NAME.tlog-proof --policy FILE [--entry FILE] [--json]     (the entry: else NAME.json)
    python verify_evidence.py FOLDER-OF-SUCH-PAIRS --policy FILE [--json]

One file, to be read and carried alone: the standard library and `cryptography`. It shares no code with the collector,
on purpose. Give `--policy`, a file that you got from the operator by another way than the export: without it the keys
in the export itself are used, which shows only that the export agrees with itself.

Checked: no file is unknown or missing; keys; every signature of the checkpoint, the witnesses' quorum; every entry
against its hash tile, every tile against the tiles below it, the root against the checkpoint; that each entry is
canonical JSON; that per topic partition every offset, from the first to the frontier, is one entry or one skip with
its reason, once; that each violation of controls stands behind its finding; that the policy file is the one which the
log itself names last; proofs, the manifest and the entry that holds its digest, attestations and the entries they speak
of. Of a tenant's bundle, in which the entries of others are only hashes: that no entry of this tenant is held back.

Exit: 0 valid, 1 not valid, 2 used wrongly, 3 the library is missing.
"""

import argparse
import base64
import binascii
import functools
import hashlib
import importlib.util
import itertools
import json
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

SKIP_KINDS = {
    "marker": "a transaction marker of the broker",
    "aborted": "a record of an aborted transaction",
    "compacted": "removed by compaction (a compacted topic)",
    "before-first-read": "before the log's first read of this partition (a finding)",
    "lost": "evicted before it was read (a finding)",
    "unknown": "nobody knows (a finding)",
}
NEED_FINDING = {"before-first-read": "range-unread", "lost": "range-lost", "unknown": "offset-gap"}
RESET = "source-reset"
MAX_PROBLEMS = 50
MAX_RESETS = 100  # of one partition within a batch
MAX_FINDINGS = 1000  # shown; all are counted
MAX_TYPES = 4096
MAX_BATCH = 1 << 18  # records under one coverage: what is remembered until it comes
MAX_FILE = 1 << 26
MAX_NOTE = 1 << 20
MAX_ENTRY = 65_535
MAX_KEYS = 256
WIDTH = 256
LOG_KEY, COSIGNER = 1, 4
FIELD = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
CURVE_D = -121665 * pow(121666, FIELD - 2, FIELD) % FIELD
SHA256 = hashlib.sha256


class Invalid(Exception):
    """The export is not valid; the message says where and why."""


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
    """A number below 2^63 without leading zeroes."""
    if not re.fullmatch(r"0|[1-9][0-9]{0,18}", text, re.ASCII) or int(text) >= 1 << 63:
        raise Invalid(f"{what}: {text[:40]!r} is not a plain decimal number below 2^63")
    return int(text)


def from_utf8(data: bytes, what: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise Invalid(f"{what}: not UTF-8") from exc


def printable(text: str) -> str:
    """What may go to a terminal: nothing in an export moves its cursor."""
    return "".join(char if " " <= char <= "~" else char.encode("unicode_escape").decode() for char in text)


# JSON, and what must stand in it


def _whole_number(text: str) -> int:
    if len(text) > 17 or abs(int(text)) >= 2**53:
        raise ValueError("integer beyond 2^53 - 1")
    return int(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text[:40]} is not an integer")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(members := dict(pairs)) != len(pairs):
        raise ValueError("a key stands twice")
    return members


DECODER = json.JSONDecoder(parse_float=_no_number, parse_constant=_no_number, parse_int=_whole_number)
ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), check_circular=False)


def within(value: Any) -> Iterator[Any]:
    """The value and every value in it. No recursion: JSON can be deep."""
    left: list[Any] = [value]
    while left:
        item = left.pop()
        yield item
        if isinstance(item, dict):
            left.extend(cast("dict[str, Any]", item).values())
        elif isinstance(item, list):
            left.extend(cast("list[Any]", item))


def canonical(data: bytes) -> dict[str, Any]:
    """A canonical (RFC 8785) JSON object without floats: encoding it again gives these bytes."""
    try:
        text = data.decode("utf-8")
        value = DECODER.decode(text)
        again = ENCODER.encode(value)
    except (ValueError, RecursionError) as exc:
        raise Invalid("not canonical JSON") from exc
    if again != text or not isinstance(value, dict):
        raise Invalid("not canonical JSON: encoding it again gives other bytes")
    if not text.isascii():  # sorted by code point is sorted by UTF-16 only of ASCII keys
        for item in within(cast("Any", value)):
            if isinstance(item, dict) and not all(key.isascii() for key in cast("dict[str, Any]", item)):
                raise Invalid("not canonical JSON: a key that is not ASCII")
    return cast("dict[str, Any]", value)


def any_json(data: bytes, what: str) -> dict[str, Any]:
    """A JSON object in any spelling, each key once."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as exc:
        raise Invalid(f"{what}: not JSON, or a key stands twice") from exc
    return members(value, what)


def members(
    value: Any, what: str, needed: Collection[str] = (), allowed: Collection[str] | None = None
) -> dict[str, Any]:
    """A JSON object that has the needed keys and, where `allowed` is given, no others than these and those."""
    if not isinstance(value, dict):
        raise Invalid(f"{what}: not an object")
    found = cast("dict[str, Any]", value)
    missing = [key for key in needed if key not in found]
    extra = [] if allowed is None else [key for key in found if key not in needed and key not in allowed]
    if missing or extra:
        raise Invalid(f"{what}: {'lacks' if missing else 'has an unknown'} {(missing or extra)[0][:40]!r}")
    return found


def items(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list):
        raise Invalid(f"{what}: not a list")
    return cast("list[Any]", value)


def string(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise Invalid(f"{what}: not a string")
    return value


def whole(value: Any, what: str) -> int:
    """An integer from 0; `true` is none."""
    if type(value) is not int or value < 0:
        raise Invalid(f"{what}: {value!r} is not a number from 0".replace("\n", " ")[:200])
    return value


# files


def read_file(path: Path, limit: int = MAX_FILE) -> bytes:
    """A plain file's bytes. Neither waits for a pipe, nor follows a link, nor reads without end."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        handle = os.open(path, flags)
    except (OSError, ValueError) as exc:
        raise Invalid(f"{path.name}: cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    with open(handle, "rb") as file:  # noqa: PTH123  # a descriptor, not a path
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise Invalid(f"{path.name}: not a plain file")
        data = file.read(min(found.st_size, limit) + 1)
    if len(data) > limit:
        raise Invalid(f"{path.name}: longer than the {limit} bytes that it may have")
    return data


def files_of(directory: Path) -> set[str]:
    """Every name under the folder; whatever is not a plain file or a folder that holds some is refused."""
    found: set[str] = set()
    left = [("", 0)]
    while left:
        prefix, depth = left.pop()
        with os.scandir(directory / prefix) as scan:
            entries = list(scan)
        if depth > 12 or (depth and not entries):
            raise Invalid(f"{prefix}: {'folders too deep' if entries else 'an empty folder'}")
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                left.append((name + "/", depth + 1))
            elif entry.is_file(follow_symlinks=False):
                found.add(name)
            else:
                raise Invalid(f"{name}: neither a file nor a folder")
    return found


# keys


Point = tuple[int, int, int, int]  # X, Y, Z, T: x = X/Z, y = Y/Z, xy = T/Z (RFC 8032, 5.1.4)


def _curve_add(left: Point, right: Point) -> Point:
    a = (left[1] - left[0]) * (right[1] - right[0]) % FIELD
    b = (left[1] + left[0]) * (right[1] + right[0]) % FIELD
    c = 2 * left[3] * right[3] * CURVE_D % FIELD
    d = 2 * left[2] * right[2] % FIELD
    return (b - a) * (d - c) % FIELD, (d + c) * (b + a) % FIELD, (d - c) * (d + c) % FIELD, (b - a) * (b + a) % FIELD


@functools.lru_cache(maxsize=1024)
def point_fault(data: bytes) -> str | None:
    """A key's point must be canonical, on the curve and of order exactly L: others fit messages they never signed."""
    value = int.from_bytes(data, "little")
    sign, y = value >> 255, value % 2**255
    if y >= FIELD:
        return "the key is not canonical"
    square = (y * y - 1) * pow(CURVE_D * y * y + 1, -1, FIELD) % FIELD
    x = pow(square, (FIELD + 3) // 8, FIELD)
    if (x * x - square) % FIELD:
        x = x * pow(2, (FIELD - 1) // 4, FIELD) % FIELD
    if (x * x - square) % FIELD or (x == 0 and sign):
        return "the key is not a point of the curve"
    if x % 2 != sign:
        x = FIELD - x
    total: Point = (0, 1, 1, 0)
    power: Point = (x, y, 1, x * y % FIELD)
    scalar = ORDER
    while scalar:
        if scalar % 2:
            total = _curve_add(total, power)
        power = _curve_add(power, power)
        scalar //= 2
    if (x, y) == (0, 1) or total[0] or (total[1] - total[2]) % FIELD:
        return "the key is a point of low or mixed order"
    return None


def check_point(data: bytes, what: str) -> None:
    fault = point_fault(data)
    if fault is not None:
        raise Invalid(f"{what}: {fault}")


def signed_by(point: bytes, signature: bytes, message: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(point).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


@dataclass(frozen=True)
class Key:
    """A verifier key; `text` is its spelling."""

    name: str
    key_id: bytes
    kind: int
    point: bytes
    text: str

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}"


def parse_key(text: str, kind: int) -> Key:
    """A verifier key `name+id+base64`: Ed25519, 0x01 of a log or 0x04 of a witness."""
    match = re.fullmatch(r"([^\s+\x00-\x1f]+)\+([0-9a-f]{8})\+(\S+)", text)
    if match is None:
        raise Invalid("policy: not a verifier key")
    name = match[1]
    data = from_base64(match[3], f"key of {name}")
    if len(data) != 33 or data[0] != kind:
        raise Invalid(f"key of {name}: not Ed25519 of kind {kind:#04x}, which is what stands here")
    key_id = SHA256(name.encode("utf-8", "surrogateescape") + b"\n" + data).digest()[:4]
    if key_id.hex() != match[2]:
        raise Invalid(f"key of {name}: its id is not that of the key")
    check_point(data[1:], f"key of {name}")
    return Key(name, key_id, kind, data[1:], text)


# policy


@dataclass
class Policy:
    """Who may sign as the log, and which witnesses must have seen it (C2SP tlog-policy)."""

    logs: list[Key] = field(default_factory=list[Key])
    witnesses: dict[str, Key] = field(default_factory=dict[str, Key])
    groups: dict[str, tuple[int, list[str]]] = field(default_factory=dict[str, tuple[int, list[str]]])
    quorum: str | None = None

    def satisfied(self, names: Collection[str]) -> bool:
        """Whether these witnesses are a quorum. A group names only what stands before it."""
        met = {"none", *names}
        for name, (needed, group) in self.groups.items():
            if sum(member in met for member in group) >= needed:
                met.add(name)
        return self.quorum in met

    def signers(self) -> list[Key]:
        return [*self.logs, *self.witnesses.values()]


class PolicyReader:
    """Reads a policy line by line. `strict`: one spelling, as an export must have it; else comments and URLs may be."""

    ORDER = ("log", "witness", "group", "quorum")

    def __init__(self, *, strict: bool) -> None:
        self.policy = Policy()
        self._strict = strict
        self._grouped: set[str] = set()
        self._stage = 0

    def line(self, line: str) -> None:
        if re.search(r"[\x00-\x08\x0a-\x1f\x7f]", line):
            raise Invalid(f"policy: a control character in {line[:40]!r}")
        words = line.split(" ") if self._strict else re.split(r"[ \t]+", line.strip(" \t"))
        if not self._strict and (words == [""] or words[0].startswith("#")):
            return
        read: dict[str, Callable[[list[str]], bool]] = {
            "log": self._log,
            "witness": self._witness,
            "group": self._group,
            "quorum": self._quorum,
        }
        if words[0] not in read or not all(words) or not read[words[0]](words):
            raise Invalid(
                f"policy: cannot read {line[:60]!r}; known: log <vkey>, witness <name> <vkey>, "
                "group <name> <all|any|k> <names>, quorum <name|none>; a name stands before it is used, once"
            )
        stage = self.ORDER.index(words[0])
        if self._strict and stage < self._stage:
            raise Invalid(f"policy: {line[:60]!r} is out of order; in an export: {', '.join(self.ORDER)}")
        self._stage = stage

    def _room(self, words: list[str], count: int) -> bool:
        """A URL may follow, where spelling is free."""
        return len(words) == count or (len(words) == count + 1 and not self._strict)

    def _new(self, name: str) -> bool:
        return name != "none" and name not in self.policy.witnesses and name not in self.policy.groups

    def _log(self, words: list[str]) -> bool:
        if not self._room(words, 2) or len(self.policy.logs) >= MAX_KEYS:
            return False
        key = parse_key(words[1], LOG_KEY)
        if any(known.point == key.point for known in self.policy.logs):
            raise Invalid(f"policy: the key of {key} stands twice")
        self.policy.logs.append(key)
        return True

    def _witness(self, words: list[str]) -> bool:
        if not self._room(words, 3) or not self._new(words[1]) or len(self.policy.witnesses) >= MAX_KEYS:
            return False
        key = parse_key(words[2], COSIGNER)
        if any(known.point == key.point for known in self.policy.witnesses.values()):
            raise Invalid(f"policy: the key of {key} stands twice")
        self.policy.witnesses[words[1]] = key
        return True

    def _group(self, words: list[str]) -> bool:
        group = words[3:]
        if not group or not self._new(words[1]) or len(self.policy.groups) >= MAX_KEYS:
            return False
        if len(set(group)) != len(group) or any(self._new(name) or name == "none" for name in group):
            return False
        if not self._grouped.isdisjoint(group):
            return False
        needed = {"all": str(len(group)), "any": "1"}.get(words[2], words[2])
        if not re.fullmatch(r"[1-9][0-9]{0,2}", needed, re.ASCII) or int(needed) > len(group):
            return False
        self._grouped.update(group)
        self.policy.groups[words[1]] = (int(needed), group)
        return True

    def _quorum(self, words: list[str]) -> bool:
        if len(words) != 2 or self.policy.quorum is not None or (words[1] != "none" and self._new(words[1])):
            return False
        self.policy.quorum = words[1]
        return True


def parse_policy(data: bytes, *, strict: bool) -> Policy:
    """A tlog-policy. `strict`: as an export must spell it; a given one may hold comments, URLs and any octets."""
    text = from_utf8(data, "policy.txt") if strict else data.decode("utf-8", "surrogateescape")
    lines = text.split("\n")
    if strict and lines.pop() != "":
        raise Invalid("policy.txt: no newline at the end")
    reader = PolicyReader(strict=strict)
    for line in lines:
        reader.line(line)
    if reader.policy.quorum is None or not reader.policy.logs:
        raise Invalid("policy: needs a log line and a quorum line")
    return reader.policy


# checkpoint


@dataclass
class Checkpoint:
    """What the log says of itself, and who signed it."""

    origin: str
    size: int
    root: bytes
    data: bytes
    signers: list[Key]
    witnessed: list[tuple[Key, int]]


CHECKPOINT = re.compile(
    r"(([^\s+\x00-\x1f]+)\n([0-9]+)\n([A-Za-z0-9+/]{43}=)\n)\n((?:\u2014 [^\s+\x00-\x1f]+ [A-Za-z0-9+/=]+\n)+)"
)


def open_checkpoint(data: bytes, trusted: Policy, known: Policy | None = None) -> Checkpoint:
    """Every signature line must be by a known key and verify; those of `trusted` must suffice.

    `known`: the export's own policy. An auditor's policy may name fewer witnesses than the log has: lines by keys that
    only the export names are checked like all others, but count for nothing.
    """
    match = CHECKPOINT.fullmatch(from_utf8(data, "checkpoint"))
    if match is None:
        raise Invalid("checkpoint: not origin, size, root, empty line, signature lines")
    opened = Checkpoint(
        match[2], from_decimal(match[3], "checkpoint size"), from_base64(match[4], "checkpoint root"), data, [], []
    )
    keys = {
        (key.name, key.key_id): key for policy in (known, trusted) if policy is not None for key in policy.signers()
    }
    for line in match[5][:-1].split("\n"):
        _, name, encoded = line.split(" ")
        _check_signature(opened, match[1].encode(), keys, name, from_base64(encoded, f"signature of {name}"))
    signed = [key for key in opened.signers if key in trusted.logs]
    if not signed:
        raise Invalid(f"checkpoint: not signed by a log key of the policy for {opened.origin!r}")
    seen = {key for key, _ in opened.witnessed}
    names = [name for name, key in trusted.witnesses.items() if key in seen]
    if not trusted.satisfied(names):
        raise Invalid(
            f"checkpoint: the quorum {trusted.quorum!r} is missed: signed by {', '.join(names) or 'no witness'} of it"
        )
    return opened


def _check_signature(
    opened: Checkpoint, body: bytes, keys: Mapping[tuple[str, bytes], Key], name: str, blob: bytes
) -> None:
    key = keys.get((name, blob[:4]))
    if key is None or (key.kind == LOG_KEY and name != opened.origin):
        raise Invalid(
            f"checkpoint: {name!r} with key id {blob[:4].hex()} is no key of the policy for {opened.origin!r}"
        )
    if key in opened.signers or any(key == other for other, _ in opened.witnessed):
        raise Invalid(f"checkpoint: {name} signed twice")
    signature, message, time = blob[4:], body, 0
    if key.kind == COSIGNER:
        time, signature = int.from_bytes(blob[4:12], "big"), blob[12:]
        if not 0 < time < 1 << 63:
            raise Invalid(f"checkpoint: the time of {name} is out of range; accepted: seconds from 1 to 2^63 - 1")
        message = b"cosignature/v1\ntime %d\n" % time + body
    if len(signature) != 64 or not signed_by(key.point, signature, message):
        raise Invalid(f"checkpoint: the signature of {name} does not verify")
    if key.kind == COSIGNER:
        opened.witnessed.append((key, time))
    else:
        opened.signers.append(key)


def utc(seconds: int) -> str:
    if seconds >= 253402300800:  # the year 10000
        return f"{seconds} s after 1970"
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# tiles


def tile_name(number: int, width: int = WIDTH) -> str:
    text = str(number)
    text = text.zfill(-(-len(text) // 3) * 3)
    groups = [text[at : at + 3] for at in range(0, len(text), 3)]
    return "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:]) + ("" if width == WIDTH else f".p/{width}")


TILE_NAME = re.compile(r"((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?", re.ASCII)


@dataclass(frozen=True)
class Row:
    """The files of one row of tiles: `folder` and how many hashes or entries they hold together."""

    folder: str
    count: int

    def holds(self, name: str) -> bool:
        """Whether a log of this size has a file of this name, which begins with the folder."""
        match = TILE_NAME.fullmatch(name[len(self.folder) :])
        if match is None:
            return False
        number = int(match[1].replace("x", "").replace("/", ""))
        full, part = divmod(self.count, WIDTH)
        width = WIDTH if number < full else part
        return number <= full and width > 0 and self.folder + tile_name(number, width) == name

    def names(self) -> Iterator[str]:
        full, part = divmod(self.count, WIDTH)
        for number in range(full):
            yield self.folder + tile_name(number)
        if part:
            yield self.folder + tile_name(full, part)


def rows_of(size: int) -> list[Row]:
    """The rows of hash tiles of a log of this size, lowest first."""
    return [Row(f"tile/{level}/", size >> 8 * level) for level in range(8) if size >> 8 * level]


def node(pair: bytes) -> bytes:
    return SHA256(b"\x01" + pair).digest()


def pair_up(data: bytes) -> bytes:
    """The RFC 6962 root over a power of two of hashes."""
    sha = SHA256
    while len(data) > 32:
        data = b"".join([sha(b"\x01" + data[at : at + 64]).digest() for at in range(0, len(data), 64)])
    return data


class Tree:
    """Rebuilds every tile from the leaves up, one open tile per level."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._rows: list[list[bytes]] = []
        self._numbers: list[int] = []

    def add(self, row: bytes, level: int = 0) -> None:
        """The next whole tile of a level, or its last, partial one."""
        self._open(level)
        self._check(level, row)
        self._numbers[level] += 1
        if len(row) < 32 * WIDTH:
            self._rows[level] = [row]
            return
        self._open(level + 1)
        above = self._rows[level + 1]
        above.append(pair_up(row))
        if len(above) == WIDTH:
            self._rows[level + 1] = []
            self.add(b"".join(above), level + 1)

    def root(self) -> bytes:
        """The root, after the partial tiles at the right edge were checked."""
        right: bytes | None = None
        for level, parts in enumerate(self._rows):
            row = b"".join(parts)
            if row:
                if level:
                    self._check(level, row)
                right = self._join(row, right)
        return right if right is not None else SHA256(b"").digest()

    def _open(self, level: int) -> None:
        while level >= len(self._rows):
            self._rows.append([])
            self._numbers.append(0)

    def _check(self, level: int, row: bytes) -> None:
        name = f"tile/{level}/{tile_name(self._numbers[level], len(row) // 32)}"
        if read_file(self._directory / name, 32 * WIDTH) != row:
            raise Invalid(f"{name}: not the hashes of what lies below it")

    @staticmethod
    def _join(row: bytes, right: bytes | None) -> bytes:
        """This level's subtrees, largest first, with the smaller tree to their right."""
        parts: list[bytes] = []
        at = 0
        while at < len(row):
            step = 32 << ((len(row) - at) // 32).bit_length() - 1
            parts.append(pair_up(row[at : at + step]))
            at += step
        if right is not None:
            parts.append(right)
        return functools.reduce(lambda low, high: node(high + low), reversed(parts[:-1]), parts[-1])


def split_bundle(data: bytes, width: int, name: str) -> list[bytes]:
    """The entries of a bundle: each after its length, two bytes big-endian; nothing after the last."""
    entries: list[bytes] = []
    at, end = 0, len(data)
    try:
        for _ in range(width):
            start = at + 2
            at = start + (data[at] << 8 | data[at + 1])
            entries.append(data[start:at])
    except IndexError:
        at = end + 1
    if at > end:
        raise Invalid(f"{name}: ends inside an entry")
    if at != end:
        raise Invalid(f"{name}: bytes after the last entry")
    return entries


# entries


STRING, NUMBER, COUNT = rb'"[ !#-\[\]-~]*"', rb"(?:0|-?[1-9][0-9]{0,14})", rb"(?:0|[1-9][0-9]{0,14})"
TOKEN = re.compile(rb'("[ !#-\[\]-~]*")(:?)|-?[0-9]+|true|false|[{}\[\],]')
NEVER_LEARNED = frozenset({"coverage", "finding", "violation", "trust", "export.made", "adapter.registered"})
TYPE_KEY = b'"type":'


def pattern_of(entry: bytes) -> bytes | None:
    """A pattern that fits only canonical entries, made from one: its keys and its type in these places, any plain values.

    Keys are in order and there once because they are in `entry`; a plain string has no escapes, a number has one
    spelling. Groups: incarnation, offset, partition with topic, tenant. None where the entry has other values than these.
    """
    out: list[bytes] = []
    depth, at = 0, 0
    path = [b""] * 3
    for token in TOKEN.finditer(entry):
        data = token[0]
        if token.start() != at:
            return None
        at = token.end()
        if token[2]:
            out.append(re.escape(data))
            if depth <= 2:
                path[depth] = data[1:-2]
                path[depth + 1 :] = [b""] * (2 - depth)
            continue
        if data in b"{[":
            depth += 1
        elif data in b"]}":
            depth -= 1
        place = b".".join(path[1 : depth + 1]) if depth <= 2 else b""
        out.append(_value_pattern(data, place))
    return b"".join(out) if at == len(entry) else None


def _value_pattern(data: bytes, place: bytes) -> bytes:
    if place in (b"type", b"v") or data in b"{}[],":
        return re.escape(data)
    if place in (b"src.inc", b"src.offset"):
        return b"(" + COUNT + b")"
    if place == b"src.partition":
        return b"(" + COUNT
    if place == b"src.topic":
        return STRING + b")"
    if data in (b"true", b"false"):
        return b"(?:true|false)"
    value = STRING if data.startswith(b'"') else NUMBER
    return b"(" + value + b")" if place == b"tenant" else value


class Patterns:
    """Patterns learned from entries that were read in full: an entry that fits one needs no reading.

    This is what makes a check of millions of entries quick. How many are learned is bounded; the rest is read in full.
    """

    AFTER, MOST, LONGEST, TRIED = 4, 512, 4096, 8192

    def __init__(self) -> None:
        self.by_end: dict[bytes, list[Callable[[bytes], re.Match[bytes] | None]]] = {}
        """By the bytes from `"type":` on: `type` and `v` are the last keys."""
        self._seen: Counter[bytes] = Counter()
        self._learned = 0

    def learn(self, entry: bytes) -> None:
        if self._learned >= self.MOST or len(self._seen) >= self.TRIED or len(entry) > self.LONGEST:
            return
        pattern = pattern_of(entry)
        if pattern is None:
            return
        self._seen[pattern] += 1
        if self._seen[pattern] == self.AFTER:
            compiled = re.compile(pattern)
            if compiled.groups == 4:
                self._learned += 1
                self.by_end.setdefault(entry[entry.rfind(TYPE_KEY) :], []).insert(0, compiled.fullmatch)

    @staticmethod
    def other(known: list[Callable[[bytes], re.Match[bytes] | None]], entry: bytes) -> re.Match[bytes] | None:
        """Try all but the first; the one that fits becomes the first."""
        for at in range(1, len(known)):
            found = known[at](entry)
            if found is not None:
                known.insert(0, known.pop(at))
                return found
        return None


# completeness


@dataclass
class Stream:
    """One incarnation of a topic partition: what coverage says of it, and what was seen since."""

    inc: int
    next: int = 0
    entries: int = 0
    skips: Counter[str] = field(default_factory=Counter[str])
    pending: list[int] = field(default_factory=list[int])
    seen: int = -1
    newest: bytes = b""
    last: list[Any] | None = None
    closed: bool = False

    def __post_init__(self) -> None:
        self.text = b"%d" % self.inc

    def close(self) -> None:
        """A later incarnation has begun: nothing of this one may follow."""
        self.closed, self.text = True, b""

    def as_json(self) -> dict[str, Any]:
        return {
            "inc": self.inc,
            "from": 0,
            "next": self.next,
            "entries": self.entries,
            "skips": dict(sorted(self.skips.items())),
        }


PLACE = re.compile(r"([A-Za-z0-9._-]{1,249})/(0|[1-9][0-9]{0,8})", re.ASCII)
TYPE = re.compile(r"[a-z][a-z0-9._-]{0,63}", re.ASCII)
CONTROL = re.compile(r"[a-z][A-Za-z0-9.-]{0,63}", re.ASCII)
SOURCE_KEYS = ("topic", "partition", "inc", "offset", "broker_ms")


@dataclass
class Batch:
    """The records since the last coverage entries, and what those at the end of it say."""

    records: int = 0
    tenants: list[bytes] = field(default_factory=list[bytes])
    covered: int = 0
    disclosed: int = 0
    counts: Counter[str] = field(default_factory=Counter[str])
    full: bool = False
    named: set[str] = field(default_factory=set[str])


class Completeness:
    """Follows the entries and holds the coverage entries to them.

    `tenant`: of a tenant's bundle, its name as JSON and its tag; entries of others are told by `withhold`.
    """

    def __init__(self, tenant: tuple[bytes, str] | None = None) -> None:
        self.streams: dict[str, list[Stream]] = {}
        self.types: Counter[str] = Counter()
        self.findings: list[dict[str, Any]] = []
        self.found = 0
        self.violations: list[dict[str, Any]] = []
        self.of_tenant = 0
        self.problems: list[str] = []
        self.watch: Callable[[int, dict[str, Any]], None] = lambda _, __: None
        self._tenant = tenant
        self._newest: dict[bytes, Stream] = {}  # by partition with topic, as the patterns give it
        self._announced: set[tuple[str, int, str, int, int]] = set()
        self._last_finding = (-1, "")
        self._patterns = Patterns()
        self._batch = Batch()
        self._closing = False

    def take(self, index: int, entries: Sequence[bytes]) -> None:
        """The entries from `index` on. What is wrong with one goes to `problems`."""
        patterns, newest = self._patterns.by_end, self._newest
        tenants, closing = self._batch.tenants, self._closing
        ends = [entry[entry.rfind(TYPE_KEY) :] for entry in entries]
        read: list[bytes] = []
        for at, entry, end in zip(itertools.count(index), entries, ends):
            known = patterns.get(end)
            if known is not None and not closing:
                found = known[0](entry) or Patterns.other(known, entry)
                if found is not None:
                    inc, offset_text, place, tenant = found.groups()
                    stream = newest.get(place)
                    if stream is not None and stream.text == inc and (offset := int(offset_text)) > stream.seen:
                        stream.seen = offset
                        stream.pending.append(offset)
                        stream.newest = entry
                        tenants.append(tenant)
                        continue
            read.append(end)
            self._note(at, lambda at=at, entry=entry: self._read(at, entry))
            tenants, closing = self._batch.tenants, self._closing
        for end, number in (Counter(ends) - Counter(read)).items():
            self.types[end[len(TYPE_KEY) + 1 : end.index(b'"', len(TYPE_KEY) + 1)].decode()] += number
        if len(self._batch.tenants) > MAX_BATCH:
            raise Invalid(f"{len(self._batch.tenants)} records up to entry {index} are under no coverage")

    def withhold(self, index: int) -> None:
        """An entry of which only the hash is there: a record of another tenant."""
        if self._closing:
            self._note(index, self._close)
        self._batch.records += 1

    def finish(self) -> None:
        self._close()
        for place, streams in self.streams.items():
            if any(stream.pending for stream in streams):
                raise Invalid(f"{place}: entries are under no coverage")

    def _note(self, index: int, step: Callable[[], None]) -> None:
        try:
            step()
        except (Invalid, RecursionError) as exc:
            if len(self.problems) < MAX_PROBLEMS:
                self.problems.append(f"entry {index}: {exc}")

    def _read(self, index: int, data: bytes) -> None:
        entry = canonical(data)
        kind = string(entry.get("type"), "type")
        if type(entry.get("v")) is not int or entry["v"] != 1:
            raise Invalid("another version; known: 1")
        if TYPE.fullmatch(kind) is None or (kind not in self.types and len(self.types) >= MAX_TYPES):
            raise Invalid(f"type {kind[:64]!r}, or too many types")
        if self._closing and kind != "coverage":
            self._close()
        self.types[kind] += 1
        self.watch(index, entry)
        if kind == "coverage":
            self._closing = True
            self._coverage(entry)
        elif kind == "finding":
            self._finding(index, entry)
        elif kind == "violation":
            self._violation(index, entry)
        elif kind != "trust":
            self._record(entry, data)
            if kind not in NEVER_LEARNED:
                self._patterns.learn(data)

    def _record(self, entry: dict[str, Any], data: bytes) -> None:
        source = members(entry.get("src"), "src", SOURCE_KEYS, ())
        place, inc, offset = _place(source), whole(source["inc"], "src.inc"), whole(source["offset"], "src.offset")
        tenant, _ = string(entry.get("tenant"), "tenant"), string(entry.get("id"), "id")
        streams = self.streams.setdefault(place, [Stream(0)])
        if 0 < inc - streams[-1].inc <= MAX_RESETS:  # of those between nothing was recorded; their coverage comes
            streams += map(Stream, range(streams[-1].inc + 1, inc + 1))
        stream = streams[-1]
        if inc != stream.inc or stream.closed or offset <= stream.seen:
            raise Invalid(f"{place}, incarnation {inc}: offset {offset} again or out of order")
        stream.seen, stream.newest = offset, data
        stream.pending.append(offset)
        self._newest[b'%d,"topic":%s' % (source["partition"], ENCODER.encode(source["topic"]).encode())] = stream
        self._batch.tenants.append(ENCODER.encode(tenant).encode())

    def _finding(self, index: int, entry: dict[str, Any]) -> None:
        kind = string(entry.get("kind"), "kind")
        if TYPE.fullmatch(kind) is None:
            raise Invalid(f"finding of kind {kind[:64]!r}")
        self.found += 1
        self._last_finding = index, kind
        shown = {key: value for key, value in entry.items() if key not in ("v", "type")}
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(shown)
        if "src" in entry:
            source = members(entry["src"], "src", ("topic", "partition", "inc"), ())
            span = whole(entry.get("from"), "from"), whole(entry.get("to"), "to")
            self._announced.add((_place(source), whole(source["inc"], "src.inc"), kind, *span))

    def _violation(self, index: int, entry: dict[str, Any]) -> None:
        """It stands right behind the finding that it names, once, and names controls."""
        members(entry, "violation", ("v", "type", "finding", "controls"), ())
        kind = string(entry["finding"], "violation: finding")
        if self._last_finding != (index - 1, kind):
            raise Invalid(f"violation by {kind[:64]!r}: the entry before it is not that finding")
        controls = [string(control, "violation: a control") for control in items(entry["controls"], "controls")]
        if not 0 < len(controls) == len(set(controls)) or not all(map(CONTROL.fullmatch, controls)):
            raise Invalid("violation: controls are not one or more names, each once")
        if len(self.violations) < MAX_FINDINGS:
            self.violations.append({"entry": index, "finding": kind, "controls": controls})

    # coverage

    def _coverage(self, entry: dict[str, Any]) -> None:
        members(entry, "coverage", ("v", "type", "full", "partitions", "tenants"), ())
        if type(entry["full"]) is not bool:
            raise Invalid("coverage: full is neither true nor false")
        self._batch.full |= entry["full"]
        for tag, count in members(entry["tenants"], "tenants").items():
            self._batch.counts[tag] += whole(count, "tenants")
        for place, span in members(entry["partitions"], "partitions").items():
            self._cover(place, members(span, place, ("inc", "from", "next", "entries", "skips"), ("last",)))

    def _cover(self, place: str, span: dict[str, Any]) -> None:
        if PLACE.fullmatch(place) is None:
            raise Invalid(f"coverage: {place[:80]!r} is no topic and partition")
        first, end, entries = (whole(span[key], f"{place}: {key}") for key in ("from", "next", "entries"))
        stream = self._covered_stream(place, whole(span["inc"], f"{place}: inc"))
        if first != stream.next or end < first:
            raise Invalid(f"{place}: coverage from {first} to {end} does not continue at {stream.next}")
        split = len(stream.pending)
        while split and stream.pending[split - 1] >= end:
            split -= 1
        inside = stream.pending[:split]
        skips = [self._skip(place, stream.inc, skip) for skip in items(span["skips"], place)]
        count = _check_order(place, first, end, skips, inside)
        visible = len(inside) == entries if self._tenant is None else len(inside) <= entries
        if not visible or entries + count != end - first:
            raise Invalid(
                f"{place}: offsets {first} to {end - 1} hold {len(inside)} entries and {count} skipped ones, "
                f"coverage says {entries} entries: a gap that nothing explains"
            )
        self._check_last(place, stream, span, inside)
        for low, high, kind in skips:
            stream.skips[kind] += high - low + 1
        del stream.pending[:split]
        stream.next, stream.entries = end, stream.entries + entries
        stream.seen = max(stream.seen, end - 1)
        self._batch.covered += entries
        self._batch.disclosed += len(inside)
        self._batch.named.add(place)

    def _covered_stream(self, place: str, inc: int) -> Stream:
        """The incarnation that this coverage goes on with; a new one needs a finding that says where the old one ended."""
        streams = self.streams.setdefault(place, [Stream(0)])
        at = next(at for at, stream in enumerate(streams) if not stream.closed)
        current = streams[at]
        if inc == current.inc:
            return current
        if inc != current.inc + 1 or current.pending:
            raise Invalid(f"{place}: coverage of incarnation {inc} after {current.inc}")
        if (place, inc, RESET, 0, current.next) not in self._announced:
            raise Invalid(f"{place}: incarnation {inc} begins without the finding {RESET} up to {current.next}")
        current.close()
        if current is streams[-1]:
            streams.append(Stream(inc))
        return streams[at + 1]

    def _skip(self, place: str, inc: int, skip: Any) -> tuple[int, int, str]:
        triple = items(skip, f"{place}: a skip")
        if len(triple) != 3:
            raise Invalid(f"{place}: a skip is not [first, last, kind]")
        low, high, kind = whole(triple[0], "skip"), whole(triple[1], "skip"), string(triple[2], "skip")
        if kind not in SKIP_KINDS:
            raise Invalid(f"{place}: skip of kind {kind[:40]!r}; known: {', '.join(SKIP_KINDS)}")
        if kind in NEED_FINDING:
            found = (place, inc, NEED_FINDING[kind], low, high)
            if found not in self._announced:
                raise Invalid(f"{place}: skip [{low}, {high}, {kind!r}] has no finding")
            self._announced.discard(found)
        return low, high, kind

    def _check_last(self, place: str, stream: Stream, span: dict[str, Any], inside: list[int]) -> None:
        """`last` is offset, broker time and id of the newest entry. A piece of a batch may name its own or the batch's."""
        last = items(span["last"], f"{place}: last") if "last" in span else None
        if last is not None and (len(last) != 3 or any(type(part) is bool for part in last)):
            raise Invalid(f"{place}: last is not [offset, time, id]")
        hidden = self._tenant is not None and span["entries"] > len(inside)
        own = inside[-1] if inside else -1
        right = not inside and not hidden and last == stream.last
        if last is not None and not right:
            newest = canonical(stream.newest) if stream.pending else {}
            source = newest.get("src", {})
            of_piece = bool(inside) and stream.pending[-1] > own == last[0]  # of which only the place is known
            of_others = hidden and whole(last[0], f"{place}: last") > own
            of_newest = last == [source.get("offset"), source.get("broker_ms"), newest.get("id")]
            right = of_piece or of_others or of_newest
        if not right:
            raise Invalid(f"{place}: last is {last!r}, which is not the newest entry"[:300])
        stream.last = last

    def _close(self) -> None:
        """A batch is over: its records are covered, each, and its tenants counted."""
        batch, self._batch, self._closing = self._batch, Batch(), False
        tenants = Counter(batch.tenants)
        disclosed = len(batch.tenants)
        records = batch.records + disclosed
        if records != batch.covered or (batch.disclosed != disclosed):
            raise Invalid(f"a batch of {records} records, of which coverage names {batch.covered}")
        if sum(batch.counts.values()) != records:
            raise Invalid(f"a batch of {records} records, {sum(batch.counts.values())} of which have a tenant")
        if self._tenant is None:
            if sorted(tenants.values()) != sorted(count for count in batch.counts.values() if count):
                raise Invalid("the records of each tenant are not as many as coverage says")
        else:
            name, tag = self._tenant
            self.of_tenant += tenants[name]
            if tenants[name] != batch.counts[tag]:
                raise Invalid(
                    f"{tenants[name]} records of the tenant, coverage says {batch.counts[tag]}: some are held back"
                )
        if batch.full and not batch.named.issuperset(self.streams):
            raise Invalid("a full coverage does not name every partition")


def _place(source: dict[str, Any]) -> str:
    place = f"{string(source['topic'], 'src.topic')}/{whole(source['partition'], 'src.partition')}"
    if PLACE.fullmatch(place) is None:
        raise Invalid(f"src: {place[:80]!r} is no topic and partition")
    return place


def _check_order(place: str, first: int, end: int, skips: list[tuple[int, int, str]], inside: list[int]) -> int:
    """Skips stand in order, within the span, and hold no entry; how many offsets they are."""
    at, entry, count = first, 0, 0
    for low, high, kind in skips:
        if not at <= low <= high < end:
            raise Invalid(f"{place}: skip [{low}, {high}, {kind!r}] is out of order or out of range")
        while entry < len(inside) and inside[entry] < low:
            entry += 1
        if entry < len(inside) and inside[entry] <= high:
            raise Invalid(f"{place}: offset {inside[entry]} is both an entry and a skip")
        at = high + 1
        count += high - low + 1
    if inside and inside[0] < first:
        raise Invalid(f"{place}: offset {inside[0]} is below the coverage")
    return count


# trust


class Trust:
    """Follows the `trust` entries: which policy file and which attesters the log itself names."""

    def __init__(self) -> None:
        self.attesters: dict[str, bytes] = {}
        self._last: dict[str, Any] | None = None

    def take(self, index: int, entry: dict[str, Any]) -> None:
        if index == 0 and entry["type"] != "trust":
            raise Invalid("the first entry is no trust entry")
        if entry["type"] != "trust":
            return
        self._last = members(entry, "trust", ("v", "type", "policy", "logs", "witnesses"), ("attester",))
        if entry.get("attester") is not None:
            attester = members(entry["attester"], "attester", ("keyid", "key"), ())
            key = from_base64(string(attester["key"], "attester"), "attester")
            if len(key) != 32 or SHA256(key).hexdigest()[:16] != attester["keyid"]:
                raise Invalid("attester: the keyid is not that of the key")
            self.attesters[attester["keyid"]] = key

    def check(self, own: Policy, data: bytes) -> None:
        """The export's policy.txt is the one that the last trust entry, under the signed root, names."""
        if self._last is None:
            raise Invalid("the log has no trust entry: nothing binds its policy.txt")
        if self._last["policy"] != SHA256(data).hexdigest():
            raise Invalid("policy.txt is not the one that the log's last trust entry names")
        keys = [[key.text for key in own.logs], [key.text for key in own.witnesses.values()]]
        if [self._last["logs"], self._last["witnesses"]] != keys:
            raise Invalid("policy.txt has other keys than the log's last trust entry")


# proofs


PROOF = ".tlog-proof"


@dataclass
class Proof:
    index: int
    hashes: list[bytes]
    checkpoint: bytes


def parse_proof(data: bytes, what: str) -> Proof:
    """A tlog-proof without `extra`: nothing authenticates that."""
    head, _, checkpoint = data.partition(b"\n\n")
    lines = from_utf8(head, what).split("\n")
    if lines[0] != "c2sp.org/tlog-proof@v1" or len(lines) < 2 or not lines[1].startswith("index "):
        raise Invalid(f"{what}: not a tlog-proof with an index and no extra line")
    hashes = [from_base64(line, what) for line in lines[2:66]]
    if len(lines) > 66 or any(len(item) != 32 for item in hashes):
        raise Invalid(f"{what}: not at most 64 hashes of 32 bytes")
    return Proof(from_decimal(lines[1][6:], f"{what}: index"), hashes, checkpoint)


def check_inclusion(proof: Proof, head: Checkpoint, entry: bytes, what: str) -> None:
    """RFC 9162, 2.1.3.2."""
    if proof.index >= head.size:
        raise Invalid(f"{what}: entry {proof.index} is not in a log of {head.size}")
    index, last, value = proof.index, head.size - 1, SHA256(b"\x00" + entry).digest()
    for other in proof.hashes:
        if last == 0:
            raise Invalid(f"{what}: too many hashes")
        if index % 2 or index == last:
            value = node(other + value)
            while index and not index % 2:
                index, last = index >> 1, last >> 1
        else:
            value = node(value + other)
        index, last = index >> 1, last >> 1
    if last or value != head.root:
        raise Invalid(f"{what}: does not lead from the entry to the signed root")


def names_of(index: int, entry: dict[str, Any]) -> set[str]:
    """What a proof of this entry may be called: by its id where that is a plain word, or by its index."""
    name = entry.get("id")
    plain = isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9._-]{1,128}", name, re.ASCII)
    return {f"entry-{index}", *([cast("str", name)] if plain else [])}


# attestations


@dataclass
class Statement:
    """An in-toto statement in its DSSE envelope, and which log entries it speaks of: index to digest."""

    name: str
    index: int
    kind: str
    message: bytes
    signatures: list[tuple[str, bytes]]
    bound: dict[int, str]


PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_NAME = re.compile(r"attestations/(0|[1-9][0-9]{0,17})-(training|promotion)\.dsse\.json", re.ASCII)
ADAPTER_NAME = re.compile(r"attestations/adapter-([0-9a-f]{64})\.dsse\.json", re.ASCII)
STATED = {"training": "training.completed", "promotion": "model.promoted"}


def parse_envelope(data: bytes, what: str) -> tuple[dict[str, Any], bytes, list[tuple[str, bytes]]]:
    """The statement of a DSSE envelope, the bytes that were signed, and by whom."""
    envelope = members(any_json(data, what), what, ("payload", "payloadType", "signatures"), ())
    payload = from_base64(string(envelope["payload"], what), what)
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise Invalid(f"{what}: payload of another type; known: {PAYLOAD_TYPE}")
    signatures: list[tuple[str, bytes]] = []
    for item in items(envelope["signatures"], what):
        signature = members(item, what, ("sig",), ("keyid",))
        signatures.append((string(signature.get("keyid", ""), what), from_base64(string(signature["sig"], what), what)))
    statement = any_json(payload, what)
    if statement.get("_type") != "https://in-toto.io/Statement/v1" or not isinstance(
        statement.get("predicateType"), str
    ):
        raise Invalid(f"{what}: not an in-toto Statement v1")
    subjects = [members(subject, what).get("digest") for subject in items(statement.get("subject"), what)]
    if not signatures or not subjects or not all(members(digest, what) for digest in subjects):
        raise Invalid(f"{what}: no signature, no subject, or one without a digest")
    name = PAYLOAD_TYPE.encode()
    return statement, b"DSSEv1 %d %s %d %s" % (len(name), name, len(payload), payload), signatures


def parse_statement(name: str, data: bytes, origin: str) -> Statement:
    match = STATEMENT_NAME.fullmatch(name)
    if match is None:
        raise Invalid(f"unknown file: {name}")
    statement, message, signatures = parse_envelope(data, name)
    bound: dict[int, str] = {}
    for item in within(statement):
        if isinstance(item, dict) and cast("dict[str, Any]", item).get("name") == "evidence-log-entry":
            resource = cast("dict[str, Any]", item)
            place, _, index = string(resource.get("uri"), name).rpartition("#")
            digest = _sha256_of(resource.get("digest"), name)
            if place != origin or bound.setdefault(from_decimal(index, name), digest) != digest:
                raise Invalid(f"{name}: speaks of an entry of another log, or of one entry in two ways")
    if int(match[1]) not in bound:
        raise Invalid(f"{name}: does not speak of entry {match[1]}")
    return Statement(name, int(match[1]), STATED[match[2]], message, signatures, bound)


def _sha256_of(digest: Any, what: str) -> str:
    text = string(members(digest, what, ("sha256",), ())["sha256"], what)
    if not re.fullmatch(r"[0-9a-f]{64}", text, re.ASCII):
        raise Invalid(f"{what}: not a SHA-256 digest")
    return text


def check_statement(statement: Statement, entries: Mapping[int, bytes], attesters: Mapping[str, bytes]) -> None:
    """Signed by an attester that the log names, and its entries are those of the log."""
    for keyid, signature in statement.signatures:
        point = attesters.get(keyid)
        if point is None:
            raise Invalid(f"{statement.name}: signed by {keyid[:40]!r}, which no trust entry names")
        check_point(point, statement.name)
        if not signed_by(point, signature, statement.message):
            raise Invalid(f"{statement.name}: the signature does not verify")
    for index, digest in statement.bound.items():
        if index not in entries or SHA256(entries[index]).hexdigest() != digest:
            raise Invalid(f"{statement.name}: entry {index} is another one, or is not shown")
    if canonical(entries[statement.index])["type"] != statement.kind:
        raise Invalid(f"{statement.name}: entry {statement.index} is not of type {statement.kind}")


UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[45][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII)


def check_oscal(data: bytes) -> None:
    """OSCAL assessment results, as far as their ids: the digest is what binds the file."""
    document = members(any_json(data, "oscal.json"), "oscal.json", ("assessment-results",), ("$schema",))
    results = members(document["assessment-results"], "oscal.json", ("uuid", "metadata", "import-ap", "results"))
    items(results["results"], "oscal.json: results")
    for item in within(results):
        uuid = cast("dict[str, Any]", item).get("uuid", "") if isinstance(item, dict) else ""
        if uuid != "" and (not isinstance(uuid, str) or not UUID.fullmatch(uuid)):
            raise Invalid("oscal.json: a uuid that is not of version 4 or 5")
    if not results["uuid"]:
        raise Invalid("oscal.json: no uuid")


# manifest


@dataclass
class Manifest:
    digest: str
    tenant: str | None
    tag: str
    files: dict[str, str]
    proofs: list[str]

    @property
    def kind(self) -> str:
        return "full" if self.tenant is None else "tenant"


LISTED = re.compile(r"policy\.txt|oscal\.json|controls\.csv|attestations/[A-Za-z0-9.-]+", re.ASCII)


def parse_manifest(data: bytes, origin: str) -> Manifest:
    what = "manifest.json"
    manifest = members(canonical(data), what, ("v", "kind", "origin", "tenant", "tag", "files", "proofs"), ())
    tenant, tag = manifest["tenant"], manifest["tag"]
    if type(manifest["v"]) is not int or (manifest["v"], manifest["kind"]) != (1, "ratchet-evidence"):
        raise Invalid(f"{what}: another version or kind; known: 1, ratchet-evidence")
    if manifest["origin"] != origin:
        raise Invalid(f"{what}: of another log than {origin!r}")
    if not (tenant is None is tag or (isinstance(tenant, str) and isinstance(tag, str))):
        raise Invalid(f"{what}: a tenant without a tag, or a tag without a tenant")
    files = {name: _sha256_of({"sha256": digest}, what) for name, digest in members(manifest["files"], what).items()}
    proofs = [string(name, what) for name in items(manifest["proofs"], what)]
    strange = [name for name in files if LISTED.fullmatch(name) is None]
    if strange:
        raise Invalid(f"{what}: unknown file: {strange[0][:80]}")
    if "policy.txt" not in files or proofs != sorted(set(proofs)):
        raise Invalid(f"{what}: does not name policy.txt, or names proofs twice or out of order")
    return Manifest(SHA256(data).hexdigest(), tenant, tag or "", files, proofs)


# the whole


@dataclass
class Report:
    """What was checked and what was found. Valid when there is no problem."""

    trust: str
    kind: str = "log"
    origin: str = ""
    size: int = 0
    root: str = ""
    keys: list[str] = field(default_factory=list[str])
    witnesses: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    quorum: str = ""
    tenant: str | None = None
    of_tenant: int = 0
    types: dict[str, int] = field(default_factory=dict[str, int])
    partitions: dict[str, list[Stream]] = field(default_factory=dict[str, list[Stream]])
    findings: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    found: int = 0
    violations: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    proofs: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    attestations: list[str] = field(default_factory=list[str])
    problems: list[str] = field(default_factory=list[str])

    @property
    def valid(self) -> bool:
        return not self.problems

    def opened(self, head: Checkpoint, trusted: Policy) -> None:
        self.origin, self.size, self.root = head.origin, head.size, base64.b64encode(head.root).decode()
        self.keys = [str(key) for key in head.signers]
        self.quorum = trusted.quorum or ""
        known = list(trusted.witnesses.values())
        self.witnesses = [
            {"key": str(key), "time": time, "utc": utc(time), "of_policy": key in known} for key, time in head.witnessed
        ]

    def proved(self, index: int, name: str, entry: dict[str, Any]) -> None:
        self.proofs.append({"index": index, "name": name, "id": entry.get("id"), "type": entry.get("type")})

    def as_json(self) -> dict[str, Any]:
        return {
            "valid": self.valid,
            "problems": self.problems,
            "trust": self.trust,
            "kind": self.kind,
            "first_look_key": self.origin.startswith("dev."),
            "origin": self.origin,
            "size": self.size,
            "root": self.root,
            "keys": self.keys,
            "witnesses": self.witnesses,
            "quorum": self.quorum,
            "tenant": None if self.tenant is None else {"name": self.tenant, "entries": self.of_tenant},
            "types": dict(sorted(self.types.items())),
            "partitions": {
                place: {**streams[-1].as_json(), "before": [stream.as_json() for stream in streams[:-1]]}
                for place, streams in sorted(self.partitions.items())
            },
            "findings": self.findings,
            "findings_total": self.found,
            "violations": self.violations,
            "proofs": self.proofs,
            "attestations": self.attestations,
        }


UNREADABLE = (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, MemoryError)


def verify(path: Path, policy: str | bytes | None = None, entry: Path | None = None) -> Report:
    """Check an export, a folder of single proofs, or one proof with its `entry` (else NAME.json beside it).

    `policy` is the text of a policy file; None trusts the export's own, which a single proof does not have.
    """
    given = policy.encode("utf-8", "surrogateescape") if isinstance(policy, str) else policy
    report = Report("given" if given is not None else "bundle")

    def check() -> None:
        names = files_of(path) if path.is_dir() else {path.name}
        if "checkpoint" in names or not any(name.endswith(PROOF) for name in names):
            Bundle(report, path, names, given).check()
        elif given is None:
            raise Invalid("proofs alone do not say whom to trust: give --policy")
        elif path.is_dir():
            check_pairs(report, path, names, parse_policy(given, strict=False))
        else:
            check_single(report, path, entry or path.with_suffix(".json"), parse_policy(given, strict=False))

    return _guarded(report, check)


def check_pairs(report: Report, folder: Path, names: set[str], trusted: Policy) -> None:
    """A folder of NAME.tlog-proof and NAME.json, and nothing else."""
    proofs = sorted(name for name in names if name.endswith(PROOF))
    entries = {name.removesuffix(PROOF) + ".json" for name in proofs}
    if names != entries.union(proofs):
        raise Invalid(f"not a proof, or without its other half: {min(names ^ entries.union(proofs))}")
    for name in proofs:
        check_single(report, folder / name, folder / (name.removesuffix(PROOF) + ".json"), trusted)


def check_single(report: Report, path: Path, entry: Path, trusted: Policy) -> None:
    """One proof that carries its checkpoint, and the entry that it is of."""
    report.kind = "proof"
    proof = parse_proof(read_file(path, MAX_NOTE), path.name)
    head = open_checkpoint(proof.checkpoint, trusted)
    report.opened(head, trusted)
    data = read_file(entry, MAX_ENTRY)
    check_inclusion(proof, head, data, path.name)
    report.proved(proof.index, path.name, canonical(data))


def _guarded(report: Report, check: Callable[[], None]) -> Report:
    """Whatever an export holds, the answer is a reason."""
    try:
        check()
    except Invalid as exc:
        report.problems.append(str(exc))
    except UNREADABLE as exc:
        report.problems.append(f"cannot be read: {type(exc).__name__}: {exc}")
    return report


class Bundle:
    """One export: a log alone, a whole bundle or a tenant's."""

    def __init__(self, report: Report, directory: Path, names: set[str], policy: bytes | None) -> None:
        self._report = report
        self._directory = directory
        self._names = names
        self._data: dict[str, bytes] = {"policy.txt": self._read("policy.txt", MAX_NOTE)}
        self._own = parse_policy(self._data["policy.txt"], strict=True)
        trusted = parse_policy(policy, strict=False) if policy is not None else self._own
        self._head = open_checkpoint(self._read("checkpoint", MAX_NOTE), trusted, self._own)
        report.opened(self._head, trusted)
        self._manifest: Manifest | None = None
        if "manifest.json" in self._names:
            self._manifest = parse_manifest(self._read("manifest.json"), self._head.origin)
            report.kind, report.tenant = self._manifest.kind, self._manifest.tenant
        self._trust = Trust()
        self._made = False
        self._adapters: set[str] = set()
        self._registered: set[str] = set()
        self._wanted: dict[int, bytes] = {}

    def check(self) -> None:
        """Fill the report; what makes going on useless is raised."""
        proof_names = self._check_names()
        statements = self._attached()
        proofs = {name: parse_proof(self._read(f"proofs/{name}", MAX_NOTE), f"proofs/{name}") for name in proof_names}
        wanted = {proof.index for proof in proofs.values()}.union(*(statement.bound for statement in statements))
        self._check_log(wanted)
        if self._report.problems:
            return
        self._trust.check(self._own, self._data["policy.txt"])
        for name, proof in proofs.items():
            self._check_proof(name, proof)
        for statement in statements:
            check_statement(statement, self._wanted, self._trust.attesters)
            self._report.attestations.append(statement.name)
        if self._adapters - self._registered:
            raise Invalid(
                f"adapter-{min(self._adapters - self._registered)}.dsse.json: no adapter.registered entry names it"
            )
        self._report.attestations += [f"attestations/adapter-{digest}.dsse.json" for digest in sorted(self._adapters)]
        if self._manifest is not None and not self._made:
            raise Invalid("manifest.json: no export.made entry of the log holds its digest")

    def _read(self, name: str, limit: int = MAX_FILE) -> bytes:
        return read_file(self._directory / name, limit)

    def _check_names(self) -> list[str]:
        """No file is unknown, none is missing; the names of the proofs. Costs no more than what is there."""
        rows = rows_of(self._head.size)
        bundles = Row("tile/entries/", self._head.size)
        disclosed = Row("disclosed/", self._head.size)
        fixed = {"checkpoint", "policy.txt"}
        if self._manifest is not None:
            fixed |= {"manifest.json", *self._manifest.files}
        if self._report.kind != "tenant":
            rows.append(bundles)
        by_folder = {row.folder: row for row in ([*rows, disclosed] if self._report.kind == "tenant" else rows)}
        proofs: list[str] = []
        unknown: list[str] = []
        for name in self._names - fixed:
            folder = re.match(r"disclosed/|tile/[a-z0-9]+/", name)
            if folder is not None and folder[0] in by_folder and by_folder[folder[0]].holds(name):
                continue
            if name.startswith("proofs/") and re.fullmatch(r"proofs/[A-Za-z0-9._-]{1,128}\.tlog-proof", name, re.ASCII):
                proofs.append(name[7:])
            else:
                unknown.append(name)
        missing = sorted(fixed - self._names)
        for row in rows:  # ends at the first name that is missing: what is there bounds the work
            gone = next((name for name in row.names() if name not in self._names), None)
            if gone is not None:
                missing.append(gone)
        for names, what in ((unknown, "unknown file"), (missing, "missing file")):
            if names:
                raise Invalid(
                    f"{what}: {', '.join(sorted(names)[:5])}" + (f" and {len(names) - 5} more" * (len(names) > 5))
                )
        if self._manifest is not None and sorted(proofs) != self._manifest.proofs:
            raise Invalid("manifest.json: names other proofs than there are")
        return sorted(proofs)

    def _attached(self) -> list[Statement]:
        """The files that the manifest lists have its digests; the statements among them."""
        statements: list[Statement] = []
        for name, digest in (self._manifest.files if self._manifest is not None else {}).items():
            data = self._data.get(name) or self._read(name)
            if SHA256(data).hexdigest() != digest:
                raise Invalid(f"{name}: not the file that manifest.json lists")
            adapter = ADAPTER_NAME.fullmatch(name)
            if name == "oscal.json":
                check_oscal(data)
            elif adapter is not None:
                if adapter[1] != digest:
                    raise Invalid(f"{name}: not the envelope of this digest")
                parse_envelope(data, name)
                self._adapters.add(digest)
            elif name.startswith("attestations/"):
                statements.append(parse_statement(name, data, self._head.origin))
        return statements

    def _watch(self, index: int, entry: dict[str, Any]) -> None:
        """What the rest of the bundle needs to know of the entries."""
        self._trust.take(index, entry)
        facts = entry.get("facts")
        if entry["type"] == "export.made" and self._manifest is not None:
            made = members(facts, "facts")
            self._made |= (made.get("manifest"), made.get("kind")) == (self._manifest.digest, self._manifest.kind)
        elif entry["type"] == "adapter.registered":
            adapter = members(facts, "facts").get("adapter")
            digest = adapter.removeprefix("sha256:") if isinstance(adapter, str) else ""
            if digest in self._adapters:
                self._registered.add(digest)

    def _check_log(self, wanted: set[int]) -> None:
        manifest, report = self._manifest, self._report
        tenant = None
        if manifest is not None and manifest.tenant is not None:
            tenant = ENCODER.encode(manifest.tenant).encode(), manifest.tag
        completeness, tree = Completeness(tenant), Tree(self._directory)
        completeness.watch = self._watch
        by_bundle: dict[int, list[int]] = {}
        for index in wanted:
            by_bundle.setdefault(index // WIDTH, []).append(index)
        try:
            for number in range(-(-self._head.size // WIDTH)):
                width = min(WIDTH, self._head.size - number * WIDTH)
                entries = self._entries(tree, number, width, completeness, hidden=tenant is not None)
                for index in by_bundle.get(number, ()):
                    if index < self._head.size and entries[index % WIDTH]:
                        self._wanted[index] = entries[index % WIDTH]
            completeness.finish()
            if tree.root() != self._head.root:
                raise Invalid("the entries do not have the root that the checkpoint signs")
        finally:
            report.types, report.partitions = dict(completeness.types), completeness.streams
            report.findings, report.found = completeness.findings, completeness.found
            report.violations = completeness.violations
            report.of_tenant = completeness.of_tenant
            report.problems += completeness.problems

    def _entries(self, tree: Tree, number: int, width: int, completeness: Completeness, *, hidden: bool) -> list[bytes]:
        """The entries of a bundle, taken and hashed; of a tenant's bundle, those of others are empty."""
        sha = SHA256
        if not hidden:
            name = "tile/entries/" + tile_name(number, width)
            entries = split_bundle(self._read(name), width, name)
            tree.add(b"".join([sha(b"\x00" + entry).digest() for entry in entries]))
            completeness.take(number * WIDTH, entries)
            return entries
        tile = f"tile/0/{tile_name(number, width)}"
        hashes = self._read(tile, 32 * WIDTH)
        if len(hashes) != 32 * width:
            raise Invalid(f"{tile}: not {width} hashes")
        name = "disclosed/" + tile_name(number, width)
        entries = [b""] * width
        if name in self._names:
            entries = split_bundle(self._read(name), width, name)
            if not any(entries):
                raise Invalid(f"{name}: discloses nothing")
        for at, entry in enumerate(entries):
            if not entry:
                completeness.withhold(number * WIDTH + at)
                continue
            if sha(b"\x00" + entry).digest() != hashes[32 * at : 32 * at + 32]:
                raise Invalid(f"{name}: entry {number * WIDTH + at} does not have the hash of {tile}")
            completeness.take(number * WIDTH + at, [entry])
        tree.add(hashes)
        return entries

    def _check_proof(self, name: str, proof: Proof) -> None:
        what = f"proofs/{name}"
        if proof.checkpoint != self._head.data:
            raise Invalid(f"{what}: under another checkpoint than that of the export")
        entry = self._wanted.get(proof.index)
        if entry is None:
            raise Invalid(f"{what}: entry {proof.index} is not in the export")
        check_inclusion(proof, self._head, entry, what)
        value = canonical(entry)
        if name.removesuffix(PROOF) not in names_of(proof.index, value):
            raise Invalid(f"{what}: is of entry {proof.index}, which has another id")
        self._report.proved(proof.index, name, value)


def findings_of(report: Report) -> Iterator[str]:
    for finding in report.findings:
        yield f"finding     {json.dumps(finding, sort_keys=True)}"
    if report.found > len(report.findings):
        yield f"finding     and {report.found - len(report.findings)} more"
    for violation in report.violations:
        yield f"violation   {violation['finding']}: {', '.join(violation['controls'])} (entry {violation['entry']})"


def lines_of(report: Report) -> Iterator[str]:
    yield f"kind        {report.kind}"
    yield f"origin      {report.origin}"
    yield f"size        {report.size}"
    yield f"root        {report.root}"
    yield f"signed by   {', '.join(report.keys)}"
    for witness in report.witnesses:
        known = "" if witness["of_policy"] else "  (not of the policy: counts for nothing)"
        yield f"witness     {witness['key']} at {witness['utc']}{known}"
    if report.quorum == "none":
        yield "quorum      none is asked for: nobody but the log itself need vouch for its history"
    else:
        yield f"quorum      {report.quorum}"
    loud = "  !! SELF-CONSISTENT ONLY: the keys come from the export. Give --policy."
    yield f"trust       {report.trust}{'' if report.trust == 'given' else loud}"
    if report.origin.startswith("dev."):
        yield "key         !! a local key file, for a first look: whoever reads it can sign as this log"
    if report.tenant is not None:
        yield f"tenant      {report.tenant}: {report.of_tenant} records; those of others are hashes"
    for place, streams in sorted(report.partitions.items()):
        for stream in streams:
            skips = "".join(f", {count} {kind}" for kind, count in sorted(stream.skips.items()))
            again = f", incarnation {stream.inc}" if len(streams) > 1 else ""
            yield f"partition   {place}{again}: 0 to {stream.next - 1}, {stream.entries} entries{skips}"
    yield from findings_of(report)
    for proof in report.proofs:
        yield f"proof       entry {proof['index']}, {proof['type']}, {proof['id']}"
    for name in report.attestations:
        yield f"statement   {name}"
    for problem in report.problems:
        yield f"PROBLEM     {problem}"
    yield "VALID" if report.valid else "NOT VALID"


def check_arguments(parser: argparse.ArgumentParser, options: argparse.Namespace) -> bytes | None:
    """The given policy. Ends with exit code 2 where the arguments make no sense together."""
    single = options.path.is_file()
    if not single and not options.path.is_dir():
        parser.error(f"{options.path} is neither a folder nor a proof")
    if single and (options.policy is None or options.path.suffix != PROOF):
        parser.error(f"{options.path}: accepted: a folder, or NAME.tlog-proof with --policy")
    if options.entry is not None and not single:
        parser.error("--entry is for a single proof")
    if options.policy is None:
        return None
    try:
        data = read_file(options.policy, MAX_NOTE)
        parse_policy(data, strict=False)
    except Invalid as exc:
        parser.error(printable(f"{options.policy}: {exc}"))
    return data


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Check an exported evidence log.")
    parser.add_argument(
        "path", type=Path, metavar="DIR", help="the export: checkpoint, policy.txt, tile/; or one proof"
    )
    parser.add_argument("--policy", type=Path, metavar="FILE", help="the keys you trust, got by another way")
    parser.add_argument(
        "--entry", type=Path, metavar="FILE", help="the entry of a single proof; else NAME.json beside it"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    if importlib.util.find_spec("cryptography") is None:
        print("the Python library `cryptography` is missing: pip install cryptography", file=sys.stderr)
        return 3
    policy = check_arguments(parser, options)
    report = verify(options.path, policy, options.entry)
    if options.json:
        print(json.dumps(report.as_json(), indent=1))
    else:
        print("\n".join(printable(line) for line in lines_of(report)))
    return 0 if report.valid else 1


if __name__ == "__main__":
    sys.exit(main())
