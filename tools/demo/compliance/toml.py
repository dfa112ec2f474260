"""A model's settings as a TOML file, for the commands that take one. Pure."""

import json
from typing import cast

from pydantic import BaseModel


def written(model: BaseModel) -> str:
    """What differs from the defaults, a line each."""
    found = model.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    return "".join(f"{name} = {_value(value)}\n" for name, value in found.items())


def _value(value: object) -> str:
    if isinstance(value, dict):
        rows = cast("dict[str, object]", value)
        return "{ " + ", ".join(f"{_key(name)} = {_value(one)}" for name, one in rows.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(_value(one) for one in cast("list[object]", value)) + "]"
    return json.dumps(value, ensure_ascii=False)  # texts, numbers, truth values: as TOML writes them


def _key(name: str) -> str:
    return json.dumps(name)
