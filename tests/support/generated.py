"""Any event of a model: generated from its annotations, free text where the model lets it in."""

import types
import typing
from collections.abc import Callable
from typing import Any, Literal

from hypothesis import strategies as st
from pydantic import BaseModel
from pydantic.fields import FieldInfo

Text = st.SearchStrategy[str]


def payloads(
    model: type[BaseModel], free: Text, *, pattern: Callable[[str], Text] | None = None
) -> st.SearchStrategy[dict[str, Any]]:
    """JSON values that the model takes, but for what its own validators ask besides. `free` is for every string without a pattern."""
    by_pattern = pattern or (lambda text: st.from_regex(text, fullmatch=True))
    required = {
        name: _of(row.annotation, row, free, by_pattern)
        for name, row in model.model_fields.items()
        if row.is_required()
    }
    optional = {
        name: _of(row.annotation, row, free, by_pattern)
        for name, row in model.model_fields.items()
        if not row.is_required()
    }
    return st.fixed_dictionaries(required, optional=optional)


def _of(annotation: Any, row: FieldInfo, free: Text, by_pattern: Callable[[str], Text]) -> st.SearchStrategy[Any]:
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _of(inside[0], FieldInfo.from_annotation(annotation), free, by_pattern)
    if origin is Literal:
        return st.sampled_from(inside)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*(st.none() if one is types.NoneType else _of(one, row, free, by_pattern) for one in inside))
    if origin is tuple:
        return st.lists(_of(inside[0], row, free, by_pattern), max_size=3)
    if origin is dict:
        return st.dictionaries(free, _of(inside[1], row, free, by_pattern), max_size=3)
    if annotation is str:
        found = next((item.pattern for item in row.metadata if getattr(item, "pattern", None)), None)
        return free if found is None else by_pattern(found)
    if annotation is bool:
        return st.booleans()
    if annotation is int:
        return st.integers(_bound(row, "ge", 0), _bound(row, "le", (1 << 53) - 1))
    if annotation is float:
        return st.floats(_bound(row, "ge", 0), _bound(row, "le", 1), allow_nan=False)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return payloads(annotation, free, pattern=by_pattern)
    return free


def _bound(row: FieldInfo, name: str, otherwise: int) -> int:
    return next((getattr(item, name) for item in row.metadata if getattr(item, name, None) is not None), otherwise)
