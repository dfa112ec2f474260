"""Files that people write: TOML, validated whole. Every error is named at once, with file and field."""

import difflib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from schemas.errors import Refused
from schemas.payload import Strict


def read_toml(file: Path, kind: str) -> dict[str, Any]:
    """What the file says, not yet validated. Raises `Refused` of this kind."""
    try:
        raw = file.read_bytes()
    except OSError as fault:
        raise Refused(f"{file}: cannot be read: {fault.strerror}; give a TOML file", kind=kind) from fault
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as fault:
        raise Refused(f"{file}: byte {fault.start} is not UTF-8; TOML files are", kind=kind) from fault
    except tomllib.TOMLDecodeError as fault:
        raise Refused(f"{file}: not TOML: {fault}", kind=kind) from fault


def errors(fault: ValidationError) -> list[ErrorDetails]:
    """What is wrong with it, without the values of anything but the field itself."""
    return fault.errors(include_url=False, include_context=False)


def refused(found: Sequence[ErrorDetails], model: type[Strict], name: str, kind: str) -> Refused:
    """All of them at once, a line `name: field: what is wrong` each; what settings a table knows is said once."""
    lines: list[str] = []
    known: set[str] = set()
    for row in found:
        said = _said(model, row["type"], row["msg"], row["loc"], row.get("input"))
        if row["type"] == "extra_forbidden" and said in known:
            said = "no such setting"
        known.add(said)
        lines.append(f"{name}: {path(row['loc'])}: {said}")
    return Refused("\n".join(lines), kind=kind, field=path(found[0]["loc"]))


def path(loc: tuple[int | str, ...]) -> str:
    """A place in the file as people write it."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "(the whole file)"


def _said(model: type[Strict], kind: str, message: str, loc: tuple[int | str, ...], given: object) -> str:
    message = message.removeprefix("Value error, ")
    if kind == "extra_forbidden":
        fields = _fields(model, loc)
        near = difflib.get_close_matches(str(loc[-1]), fields, 1)
        return "no such setting; " + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(fields)}")
    if kind == "missing":
        return "is missing"
    if isinstance(given, str | int | float | bool):
        return f"{given!r} is not accepted: {message}"
    return message


def _fields(model: type[Strict], loc: tuple[int | str, ...]) -> list[str]:
    """The settings of the table in which the last of these stands."""
    for part in loc[:-1]:
        if isinstance(part, str) and part in model.model_fields:
            model = next(iter(_tables(model.model_fields[part].annotation)), model)
    return list(model.model_fields)


def _tables(annotation: Any) -> list[type[Strict]]:
    """The kinds of table in a type: `Strict`, an optional one, a tuple of them."""
    if isinstance(annotation, type) and issubclass(annotation, Strict):
        return [annotation]
    return [found for part in get_args(annotation) for found in _tables(part)]
