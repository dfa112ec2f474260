"""A witness's files: what it remembers of each log, and the file that says which logs it takes.

lock                              held by the one process
temp                              a file before it has its name
logs/SHA256-OF-ORIGIN/seen        the largest checkpoint: binding, on disk before it is signed
logs/SHA256-OF-ORIGIN/checkpoint  the same, signed by the log and by us: for monitors
"""

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from infra.artifacts import sync_folder
from schemas.errors import Refused
from schemas.tlog.note import VerifierKey
from schemas.tlog.policy import parse_policy
from schemas.tlog.strict import Malformed
from schemas.tlog.witnessing import Seen, parse_seen


class WitnessDirectory:
    """The open directory of a witness; holds its lock until `close`. A lost or older one makes the witness forget what it
    has signed: it must survive what the log does not."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._turn = threading.Lock()
        (root / "logs").mkdir(parents=True, exist_ok=True)
        sync_folder(root)
        self._lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(self._lock)
            raise Refused(f"{root} is another witness's, which runs; accepted: one process", kind="witness") from exc

    def close(self) -> None:
        """Give up the lock."""
        os.close(self._lock)

    def read(self, origin: str) -> Seen | None:
        """Raises Malformed when the file is damaged: a person must look, the log is refused until then."""
        try:
            data = (self._folder(origin) / "seen").read_bytes()
        except FileNotFoundError:
            return None
        seen = parse_seen(data)
        if seen.checkpoint.origin != origin:
            raise Malformed(f"what is kept of {origin!r} is {seen.checkpoint.origin!r}'s")
        return seen

    def advance(self, origin: str, before: Seen | None, after: Seen) -> bool:
        with self._turn:
            if self.read(origin) != before:
                return False
            folder = self._folder(origin)
            if not folder.is_dir():
                folder.mkdir()
                sync_folder(folder.parent)
            self._replace(folder / "seen", after.encode())
        return True

    def publish(self, seen: Seen, cosigned_note: bytes) -> None:
        with self._turn:
            if self.read(seen.checkpoint.origin) == seen:
                self._replace(self._folder(seen.checkpoint.origin) / "checkpoint", cosigned_note)

    def published(self, origin_hash: str) -> bytes | None:
        try:
            return (self._root / "logs" / origin_hash / "checkpoint").read_bytes()
        except FileNotFoundError:
            return None

    def _folder(self, origin: str) -> Path:
        return self._root / "logs" / hashlib.sha256(origin.encode()).hexdigest()

    def _replace(self, target: Path, data: bytes) -> None:
        """After a crash the file has its old bytes or the new ones."""
        temp = self._root / "temp"
        with temp.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temp.rename(target)
        sync_folder(target.parent)


class KnownLogs:
    """The log keys of a policy file (tlog-policy), read again when the file changes. A bad change is said once, and what was
    known before goes on."""

    def __init__(self, file: Path, warn: Callable[[str], None]) -> None:
        """Raises Refused when the file cannot be read or is no policy."""
        self._file = file
        self._warn = warn
        self._turn = threading.Lock()
        try:
            self._stamp, self._keys = self._stat(), _log_keys(file)
        except (OSError, ValueError) as exc:
            raise Refused(
                f"RATCHET_WITNESS_LOGS={file}: {exc}; accepted: lines log VKEY, and quorum none", kind="settings"
            ) from exc

    def keys(self) -> tuple[VerifierKey, ...]:
        """Whose checkpoints are taken now."""
        with self._turn:
            try:
                if (stamp := self._stat()) != self._stamp:
                    self._stamp = stamp
                    self._keys = _log_keys(self._file)
            except (OSError, ValueError) as exc:
                self._warn(f"{self._file}: {exc}; the logs known before are taken on")
            return self._keys

    def _stat(self) -> tuple[int, int, int]:
        found = self._file.stat()
        return found.st_mtime_ns, found.st_size, found.st_ino


def _log_keys(file: Path) -> tuple[VerifierKey, ...]:
    return parse_policy(file.read_bytes().decode()).logs
