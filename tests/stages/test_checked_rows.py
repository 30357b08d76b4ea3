"""Rows that the read stage checks and later stages build, against the strict parser."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from omnitrace_core.errors import InvalidSample
from omnitrace_core.samples.fitting import fit_row
from omnitrace_core.samples.forms import normalise
from omnitrace_core.samples.parse import parse_any, to_sample
from stages.arrow.chunk import state_rows
from stages.arrow.sample_schema import SAMPLE
from tests.core.samples.test_parse import BAD_LABELS, BAD_ROWS
from tests.stages.chunks import codes_of, errors_of, read_chunk, text_row

WORDS = [
    {"text": "Hello", "start_s": 0.0, "end_s": 0.5},
    {"text": "!", "start_s": 0.5, "end_s": 0.5},
]
SEGMENTS = [
    {"start_s": 0.0, "end_s": 1.0, "text": "Hello!", "words": WORDS},
    {"start_s": 1.5, "end_s": 2.0},
]
# Every accepted form, and every field of a sample, set and unset.
ACCEPTED: dict[str, Mapping[str, object]] = {
    "chat": {
        "id": 7,
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "i.png"}}]},
            {"role": "assistant", "content": "Is this it?"},
            {
                "role": "user",
                "content": [
                    {"type": "input_audio", "input_audio": {"data": "YWJj", "format": "wav"}},
                    {"type": "video_url", "video_url": {"url": "https://h/v.mp4"}, "fps": 2},
                    {"type": "text", "text": "Ünï 👍\n", "evidence": False},
                ],
            },
            {"role": "assistant", "content": "Yes."},
        ],
        "source": "a table",
    },
    "batch line": {
        "custom_id": "b-1",
        "body": {"model": "m", "messages": [{"role": "user", "content": "Why?"}]},
    },
    "qwen": {
        "sample_id": "q",
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "video",
                        "video": "v.mp4",
                        "fps": 1.5,
                        "video_start": 0,
                        "video_end": 3,
                    },
                    {"type": "image", "image": b"\x89PNG", "max_pixels": 2**40},
                    {"type": "audio", "audio": "a.wav", "segments": SEGMENTS},
                    {"type": "audio", "audio": "b.wav", "segments": []},
                    {"text": "What?", "image": ["one.png", "two.png"]},
                ],
            }
        ],
        "response_token_ids": [1, 2, 3],
    },
    "reference": {
        "id": "r",
        "prompt": "Answer.",
        "question": [{"image": ["a.png", "b.png"], "text": ["one", "two"]}, {"audio": "c.wav"}],
        "answer": ["several", 3],
        "options": ["A", "B"],
        "response": "Because.",
        "level": 3,
        "metadata": {"task": "count", "nothing": None},
    },
    "labels": {
        "sample_id": "l",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "abc"}]},
            {"role": "tool", "content": [{"type": "video", "uri": "v.mp4"}]},
            {"role": "user", "content": [{"type": "image", "data": b""}]},
        ],
        "response": "Yes. No.",
        "labels": [
            {
                "statement": "Yes.",
                "sources": [
                    {"modality": "text", "part_index": 0, "char_start": 1, "char_end": 3},
                    {"modality": "image", "part_index": 2, "box": [0.1, 1, 2, 3.3], "group": 1},
                    {"modality": "audio", "part_index": 1, "start_s": 0.0, "end_s": 1.0},
                ],
            },
            {"char_start": 5, "char_end": 8, "sources": None},
        ],
    },
    "sample row": text_row("plain"),
}


def stored(obj: Mapping[str, object]) -> dict[str, Any]:
    """The row of a loose object as Parquet would give it back to a strict parser."""
    return pa.Table.from_pylist([normalise(obj, "/media")], schema=SAMPLE).to_pylist()[0]


@pytest.mark.parametrize("name", ACCEPTED)
def test_each_form_alone(tmp_path: Path, name: str) -> None:
    chunk = read_chunk(tmp_path, [normalise(ACCEPTED[name], "/media")])
    assert codes_of(chunk) == [None]
    (row,) = state_rows(chunk)
    assert row.sample == to_sample(stored(ACCEPTED[name]))


def test_all_forms_in_one_chunk(tmp_path: Path) -> None:
    rows = [normalise(obj, "/media") for obj in ACCEPTED.values()]
    found = [
        row.sample
        for row in state_rows(read_chunk(tmp_path, [*rows, text_row(None), *rows]))
        if not row.failed
    ]
    assert found == 2 * [to_sample(stored(obj)) for obj in ACCEPTED.values()]
    data = [part.data for sample in found for part in sample.parts]
    assert all(type(item) in (bytes, type(None)) for item in data)


def test_real_samples(tmp_path: Path, shared_data: Path) -> None:
    objects = json.loads((shared_data / "samples.json").read_text())
    chunk = read_chunk(tmp_path, [normalise(obj, str(shared_data)) for obj in objects])
    samples = [row.sample for row in state_rows(chunk)]
    assert samples == [parse_any(obj, str(shared_data)) for obj in objects]


STORABLE = [row for row, _ in [*BAD_ROWS, *BAD_LABELS] if not fit_row(row)[1]]


def test_refusals_are_those_of_the_strict_parser(tmp_path: Path) -> None:
    assert len(STORABLE) > 45
    rows = [dict(fit_row(row)[0]) for row in STORABLE]
    errors = errors_of(read_chunk(tmp_path, [*rows, text_row(None), text_row("fine")]))
    for row, error in zip([*rows, text_row(None)], errors, strict=False):
        with pytest.raises(InvalidSample) as refused:
            to_sample(row)
        assert error == {"stage": "read", "code": refused.value.code, "message": str(refused.value)}
    assert errors[-1] is None
