"""Base of all settings: what every field refuses, whatever its type."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

MAX_TEXT_CHARS = 4096
_MAX_DEPTH = 3

_DEVICE = re.compile("auto|cpu|mps|(cuda|xpu)(:[0-9]{1,3})?")


def _known_device(device: str) -> str:
    if not _DEVICE.fullmatch(device):
        raise ValueError("no such device; valid: auto, cpu, cuda, cuda:0, xpu, mps")
    return device


Device = Annotated[str, AfterValidator(_known_device)]


def _whole_above_one(gpus: float) -> float:
    if gpus > 1 and not gpus.is_integer():
        raise ValueError("above 1, Ray reserves only whole GPUs")
    return gpus


Gpus = Annotated[float, Field(ge=0, le=1024), AfterValidator(_whole_above_one)]


class Options(BaseModel):
    """Base of all settings: frozen; unknown keys are errors.

    No number is infinite or NaN, true and false are not numbers, and no text is blank, longer than
    MAX_TEXT_CHARS, or holds NUL or what UTF-8 cannot write.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_absurd_value(cls, value: object, info: ValidationInfo) -> object:
        hint = cls.model_fields[str(info.field_name)].annotation
        if isinstance(hint, type) and issubclass(hint, BaseModel):
            return value  # a section: its own fields are checked
        problem = next(_problems(value, _holds_numbers(hint)), None)
        if problem:
            raise ValueError(problem)
        return value


def text_problem(text: str) -> str | None:
    """Why a setting or an address cannot be this text; None if it can."""
    if not text.strip():
        return "is blank"
    if len(text) > MAX_TEXT_CHARS:
        return f"has {len(text):,} characters; at most {MAX_TEXT_CHARS:,} are valid"
    if "\0" in text:
        return "holds a NUL character; leave it out"
    if not is_utf8(text):
        return "is not valid UTF-8; rename it"
    return None


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can write the text; names of files are bytes, which it cannot always."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _problems(value: object, takes_numbers: bool, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        if problem := text_problem(value):
            yield problem
    elif isinstance(value, bool):
        if takes_numbers:
            yield "is not a number"
    elif depth == _MAX_DEPTH:
        return  # no field holds lists of lists, so pydantic refuses it
    elif isinstance(value, Mapping):
        for item in [*value.keys(), *value.values()]:
            yield from _problems(item, takes_numbers, depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _problems(item, takes_numbers, depth + 1)


def _holds_numbers(hint: object) -> bool:
    """Whether a field of this type holds numbers, and neither true nor false."""
    inner = [hint, *_inner_types(hint)]
    return (int in inner or float in inner) and bool not in inner


def _inner_types(hint: object) -> Iterator[object]:
    for inner in get_args(hint):
        yield inner
        yield from _inner_types(inner)
