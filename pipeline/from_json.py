"""Build a dataclass from stored JSON; a value of a wrong type is an error that names the field."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

Value = TypeVar("Value")
_MAX_SHOWN = 80  # characters of a value


def from_json(kind: type[Value], content: object, name: str = "") -> Value:
    """The value of this type that the JSON value holds; fields that it does not have are ignored.

    name: of the value, for messages.

    Raises:
        ValueError: a field is missing, or has a wrong type.
    """
    of_any_type: Any = kind
    try:
        value: Value = _adapter(of_any_type).validate_python(content)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(item) for item in (name, *problem["loc"]) if item != "")
        found = "" if problem["type"] == "missing" else f", not {problem['input']!r}"[:_MAX_SHOWN]
        message = f"{problem['msg'][:1].lower()}{problem['msg'][1:]}{found}"
        raise ValueError(f"{place}: {message}" if place else message) from None
    return value


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
