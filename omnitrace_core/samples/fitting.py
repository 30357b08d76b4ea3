"""Fit loose values into the shape of a sample row.

A fitted row has every key, and each value has its type or is None, so the row can always be stored.
A value that does not fit becomes None and adds one line to a list of problems.
"""

from __future__ import annotations

import numbers
import types
from collections.abc import Mapping, Sequence
from typing import Union, cast, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np

from omnitrace_core.samples.rows import Int32, Int64, SampleRow
from omnitrace_core.samples.values import any_text, as_bytes, as_list, is_missing, shorten

# A leaf's name, a list of one shape, or a struct of named shapes.
Shape = str | Sequence["Shape"] | Mapping[str, "Shape"]

_LEAVES: dict[object, str] = {
    str: "text",
    bool: "bool",
    float: "float",
    bytes: "bytes",
    Int32: "int32",
    Int64: "int64",
    dict[str, str]: "map",
}
_EXPECTED = {
    "text": "text",
    "bool": "true or false",
    "float": "a number",
    "bytes": "bytes",
    "int32": "a whole number of 32 bits",
    "int64": "a whole number of 64 bits",
    "map": "a mapping",
}


def shape_of(hint: object) -> Shape:
    """The shape that a typed dict (or a field's type hint) describes."""
    if get_origin(hint) in (Union, types.UnionType):
        hint = next(arg for arg in get_args(hint) if arg is not types.NoneType)
    if get_origin(hint) is list:
        return [shape_of(get_args(hint)[0])]
    if is_typeddict(hint):
        fields = get_type_hints(hint, include_extras=True)
        return {name: shape_of(inner) for name, inner in fields.items()}
    return _LEAVES[hint]


SAMPLE_SHAPE = shape_of(SampleRow)


def fit_row(row: Mapping[str, object]) -> tuple[SampleRow, list[str]]:
    """The row with every key of a sample and values of the right types, and its problems."""
    problems: list[str] = []
    return cast(SampleRow, fit(dict(row), SAMPLE_SHAPE, "", problems)), problems


def fit(value: object, shape: Shape, where: str, problems: list[str]) -> object:
    """Fit one value into a shape; None stays None.

    where: path of the value, for messages. problems: gets one line per value that does not fit;
    such a value becomes None.
    """
    if value is None:
        return None
    if isinstance(shape, str):
        return _fit_leaf(value, shape, where, problems)
    if isinstance(shape, Mapping):
        if not isinstance(value, Mapping):
            problems.append(f"{where} is {shorten(value)}, not a mapping")
            return None
        dot = f"{where}." if where else ""
        return {
            name: fit(value.get(name), inner, dot + name, problems) for name, inner in shape.items()
        }
    items = as_list(value)
    if items is None:
        problems.append(f"{where} is {shorten(value)}, not a list")
        return None
    return [fit(item, shape[0], f"{where}[{i}]", problems) for i, item in enumerate(items)]


def _fit_leaf(value: object, kind: str, where: str, problems: list[str]) -> object:
    if kind == "map":
        return _fit_map(value, where, problems)
    fitted: object = None
    if kind == "text":
        fitted = value if isinstance(value, str) else None
        if fitted is not None and not _storable(value):
            problems.append(
                f"{where} is {shorten(value)}, which has a lone surrogate: not valid text"
            )
            return None
    elif kind == "bytes":
        fitted = as_bytes(value)
    elif kind == "bool":
        fitted = bool(value) if isinstance(value, bool | np.bool_) else None
    elif isinstance(value, numbers.Real) and not isinstance(value, bool):
        fitted = _fit_number(value, kind)
    if fitted is None:
        problems.append(f"{where} is {shorten(value)}, not {_EXPECTED[kind]}")
    return fitted


def _fit_number(value: numbers.Real, kind: str) -> float | int | None:
    try:
        number = int(value) if isinstance(value, numbers.Integral) else float(value)
        if kind == "float":
            return float(number)
        whole = int(number)
    except (OverflowError, ValueError):  # an integer beyond float64; int() of infinity or NaN
        return None
    limit = 2 ** (31 if kind == "int32" else 63)
    return whole if whole == number and -limit <= whole < limit else None


def _fit_map(value: object, where: str, problems: list[str]) -> dict[str, str] | None:
    """Text by text, from a mapping or from the (key, value) pairs that Arrow returns for a map."""
    pairs = list(value.items()) if isinstance(value, Mapping) else as_list(value)
    if pairs is None or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
        problems.append(f"{where} is {shorten(value)}, not {_EXPECTED['map']}")
        return None
    fitted: dict[str, str] = {}
    for key, item in cast("list[tuple[object, object]]", pairs):
        text = any_text(item)
        if text is not None and _storable(text) and _storable(str(key)):
            fitted[str(key)] = text
        elif not is_missing(item):
            problems.append(f"{where}[{shorten(key)}] is {shorten(item)}, not text")
    return fitted


def _storable(text: object) -> bool:
    """Whether UTF-8 can encode the text; JSON can hold lone surrogates, UTF-8 cannot."""
    try:
        str(text).encode()
    except UnicodeEncodeError:
        return False
    return True
