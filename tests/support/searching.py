"""Where a text may lie in a stack: files, topics, Redis, Vault, processes, metrics. For tests that look for what must be nowhere."""

import base64
import gzip
import hashlib
import re
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import redis

from tools.stack.vault import VaultServer

_SECRETS = "ratchet"  # the KV mount


def needles(*texts: str) -> tuple[bytes, ...]:
    """Each text as it may be written: plain, in JSON, base64 at any place of a longer text, hex, UTF-16; and its SHA-256."""
    found: set[bytes] = set()
    for text in texts:
        plain = text.encode()
        digest = hashlib.sha256(plain).digest()
        found |= {plain, plain.hex().encode(), text.encode("utf-16-le"), text.encode("utf-16-be")}
        found |= {digest, digest.hex()[:20].encode(), base64.b64encode(digest)[:20]}
        for at in range(3):  # without the characters that neighbours share
            whole = base64.b64encode(b"\0" * at + plain).rstrip(b"=")
            found |= {whole[-(-at * 4 // 3) : len(whole) - 1], whole[-(-at * 4 // 3) : len(whole) - 1].translate(_URL)}
    return tuple(sorted(found))


_NUMBERS = (".index", ".timeindex")
_URL = bytes.maketrans(b"+/", b"-_")


def holds(data: bytes, wanted: tuple[bytes, ...]) -> bool:
    """Whether any of them is in the data, or in what it is packed from."""
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            return False
    return any(one in data for one in wanted)


def files(root: Path, wanted: tuple[bytes, ...]) -> list[str]:
    """Files, by their path below the folder, that hold one, or whose name does. Of Kafka's indexes, numbers of 10 MiB each, the name."""
    found: list[str] = []
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        try:
            data = path.read_bytes() if path.is_file() and path.suffix not in _NUMBERS else b""
        except FileNotFoundError:  # gone meanwhile
            continue
        if holds(name.encode(), wanted) or holds(data, wanted):
            found.append(name)
    return found


def in_redis(url: str, folder: Path, wanted: tuple[bytes, ...]) -> tuple[dict[str, float], bool]:
    """Keys that hold one, in their name or value, with the seconds that they live; and whether a dump of all of Redis does."""
    client: Any = cast("Any", redis.Redis).from_url(url)  # its types say half
    found: dict[str, float] = {}
    for key in client.scan_iter(count=1000):
        if holds(key + b"\0" + _value(client, key), wanted):
            found[key.decode()] = client.pttl(key) / 1000
    for name, value in (("rdbcompression", "no"), ("dbfilename", "searched.rdb"), ("dir", str(folder))):
        client.config_set(name, value)
    client.save()
    dump = (folder / "searched.rdb").read_bytes()
    (folder / "searched.rdb").unlink()
    assert dump.startswith(b"REDIS")
    return found, holds(dump, wanted)


def _value(client: Any, key: bytes) -> bytes:
    match client.type(key):
        case b"string":
            return bytes(client.get(key))
        case b"hash":
            return b"\0".join(part for row in client.hgetall(key).items() for part in row)
        case b"stream":
            return b"\0".join(part for _, row in client.xrange(key) for pair in row.items() for part in pair)
        case b"list":
            return b"\0".join(client.lrange(key, 0, -1))
        case b"set":
            return b"\0".join(client.smembers(key))
        case b"zset":
            return b"\0".join(client.zrange(key, 0, -1))
        case other:
            raise AssertionError(f"{key!r} is a {other!r}, which nobody searches")


def in_vault(server: VaultServer, wanted: tuple[bytes, ...]) -> tuple[int, list[str]]:
    """How many secrets and keys the root token sees; and those that hold one, in name, value or metadata."""
    seen, found = 0, list[str]()
    paths = [f"{_SECRETS}/{kind}/{name}" for name in _secrets(server, "") for kind in ("data", "metadata")]
    paths += [f"transit/keys/{name}" for name in _listed(server, "transit/keys")]
    for path in paths:
        seen += 1
        if holds(path.encode() + repr(server.call("GET", path)).encode(), wanted):
            found.append(path)
    return seen, found


def _secrets(server: VaultServer, folder: str) -> Iterator[str]:
    for name in _listed(server, f"{_SECRETS}/metadata/{folder}"):
        if name.endswith("/"):
            yield from _secrets(server, folder + name)
        else:
            yield folder + name


def _listed(server: VaultServer, path: str) -> list[str]:
    answer: Any = server.call("GET", f"{path}?list=true")
    return list(answer["data"]["keys"]) if answer else []


def in_processes(state_dir: Path, wanted: tuple[bytes, ...]) -> tuple[int, list[str]]:
    """How many processes of that stack run; and those with one in their arguments or environment."""
    seen, found, mark = 0, list[str](), f"RATCHET_STATE_DIR={state_dir}".encode()
    for folder in Path("/proc").iterdir():
        if not re.fullmatch("[0-9]+", folder.name):
            continue
        try:
            said = (folder / "environ").read_bytes() + b"\0" + (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if mark in said.split(b"\0"):
            seen += 1
            if holds(said, wanted):
                found.append(said.rsplit(b"\0\0", 1)[-1].decode(errors="replace"))
    return seen, found


def in_metrics(ports: dict[str, int], wanted: tuple[bytes, ...]) -> list[str]:
    """Processes whose metrics page holds one."""
    found: list[str] = []
    for name, port in ports.items():
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            if holds(answer.read(), wanted):
                found.append(name)
    return found
