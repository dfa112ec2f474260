"""A route file: TOML that an operator writes, validated whole into a `Route`; a router file: its table `routing` alone.

Every error is named at once, with file and field.
"""

import json
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from schemas.errors import Refused
from schemas.payload import Strict
from schemas.routes import Route
from schemas.routing import RoutingSettings
from tools.declared import errors, read_toml, refused

WHOLE_ROUTE = frozenset({"route", "champion", "arms", "arm"})  # a file that says one of these is a route file
TENANTS_OWN = frozenset({"purposes", "flows"})


def read_route(file: Path) -> Route:
    """The route that the file declares. Raises `Refused` once, with a line `file: field: what is wrong` per error."""
    return parse_route(read_toml(file, "route-file"), str(file))


def read_routing(file: Path, route: Route | None = None) -> RoutingSettings:
    """The routing policy that a router file, or a route file, declares; its arms must be the route's where one is given.

    Raises `Refused` as `read_route`.
    """
    declared = read_toml(file, "route-file")
    if WHOLE_ROUTE & declared.keys():
        declared = {"routing": parse_route(declared, str(file)).routing.model_dump()}
    problems = [f"{file}: {name}: no setting of a router file" for name in declared if name != "routing"]
    problems += [] if "routing" in declared else [f"{file}: routing: is missing"]
    if problems:
        accepted = "a table [routing] alone, or a whole route file"
        raise Refused(f"{'; '.join(problems)}; accepted: {accepted}", kind="route-file", field="routing")
    if route is None:
        arms = _named(declared["routing"])
        bare = {"route": "r", "champion": "r", "arms": [{"arm": arm, "base": "b"} for arm in sorted({"r", *arms})]}
    else:
        bare = route.model_dump(exclude={"routing", "trial", "trial_share"})
    return parse_route(bare | declared, str(file)).routing


def _named(routing: object) -> set[str]:
    """Arms that a table names, whatever else is wrong with it."""
    try:
        return set(RoutingSettings.model_validate(routing).named().values())
    except ValidationError:
        return set()


def parse_route(declared: dict[str, Any], name: str) -> Route:
    """The same for a parsed file; `name` is what the messages call it."""
    if TENANTS_OWN & declared.keys() and not WHOLE_ROUTE & declared.keys():
        raise Refused(f"{name}: is a tenant's file: `ratchet tenant apply {name}`", kind="route-file")
    try:
        return Route.model_validate(_tuples(declared))
    except ValidationError as fault:
        found = [
            row
            for row in errors(fault)
            if not (row["type"] == "too_short" and row["loc"] == ("arms",) and declared.get("arms"))  # said per arm
        ]
        raise refused(found, Route, name, "route-file") from None


def _tuples(declared: dict[str, Any]) -> dict[str, Any]:
    """`[[arm]]` reads as well as `[[arms]]`: a table per arm."""
    if "arm" in declared and "arms" not in declared and isinstance(declared["arm"], list):
        declared = {**declared, "arms": cast("list[Any]", declared["arm"])}
        del declared["arm"]
    return declared


def table(name: str, settings: Strict) -> str:
    """The settings as a table of a TOML file: all that is not a default."""
    return "".join(_table(name, settings.model_dump(mode="json", exclude_defaults=True)))


def _table(name: str, fields: dict[str, Any]) -> list[str]:
    inner = {key: _rows(value) for key, value in fields.items()}
    lines = [f"[{name}]\n"]
    lines += [f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in fields.items() if not inner[key]]
    for key, rows in inner.items():
        for row in rows:
            head, *rest = _table(f"{name}.{key}", row)
            lines += ["\n", head if isinstance(fields[key], dict) else f"[{head.rstrip()}]\n", *rest]
    return lines


def _rows(value: Any) -> list[dict[str, Any]]:
    """The tables of a value: one, those of an array, none of anything else."""
    rows = cast("list[Any]", value) if isinstance(value, list) else [value]
    return [cast("dict[str, Any]", row) for row in rows if isinstance(row, dict)]
