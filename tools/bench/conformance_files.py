"""A folder of published vectors, read by content: what is JSON, what is text, and which verifier keys lie near a file."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from schemas.tlog import note
from schemas.tlog.strict import Malformed

LARGEST = 32 * 2**20
"""A larger file is no vector that anybody reads whole."""
NEAR = 2**20
VKEY = re.compile(r"(?<![^\s\"'`=(\[<,])[^\s+\"'`=(\[<,]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]+={0,2}")
_REFUSED = re.compile(r"(?:^|[_\W])(?:bad|invalid|wrong|malformed|reject(?:ed)?|refused?)(?:$|[_\W])", re.IGNORECASE)
_FENCED = re.compile(r"^```[^\n]*\n(.*?)^```\s*$", re.DOTALL | re.MULTILINE)
Fault = str | None
"""Why a case failed; None where it passed."""


@dataclass(frozen=True, slots=True)
class Case:
    """One published case and what our code made of it."""

    family: str
    where: str
    fault: Fault


@dataclass(frozen=True, slots=True)
class Node:
    """A value inside a JSON document, the keys that lead to it, and the object that it stands in."""

    value: Any
    keys: tuple[str, ...]
    beside: Mapping[str, Any]

    @property
    def row(self) -> dict[str, Any] | None:
        """The value, where it is an object."""
        value: object = self.value
        return cast("dict[str, Any]", value) if isinstance(value, dict) else None

    @property
    def refused(self) -> bool:
        """Whether the document says that this must not be accepted: by a name on the way to it, or a verdict beside it."""
        if any(_REFUSED.search(key) for key in self.keys):
            return True
        said = [self.beside.get(name) for name in ("wantErr", "want_err", "valid", "result")]
        return said[0] is True or said[1] is True or said[2] is False or said[3] == "invalid"


class File:
    """One file of the folder. Read once; what it is, is seen from its bytes."""

    def __init__(self, root: Path, path: Path) -> None:
        self.path = path
        self.name = str(path.relative_to(root))
        self.size = path.stat().st_size

    @cached_property
    def data(self) -> bytes:
        return self.path.read_bytes()

    @cached_property
    def text(self) -> str | None:
        """Its text, None where it is none."""
        try:
            return None if b"\0" in self.data else self.data.decode()
        except UnicodeDecodeError:
            return None

    @cached_property
    def document(self) -> Any:
        """Its JSON object or list, None where it is none."""
        if self.data.lstrip()[:1] not in (b"{", b"["):
            return None
        try:
            return json.loads(self.data)
        except (ValueError, RecursionError):
            return None

    def forget(self) -> None:
        """Let go of what was read: a folder may be larger than the memory."""
        for name in ("data", "text", "document"):
            self.__dict__.pop(name, None)

    def nodes(self) -> Iterator[Node]:
        """Everything in its JSON document, the document first."""
        left = [] if self.document is None else [Node(self.document, (), {})]
        while left:
            node = left.pop()
            yield node
            if (inside := node.row) is not None:
                left += [Node(item, (*node.keys, key), inside) for key, item in reversed(inside.items())]
            elif isinstance(node.value, list):
                left += [Node(item, node.keys, node.beside) for item in reversed(cast("list[Any]", node.value))]

    def passages(self) -> Iterator[str]:
        """Its text, and each fenced block of it."""
        if self.text is not None:
            yield self.text
            yield from (match[1] for match in _FENCED.finditer(self.text))

    def keys(self) -> list[note.VerifierKey]:
        """Every verifier key in its text. What is shaped like one and is none is left to those who judge keys."""
        found: dict[note.VerifierKey, None] = {}
        for match in VKEY.finditer(self.text or ""):
            try:
                found[note.parse_vkey(match[0])] = None
            except Malformed:
                continue
        return list(found)


class Folder:
    """All files under a folder, and what could not be judged and why."""

    def __init__(self, root: Path) -> None:
        self.root = root
        paths = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
        found = [File(root, path) for path in paths if ".git" not in path.relative_to(root).parts]
        self.files = [file for file in found if file.size <= LARGEST]
        self.left_out = {file.name: f"larger than {LARGEST} bytes" for file in found if file.size > LARGEST}
        self._by_folder: dict[Path, list[File]] = {}
        for file in self.files:
            self._by_folder.setdefault(file.path.parent, []).append(file)
        self._keys: dict[Path, list[note.VerifierKey]] = {}

    def beside(self, folder: Path) -> list[File]:
        """The files right in a folder."""
        return self._by_folder.get(folder, [])

    def keys_near(self, folder: Path) -> list[note.VerifierKey]:
        """The verifier keys in text files of a folder and of the one above, as far as that is ours to read."""
        return list(dict.fromkeys(key for place in (folder, folder.parent) for key in self._keys_in(place)))

    def _keys_in(self, folder: Path) -> list[note.VerifierKey]:
        if folder not in self._keys:
            small = [file for file in self.beside(folder) if file.size <= NEAR]
            self._keys[folder] = [key for file in small for key in file.keys()]  # noqa: SIM118 - not a dict's
        return self._keys[folder]


def faulted(check: Callable[[], object], *refusals: type[Exception], refused: bool = False) -> Fault:
    """Run a check that raises one of `refusals` when our code refuses, and say what is wrong with that."""
    try:
        check()
    except refusals as fault:
        return None if refused else f"refused: {fault}"
    return "accepted; it is to be refused" if refused else None
