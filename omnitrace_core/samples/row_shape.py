"""The plain-dict shape of a sample row, and fitting loose values into it.

The typed dicts below mirror the Arrow schema of a sample field by field (a test compares them), so
a fitted row can always be stored: every key is there, every value has its type or is None. What
does not fit becomes None and one line in a list of problems; nothing is dropped in silence.
"""

from __future__ import annotations

import datetime
import decimal
import json
import math
import numbers
import reprlib
import types
import uuid
from collections.abc import Mapping, Sequence
from typing import (
    Annotated,
    TypedDict,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import numpy as np

from omnitrace_core.addresses import is_web, shown_address

Int32 = Annotated[int, "int32"]
Int64 = Annotated[int, "int64"]


class WordRow(TypedDict):
    """A word of a speech segment."""

    text: str | None
    start_s: float | None
    end_s: float | None


class SegmentRow(TypedDict):
    """A stretch of speech."""

    start_s: float | None
    end_s: float | None
    text: str | None
    words: list[WordRow | None] | None


class PartOptionsRow(TypedDict):
    """Media options of one part."""

    fps: float | None
    nframes: Int32 | None
    min_frames: Int32 | None
    max_frames: Int32 | None
    min_pixels: Int64 | None
    max_pixels: Int64 | None
    total_pixels: Int64 | None
    video_start: float | None
    video_end: float | None
    audio_start: float | None
    audio_end: float | None


class PartRow(TypedDict):
    """A content part; `type` is kept as met, also when it is none of ours."""

    type: str | None
    text: str | None
    uri: str | None
    data: bytes | None
    evidence: bool | None
    options: PartOptionsRow | None
    segments: list[SegmentRow | None] | None


class MessageRow(TypedDict):
    """A chat turn."""

    role: str | None
    content: list[PartRow | None] | None


class LabelSourceRow(TypedDict):
    """A piece of reference evidence."""

    modality: str | None
    part_index: Int32 | None
    char_start: Int32 | None
    char_end: Int32 | None
    box: list[float | None] | None
    start_s: float | None
    end_s: float | None
    group: Int32 | None


class LabelRow(TypedDict):
    """Reference evidence of one statement."""

    statement: str | None
    char_start: Int32 | None
    char_end: Int32 | None
    sources: list[LabelSourceRow | None] | None


class SampleRow(TypedDict):
    """A sample as it is stored."""

    sample_id: str | None
    messages: list[MessageRow | None] | None
    response: str | None
    response_token_ids: list[Int32 | None] | None
    reference_answer: str | None
    options: list[str | None] | None
    labels: list[LabelRow | None] | None
    metadata: dict[str, str] | None


# The metadata key under which a row that could not be understood says why.
INGEST_ERROR = "ingest_error"

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
_WANTED = {
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
    """The row with every key of a sample and values of the right types; and what did not fit."""
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
            problems.append(f"{where} is {clip(value)}, not a mapping")
            return None
        dot = f"{where}." if where else ""
        return {
            name: fit(value.get(name), inner, dot + name, problems) for name, inner in shape.items()
        }
    items = as_list(value)
    if items is None:
        problems.append(f"{where} is {clip(value)}, not a list")
        return None
    return [fit(item, shape[0], f"{where}[{i}]", problems) for i, item in enumerate(items)]


def as_list(value: object) -> list[object] | None:
    """A list's, tuple's or numpy array's items; None for everything else."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    return list(value) if isinstance(value, list | tuple) else None


def as_bytes(value: object) -> bytes | None:
    """The bytes of a bytes-like value; None for everything else."""
    return bytes(value) if isinstance(value, bytes | bytearray | memoryview) else None


def is_missing(value: object) -> bool:
    """None, or NaN, which tables use for it."""
    return value is None or (isinstance(value, float | np.floating) and math.isnan(value))


def scalar_text(value: object) -> str | None:
    """A scalar as text; None for missing values (None, NaN) and for everything nested or binary."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, numbers.Real):
        return None if is_missing(value) else str(value)
    if isinstance(value, datetime.date | datetime.time | decimal.Decimal | uuid.UUID):
        return str(value)
    return None


def any_text(value: object) -> str | None:
    """A scalar as it reads, anything nested as JSON; None if missing or if JSON cannot say it."""
    if is_missing(value) or (text := scalar_text(value)) is not None:
        return None if is_missing(value) else text
    try:
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # unknown types, cycles, bottomless nesting
        return None


class _ShortRepr(reprlib.Repr):
    """Bounded in length and depth; the plain one would spell out megabytes of media first."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80
        self.maxlevel = 3

    def repr_str(self, value: str, level: int) -> str:
        return super().repr_str(shown_address(value) if is_web(value) else value, level)

    def repr_bytes(self, value: bytes, level: int) -> str:
        return f"<{len(value):,} bytes>"


_SHORT = _ShortRepr()


def clip(value: object) -> str:
    """A short, one-line picture of any value, for messages."""
    return " ".join(_SHORT.repr(value).split())


def _fit_leaf(value: object, kind: str, where: str, problems: list[str]) -> object:
    if kind == "map":
        return _fit_map(value, where, problems)
    fitted: object = None
    if kind == "text":
        fitted = value if isinstance(value, str) else None
        if fitted is not None and not _storable(value):
            problems.append(f"{where} is {clip(value)}, which has a lone surrogate: not valid text")
            return None
    elif kind == "bytes":
        fitted = as_bytes(value)
    elif kind == "bool":
        fitted = bool(value) if isinstance(value, bool | np.bool_) else None
    elif isinstance(value, numbers.Real) and not isinstance(value, bool):
        fitted = _fit_number(value, kind)
    if fitted is None:
        problems.append(f"{where} is {clip(value)}, not {_WANTED[kind]}")
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
    """Text to text; takes a mapping or the (key, value) pairs that Arrow returns for a map."""
    pairs = list(value.items()) if isinstance(value, Mapping) else as_list(value)
    if pairs is None or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
        problems.append(f"{where} is {clip(value)}, not {_WANTED['map']}")
        return None
    fitted: dict[str, str] = {}
    for key, item in cast("list[tuple[object, object]]", pairs):
        text = any_text(item)
        if text is not None and _storable(text) and _storable(str(key)):
            fitted[str(key)] = text
        elif not is_missing(item):
            problems.append(f"{where}[{clip(key)}] is {clip(item)}, not text")
    return fitted


def _storable(text: object) -> bool:
    """Whether the text is valid Unicode: JSON can spell lone surrogates, UTF-8 files cannot."""
    try:
        str(text).encode()
    except UnicodeEncodeError:
        return False
    return True
