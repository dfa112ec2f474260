"""Published signatures of Ed25519 (Wycheproof) and canonical JSON (RFC 8785) against our own code."""

import functools
import hashlib
import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from infra.notary import verify
from schemas import canonical, jcs
from schemas.tlog.curve import has_prime_order
from tools.bench.conformance_files import NEAR, Case, Fault, File, Folder, Node, faulted

_HEX = re.compile(r"(?:[0-9a-fA-F]{2}\s*)+")
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"')
_NUMBER = re.compile(r"([0-9a-f]{1,16}),(-?[0-9.e+-]+)")
_EXPECTED = re.compile(r"out|expect|canonical|result", re.IGNORECASE)
_worthy = functools.cache(has_prime_order)
_OUTCOMES = {"valid": True, "invalid": False, "acceptable": None}


def signatures(file: File, node: Node) -> Iterator[Case]:
    """Test groups of Wycheproof over edwards25519. A signature counts under a key of prime order only."""
    if (group := node.row) is None:
        return
    key = group.get("publicKey", group.get("key"))
    if isinstance(key, dict) and isinstance(group.get("tests"), list):
        public = cast("dict[str, Any]", key)
        if public.get("curve") in ("edwards25519", "Ed25519") and isinstance(public.get("pk"), str):
            for test in group["tests"]:
                yield Case("wycheproof", f"{file.name} tcId {test.get('tcId')}", _signature(public["pk"], test))


def _signature(key_hex: str, test: Mapping[str, Any]) -> Fault:
    try:
        key, message, signature = (bytes.fromhex(text) for text in (key_hex, test["msg"], test["sig"]))
        wanted = _OUTCOMES[test["result"]]
    except (KeyError, TypeError, ValueError) as fault:
        return f"not understood: {fault}"
    said = _worthy(key) and verify(key, message, signature)
    return None if wanted in (None, said) else f"we say {'valid' if said else 'invalid'}"


def documents(folder: Folder) -> Iterator[Case]:
    """JSON documents and their canonical form: as hex, as another document, or both, one case for each form.

    Hex belongs to the documents of its value, and to those of its name in folders beside its own: so a form that is
    wrong still meets its document.
    """
    by_value: dict[str, list[File]] = {}
    by_name: dict[tuple[Path, str], list[File]] = {}
    forms: list[tuple[File, bytes]] = []
    for file in folder.files:
        if file.size > NEAR:
            continue
        if file.data.lstrip()[:1] in (
            b"{",
            b"[",
        ):  # also where it is no JSON any more: its name may say whose form it was
            by_name.setdefault(_name_of(file), []).append(file)
            if file.document is not None:
                by_value.setdefault(_value_of(file.document), []).append(file)
        elif (form := _unhexed(file.text)) is not None:
            forms.append((file, form))
        file.forget()
    told: set[str] = set()
    for file, form in forms:
        value = _parsed(form)
        named = [other for other in by_name.get(_name_of(file), []) if other.path.parent != file.path.parent]
        alike = by_value.get(_value_of(value), []) if value is not None else []
        partners = {other.name: other for other in (*named, *alike)}
        if not partners:
            folder.left_out[file.name] = "hex of JSON, and no document of that value or name"
            continue
        told |= partners.keys()
        found = [other.data for other in partners.values()]
        fault = None if len(found) < 2 or form in found else "the document that is given as its form has other bytes"
        yield Case("jcs", file.name, fault or _all_become(found, form))
    for family in by_name.values():
        form_file = _form_of([file for file in family if file.name not in told])
        if form_file is not None:
            found = [file.data for file in family if file is not form_file]
            yield Case("jcs", form_file.name, _all_become(found, form_file.data))


def pairs(file: File, node: Node) -> Iterator[Case]:
    """Documents and the hex of their canonical form inside one JSON document."""
    texts = [text for text in (node.row or {}).values() if isinstance(text, str)]
    forms = [form for text in texts if (form := _unhexed(text)) is not None]
    found = [data for text in texts if _parsed(data := text.encode("utf-8", "replace")) is not None]
    if len(forms) == 1 and found:
        yield Case("jcs", f"{file.name} {'.'.join(node.keys)}", _all_become(found, forms[0]))


def numbers(file: File) -> Iterator[Case]:
    """Lines of a double's bits as hex and what ECMAScript writes for it. One case for the file."""
    lines = file.text.splitlines() if file.text is not None else []
    if len(lines) < 2 or any(_NUMBER.fullmatch(line) is None for line in lines[:100]):
        return
    for at, line in enumerate(lines, 1):
        match = _NUMBER.fullmatch(line)
        if match is None or jcs.number(struct.unpack(">d", bytes.fromhex(match[1].zfill(16)))[0]) != match[2]:
            yield Case("numbers", file.name, f"line {at}: {line[:60]!r}")
            return
    yield Case("numbers", file.name, None)


def _all_become(found: Sequence[bytes], form: bytes) -> Fault:
    return next((fault for data in found if (fault := _becomes(data, form)) is not None), None)


def _becomes(data: bytes, form: bytes) -> Fault:
    """The whole of JCS gives the form; what evidence writes gives it too, or is refused where it says so."""

    def whole() -> None:
        made = jcs.canonicalize(data)
        if made != form:
            raise canonical.NotCanonical(f"our form is {made[:80]!r}")

    def ours() -> None:
        if canonical.encode(value) != form:
            raise AssertionError("restricted JCS writes other bytes than RFC 8785")

    fault = faulted(whole, canonical.NotCanonical)
    if fault is not None:
        return fault
    value = json.loads(data)
    return faulted(ours, canonical.NotCanonical, refused=_outside(value))


def _outside(value: Any) -> bool:
    """Whether evidence may not hold it: a float, a great integer, a key outside ASCII."""
    if isinstance(value, dict):
        rows = cast("dict[str, Any]", value)
        return any(not key.isascii() or _outside(item) for key, item in rows.items())
    if isinstance(value, list):
        return any(map(_outside, cast("list[Any]", value)))
    return isinstance(value, float) or (isinstance(value, int) and abs(value) >= 2**53)


def _name_of(file: File) -> tuple[Path, str]:
    return file.path.parent.parent, file.path.stem


def _parsed(data: bytes) -> Any:
    """The object or list that these bytes are as JSON, else None."""
    if data.lstrip()[:1] not in (b"{", b"["):
        return None
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _value_of(value: Any) -> str:
    """Alike for equal values, however they are written: as Python's own printer has it, not ours."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _unhexed(text: str | None) -> bytes | None:
    """The bytes of a text that is nothing but hex of something that opens like a JSON object or list."""
    if text is None or _HEX.fullmatch(text) is None:
        return None
    data = bytes.fromhex(text)
    return data if data[:1] in (b"{", b"[") else None


def _form_of(family: Sequence[File]) -> File | None:
    """Which of some documents of one name is given as the form of the others: compact, and the only one that can be."""
    folders = {file.path.parent for file in family}
    compact = [file for file in family if not re.search(rb"\s", _STRINGS.sub(b"", file.data))]
    if len(folders) < 2 or not compact:
        return None
    named = [file for file in compact if _EXPECTED.search(file.path.parent.name)]
    if len(named) == 1:
        return named[0]
    alike = len({_value_of(file.document) for file in family}) == 1
    return compact[0] if alike and len(compact) == 1 else None
