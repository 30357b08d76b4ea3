"""An input that is not a valid sample is refused with its reason: rows and loose input alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from omnitrace_core.errors import InvalidSample, MissingSampleId, UnknownPartType
from omnitrace_core.records import Sample
from omnitrace_core.samples.forms import normalise, rejected_row
from omnitrace_core.samples.parse import parse_any, to_sample


def row_with(*parts: Mapping[str, object], **fields: object) -> dict[str, Any]:
    """A minimal row in sample shape: one user message with these parts."""
    message = {"role": "user", "content": list(parts) or [{"type": "text", "text": "Hello?"}]}
    return {"sample_id": "s", "messages": [message], **fields}


def chat(content: object, **fields: object) -> Sample:
    return parse_any({"id": "s", "messages": [{"role": "user", "content": content}], **fields})


def rejection(obj: Mapping[str, object]) -> str:
    """The message with which `normalise` and `to_sample` refuse a loose object."""
    with pytest.raises(InvalidSample) as caught:
        to_sample(normalise(obj))
    return str(caught.value)


@pytest.mark.parametrize("obj", [None, 5, "text", [1, 2], [("id", "x")]])
def test_only_input_that_is_not_a_mapping_raises_at_once(obj: Any) -> None:
    with pytest.raises(InvalidSample, match="must be a mapping"):
        normalise(obj)
    with pytest.raises(InvalidSample, match="must be a mapping"):
        to_sample(obj)


@pytest.mark.parametrize("sample_id", [None, "", "  "])
def test_missing_id(sample_id: str | None) -> None:
    with pytest.raises(MissingSampleId, match=r"sample_id is .*sample_id or id or custom_id"):
        to_sample({**row_with(), "sample_id": sample_id})


def test_unknown_part_types() -> None:
    content = [{"type": "text", "text": "a"}, {"type": "pointcloud", "pointcloud": {"url": "p"}}]
    with pytest.raises(
        UnknownPartType, match=r"'s': part 2 is of type 'pointcloud'.*text, image, audio, video"
    ):
        parse_any(
            {
                "id": "s",
                "messages": [
                    {"role": "user", "content": "first"},
                    {"role": "user", "content": content},
                ],
            }
        )
    for block in ({"depth": "d.png"}, {"type": "depth"}, {"depth": "d.png", "fps": 2}):
        with pytest.raises(UnknownPartType, match="'depth'"):
            chat([block])
    for empty in ({}, {"uri": "x.png"}, {"type": None, "text": None}):
        with pytest.raises(UnknownPartType, match="of type None"):
            chat([empty])
    with pytest.raises(UnknownPartType, match="'7'"):
        chat([{"type": 7}])


SEGMENT = {"start_s": 0.0, "end_s": 1.0, "text": "a"}
AUDIO = {"type": "audio", "uri": "a.wav"}
VIDEO = {"type": "video", "uri": "v.mp4"}
TEXT = {"type": "text", "text": "abc"}


BAD_ROWS: list[tuple[dict[str, Any], str]] = [
    (row_with(messages=[]), "no messages"),
    (row_with(messages=None), "no messages"),
    (row_with(messages=[None]), "role is None"),
    (
        row_with(messages=[{"role": "user", "content": []}]),
        r"message 0 \(user\) has no content",
    ),
    (row_with(messages=[{"role": "user", "content": None}]), "has no content"),
    (row_with(messages=[{"role": "robot", "content": [TEXT]}]), "'robot', not one of system"),
    (row_with(messages=[{"role": "", "content": [TEXT]}]), "role is ''"),
    (row_with(messages=[{"role": "assistant", "content": [TEXT]}]), "assistant's and there is"),
    (row_with({"type": "text"}), r"part 0 \(text\): text is None"),
    (row_with({"type": "text", "text": ""}), "text is ''"),
    (row_with({"type": "text", "text": "a", "uri": "t.txt"}), "has uri 't.txt'"),
    (row_with({"type": "image"}), r"part 0 \(image\) has neither uri nor data"),
    (
        row_with({"type": "image", "uri": "a", "data": b"12"}),
        r"both uri 'a' and data \(2 bytes\)",
    ),
    (
        row_with({"type": "image", "uri": "https://h/a?sig=x", "data": b"12"}),
        r"both uri 'https://h/a\?…' and data",
    ),
    (
        row_with({"type": "text", "text": "a", "uri": "https://h/a?sig=x"}),
        r"uri 'https://h/a\?…'",
    ),
    (row_with({**AUDIO, "text": "caption"}), "has text 'caption'"),
    (row_with({"type": "image", "uri": "a", "segments": [SEGMENT]}), "speech segments"),
    (row_with({**AUDIO, "segments": [{**SEGMENT, "end_s": -1.0}]}), r"segments\[0\]: seconds"),
    (row_with({**AUDIO, "segments": [{**SEGMENT, "end_s": None}]}), "give both"),
    (row_with({**AUDIO, "segments": [{**SEGMENT, "start_s": 0.5}, SEGMENT]}), "sort the segm"),
    (row_with({**AUDIO, "segments": [{**SEGMENT, "words": [{"text": ""}]}]}), "has no text"),
    (
        row_with({**VIDEO, "options": {"fps": -2.0}}),
        "option fps is -2.0; give a number above 0",
    ),
    (row_with({**VIDEO, "options": {"fps": float("nan")}}), "fps is nan"),
    (row_with({**VIDEO, "options": {"fps": float("inf")}}), "fps is inf"),
    (row_with({**VIDEO, "options": {"nframes": 0}}), "nframes is 0"),
    (row_with({**VIDEO, "options": {"fps": 2.0, "nframes": 4}}), "fps=2.0 and nframes=4"),
    (row_with({**VIDEO, "options": {"video_start": -1.0}}), "a number of 0 or more"),
    (row_with({**VIDEO, "options": {"video_start": 3.0, "video_end": 3.0}}), "video_start=3.0"),
    (row_with({**VIDEO, "options": {"audio_start": 3.0, "audio_end": 2.0}}), "audio_end=2.0"),
    (row_with({**VIDEO, "options": {"audio_track": -1}}), "audio_track is -1; give a number of 0"),
    (row_with({**VIDEO, "options": {"audio_track": 0.5}}), "audio_track is 0.5"),
    (row_with({**VIDEO, "options": {"min_frames": 9, "max_frames": 4}}), "min_frames=9"),
    (row_with(response=""), "response is ''"),
    (row_with(response=" \n"), "response is"),
    (row_with(response_token_ids=[]), r"response_token_ids is \[\]"),
    (row_with(response_token_ids=[1, -1]), "response_token_ids"),
    (row_with(options=["A", None]), "options is"),
    (row_with(metadata={"ingest_error": "line 3: no"}), "sample 's': line 3: no; correct"),
    (row_with(response=5), "response is 5, not text"),
    (row_with({**VIDEO, "options": {"fps": "fast"}}), r"content\[0\].options.fps is 'fast'"),
    (row_with(messages="hello"), "messages is 'hello', not a list"),
]


@pytest.mark.parametrize(("row", "match"), BAD_ROWS)
def test_bad_rows(row: dict[str, object], match: str) -> None:
    with pytest.raises(InvalidSample, match=match) as caught:
        to_sample(row)
    assert caught.value.code == "invalid_sample"
    assert "sample 's': " in str(caught.value)


def label(**source: object) -> dict[str, Any]:
    return row_with(
        TEXT,
        {"type": "image", "uri": "i.png"},
        VIDEO,
        response="Yes.",
        labels=[
            {"statement": "Yes.", "sources": [{"modality": "text", "part_index": 0, **source}]}
        ],
    )


BAD_LABELS: list[tuple[dict[str, Any], str]] = [
    (label(modality="smell"), "modality is 'smell'"),
    (label(part_index=3), r"part_index is 3; the sample has parts 0 to 2"),
    (label(part_index=-1), "part_index is -1"),
    (label(part_index=None), "part_index is None"),
    (label(part_index=1), "modality is 'text' but part 1 is image"),
    (label(char_start=2, char_end=2), r"\[2, 2\) is not a valid range"),
    (label(char_start=2), r"\[2, None\) is not a valid range"),
    (label(char_start=0, char_end=4), "beyond the part's text of 3 characters"),
    (label(start_s=0.0, end_s=1.0), "start_s is 0.0, which text evidence does not have"),
    (label(modality="image", part_index=1, box=[0, 0, 5]), "give .x0, y0, x1, y1."),
    (label(modality="image", part_index=1, box=[5, 0, 1, 9]), "box is"),
    (label(modality="image", part_index=1, box=[0, 0, 1, float("nan")]), "box is"),
    (label(modality="video", part_index=2, start_s=2.0, end_s=1.0), r"seconds \[2.0, 1.0\)"),
    (row_with(labels=[{"sources": []}]), "neither a statement nor char_start"),
    (row_with(labels=[None]), r"labels\[0\] is null"),
    (
        row_with(response="Yes.", labels=[{"char_start": 0, "char_end": 9}]),
        "beyond the response's text of 4 characters",
    ),
]


@pytest.mark.parametrize(("row", "match"), BAD_LABELS)
def test_bad_labels(row: dict[str, object], match: str) -> None:
    with pytest.raises(InvalidSample, match=match):
        to_sample(row)


def test_good_labels() -> None:
    box = label(modality="image", part_index=1, box=[0, 0, 5, 6])
    assert to_sample(box).labels[0].sources[0].box == (0, 0, 5, 6)
    sound = label(modality="audio", part_index=2, start_s=0.0, end_s=1.0)
    assert to_sample(sound).labels[0].sources[0].end_s == 1.0


@pytest.mark.parametrize(
    ("obj", "reason"),
    [
        ({"id": ["a"], "question": "x"}, "id is ['a'], not text"),
        ({"id": True, "question": "x"}, "id is True, not text"),
        ({"id": 1, "messages": [["user", "hi"]]}, "messages[0] is ['user', 'hi'], not a message"),
        ({"id": 1, "question": 5}, "question is 5, neither text nor a list of parts"),
        ({"id": 1, "question": [None]}, "question[0] is None"),
        ({"id": 1, "question": [[["deep"]]]}, "question[0] is [['deep']]"),
        ({"id": 1, "question": [{"type": "text", "text": {"v": 1}}]}, "text is {'v': 1}, not text"),
        ({"id": 1, "question": [{"video": ["1.jpg", 2]}]}, "neither an address nor bytes"),
        ({"id": 1, "question": [{"image": {"array": [1]}}]}, "neither an address nor bytes"),
        ({"id": 1, "question": [{"image": "data:image/png;base64,@@"}]}, "not valid base64"),
        ({"id": 1, "question": [{"image": "data:nonsense"}]}, "without a comma"),
        ({"id": 1, "question": [{"type": "image", "image": "a", "url": "b"}]}, "image and url"),
        ({"id": 1, "question": [{"video": "v", "fps": "2"}]}, "fps is '2', not a number"),
        ({"id": 1, "question": [{"video": "v", "nframes": 2.5}]}, "nframes is 2.5, not a whole"),
        ({"id": 1, "question": [{"video": "v", "nframes": 2**40}]}, "whole number of 32 bits"),
        ({"id": 1, "question": [{"video": "v", "fps": 10**400}]}, "not a number"),
        ({"id": 1, "question": [{"video": "v", "options": {"fpss": 2}}]}, "options has no 'fpss'"),
        ({"id": 1, "question": [{"video": "v", "options": ["fps"]}]}, "options is ['fps'], not a"),
        ({"id": 1, "question": [{"image": "i", "resized_height": 28}]}, "use max_pixels"),
        ({"id": 1, "question": [{"text": "a", "evidence": "no"}]}, "'no', not true or false"),
        ({"id": 1, "question": "What?", "image": "i.png"}, "image stands beside the messages"),
        ({"id": 1, "messages": [], "images": ["i.png"]}, "images stands beside the messages"),
        ({"id": 1, "question": "x", "response": ["a"]}, "response is ['a'], not text"),
        ({"id": 1, "question": "x", "options": {"A": 1}}, "options is {'A': 1}, not a list"),
        ({"id": 1, "question": "x", "labels": [{"sources": "s"}]}, "sources is 's', not a list"),
        ({"id": 1, "question": "x", "metadata": "m"}, "metadata is 'm', not a mapping"),
        (
            {"id": 1, "question": "x", "metadata": {"k": {1, 2}}},
            "metadata['k'] is {1, 2}, not text",
        ),
        ({"id": 1, "question": "lone \ud800 surrogate"}, "lone surrogate"),
        ({"id": 1, "messages": [{"role": "user", "content": None}]}, "has no content"),
        ({"id": 1, "messages": [{"role": 3, "content": "x"}]}, "role is 3, not text"),
        ({"id": 1, "messages": [{"role": "user"}]}, "has no content"),
        ({"id": 1, "messages": [{"role": "assistant", "content": "a"}]}, "no messages"),
        ({"id": 1, "prompt": "only a prompt"}, "no messages"),
    ],
)
def test_invalid_input_is_refused_with_its_reason(obj: dict[str, object], reason: str) -> None:
    assert reason in rejection(obj)


def test_messages_about_huge_values_stay_short() -> None:
    deep: list[object] = []
    for _ in range(500):
        deep = [deep]
    objects: list[dict[str, object]] = [
        {"id": 1, "question": {"text": b"x" * 10**7}},
        {"id": 1, "question": {"text": deep}},
        {"id": 1, "question": [5] * 10_000},
        {"id": "n" * 10_000, "messages": []},
    ]
    for obj in objects:
        assert len(rejection(obj)) < 3_000


def test_a_rejected_row_says_why() -> None:
    with pytest.raises(InvalidSample, match="line 7 is a number"):
        to_sample(rejected_row("line 7 is a number"))
