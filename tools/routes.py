"""A route file: TOML that an operator writes, validated whole into a `Route`.

Every error is named at once, with file and field.
"""

import difflib
import tomllib
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from schemas.errors import Refused
from schemas.payload import Strict
from schemas.routes import Arm, GraderSettings, JudgeSettings, Route, TrainingSettings, TrustSettings
from schemas.routing import (
    BudgetSettings,
    CacheSettings,
    CascadeSettings,
    EmergencySettings,
    Price,
    QuotaSettings,
    RoutingSettings,
)

_TABLES: dict[str, type[Strict]] = {
    "arms": Arm,
    "judge": JudgeSettings,
    "trust": TrustSettings,
    "training": TrainingSettings,
    "grading": GraderSettings,
    "routing": RoutingSettings,
}
_OF_ROUTING: dict[str, type[Strict]] = {
    "budget": BudgetSettings,
    "cache": CacheSettings,
    "cascade": CascadeSettings,
    "emergency": EmergencySettings,
    "prices": Price,
    "quota": QuotaSettings,
}


def read_route(file: Path) -> Route:
    """The route that the file declares. Raises `Refused` once, with a line `file: field: what is wrong` per error."""
    try:
        raw = file.read_bytes()
    except OSError as fault:
        raise Refused(f"{file}: cannot be read: {fault.strerror}; give a TOML file", kind="route-file") from fault
    try:
        declared = tomllib.loads(raw.decode("utf-8"))
    except UnicodeDecodeError as fault:
        raise Refused(f"{file}: byte {fault.start} is not UTF-8; TOML files are", kind="route-file") from fault
    except tomllib.TOMLDecodeError as fault:
        raise Refused(f"{file}: not TOML: {fault}", kind="route-file") from fault
    return parse_route(declared, str(file))


def parse_route(declared: dict[str, Any], name: str) -> Route:
    """The same for a parsed file; `name` is what the messages call it."""
    try:
        return Route.model_validate(_tuples(declared))
    except ValidationError as fault:
        problems = [
            f"{name}: {_path(row['loc'])}: {_said(row['type'], row['msg'], row['loc'], row.get('input'))}"
            for row in fault.errors(include_url=False, include_context=False)
            if not (row["type"] == "too_short" and row["loc"] == ("arms",) and declared.get("arms"))  # said per arm
        ]
        raise Refused("\n".join(problems), kind="route-file", field=_path(fault.errors()[0]["loc"])) from None


def _tuples(declared: dict[str, Any]) -> dict[str, Any]:
    """`[[arm]]` reads as well as `[[arms]]`: a table per arm."""
    if "arm" in declared and "arms" not in declared and isinstance(declared["arm"], list):
        declared = {**declared, "arms": cast("list[Any]", declared["arm"])}
        del declared["arm"]
    return declared


def _path(loc: tuple[int | str, ...]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text or "(the whole file)"


def _said(kind: str, message: str, loc: tuple[int | str, ...], given: object) -> str:
    message = message.removeprefix("Value error, ")
    if kind == "extra_forbidden":
        fields = _fields(loc)
        near = difflib.get_close_matches(str(loc[-1]), fields, 1)
        return "no such setting; " + (f"did you mean {near[0]!r}?" if near else f"known are {', '.join(fields)}")
    if kind == "missing":
        return "is missing"
    if isinstance(given, str | int | float | bool):
        return f"{given!r} is not accepted: {message}"
    return message


def _fields(loc: tuple[int | str, ...]) -> list[str]:
    model = _TABLES.get(str(loc[0]), Route) if len(loc) > 1 else Route
    if len(loc) > 2 and loc[0] == "routing":
        model = _OF_ROUTING.get(str(loc[1]), model)
    return list(model.model_fields)
