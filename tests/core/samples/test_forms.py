"""Every accepted input form to one row, and from there to the sample it means."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnitrace_core.records import PartOptions, Sample
from omnitrace_core.samples.forms import normalise
from omnitrace_core.samples.parse import parse_any, to_sample

PNG = b"\x89PNG\r\n\x1a\n"
PNG_64 = base64.b64encode(PNG).decode()


def chat(content: object, **fields: object) -> Sample:
    return parse_any({"id": "s", "messages": [{"role": "user", "content": content}], **fields})


def test_real_samples(shared_data: Path) -> None:
    found = {}
    for obj in json.loads((shared_data / "samples.json").read_text()):
        sample = parse_any(obj, str(shared_data))
        found[sample.sample_id] = [part.type for part in sample.parts]
        instruction, *question = sample.parts
        assert instruction.text == obj["prompt"]
        assert not instruction.evidence
        assert all(part.evidence for part in question)
        assert [part.text for part in question if part.type == "text"] == [
            block["text"] for block in obj["question"] if "text" in block
        ]
        assert all(Path(part.uri).is_file() for part in question if part.type != "text")
        assert sample.reference_answer == obj.get("answer")
        assert sample.metadata == {"task": obj["task"]}
        assert sample.response is None
    assert found == {
        "mmdialog-1": ["text", "text", "image", "text", "image", "image", "text"],
        "mmdialog-27": ["text", "text", "text", "text", "text", "image", "text"],
        "mantis-262": ["text", "text", "image", "image"],
        "mmau-114": ["text", "text", "audio"],
        "videomme-44": ["text", "text", "video"],
    }


def test_reference_block_keeps_the_order_of_its_keys_and_lists() -> None:
    sample = parse_any(
        {
            "id": "r",
            "prompt": "Answer.",
            "question": [{"image": ["a.png", "b.png"], "text": ["one", "two"]}, {"audio": "c.wav"}],
            "answer": 3,
            "response": "Because.",
            "options": ["A", "B"],
            "category": "count",
            "difficulty": 2,
            "nested": {"dropped": True},
        },
        "/media",
    )
    assert [part.uri or part.text for part in sample.parts] == [
        "Answer.", "/media/a.png", "/media/b.png", "one", "two", "/media/c.wav",
    ]  # fmt: skip
    assert (sample.reference_answer, sample.response, sample.options) == (
        "3",
        "Because.",
        ("A", "B"),
    )
    assert sample.metadata == {"category": "count", "difficulty": "2"}


def test_reference_question_as_arrow_structs_with_null_fields() -> None:
    question = [
        {"text": "What?", "image": None, "video": None},
        {"text": None, "image": np.array(["a.png"]), "video": None},
        {"text": [], "image": None, "video": "v.mp4"},
    ]
    sample = parse_any({"id": "r", "prompt": None, "question": np.array(question, dtype=object)})
    assert [part.type for part in sample.parts] == ["text", "image", "video"]


def test_question_as_plain_text() -> None:
    sample = parse_any({"id": "r", "prompt": "Be brief.", "question": "What is it?"})
    assert [(p.text, p.evidence) for p in sample.parts] == [
        ("Be brief.", False),
        ("What is it?", True),
    ]


def test_openai_chat() -> None:
    sample = chat(
        [
            {"type": "text", "text": "Compare."},
            {"type": "image_url", "image_url": {"url": "https://h/x.png", "detail": "low"}},
            {"type": "image_url", "image_url": "y.png"},
            {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG_64}"}},
            {"type": "input_audio", "input_audio": {"data": PNG_64, "format": "wav"}},
            {"type": "input_audio", "input_audio": {"url": "a.wav"}},
            {"type": "input_audio", "input_audio": {"data": f"data:;base64,{PNG_64}"}},
            {"type": "input_audio", "input_audio": {"data": "s3://b/a.wav"}},
            {"type": "video_url", "video_url": {"url": "v.mp4"}, "fps": 1},
        ]
    )
    assert [(part.type, part.uri or part.data or part.text) for part in sample.parts] == [
        ("text", "Compare."),
        ("image", "https://h/x.png"),
        ("image", "y.png"),
        ("image", PNG),
        ("audio", PNG),
        ("audio", "a.wav"),
        ("audio", PNG),
        ("audio", "s3://b/a.wav"),
        ("video", "v.mp4"),
    ]
    assert sample.parts[-1].options.fps == 1.0


def test_openai_batch_line() -> None:
    sample = parse_any(
        {
            "custom_id": "req-1",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "m", "messages": [{"role": "user", "content": "Hi"}]},
        }
    )
    assert sample.sample_id == "req-1"
    assert sample.parts[0].text == "Hi"
    assert sample.metadata == {"method": "POST", "url": "/v1/chat/completions", "model": "m"}


def test_qwen_parts_with_options_bytes_and_hub_structs() -> None:
    options: dict[str, Any] = {
        "nframes": 8, "min_pixels": 3136, "max_pixels": 50176.0, "video_start": 0, "video_end": 4.5,
    }  # fmt: skip
    sample = chat(
        [
            {"type": "video", "video": "v.mp4", **options},
            {"type": "video", "uri": "v.mp4", "options": options},
            {"type": "image", "image": PNG},
            {"type": "image", "image": {"bytes": PNG, "path": "gone.png"}},
            {"type": "audio", "audio": {"bytes": None, "path": "a.wav"}, "audio_start": 1},
            {"type": "video", "video": "v.mkv", "audio_track": 0},
            {"type": "audio", "uri": "a.m4a", "options": {"audio_track": 2}},
            {"type": "image", "image": Path("/p/i.png")},
            {"image": "untyped.png"},
        ]
    )
    expected = PartOptions(
        nframes=8, min_pixels=3136, max_pixels=50176, video_start=0.0, video_end=4.5
    )
    assert sample.parts[0].options == sample.parts[1].options == expected
    assert [part.data for part in sample.parts[2:4]] == [PNG, PNG]
    assert (sample.parts[4].uri, sample.parts[4].options.audio_start) == ("a.wav", 1.0)
    assert [part.options.audio_track for part in sample.parts[4:7]] == [None, 0, 2]
    assert [part.uri for part in sample.parts[7:]] == ["/p/i.png", "untyped.png"]


def test_own_form_with_everything() -> None:
    label_source = {"modality": "text", "part_index": 0, "char_start": 0, "char_end": 3, "group": 1}
    words = [{"text": "hi", "start_s": 0.1, "end_s": 0.1}]
    sample = parse_any(
        {
            "sample_id": "own",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "one two", "evidence": False},
                        {
                            "type": "audio",
                            "data": PNG_64,
                            "segments": [
                                {"start_s": 0, "end_s": 1.5, "text": "hi", "words": words}
                            ],
                        },
                    ],
                }
            ],
            "response": "Fine.",
            "response_token_ids": (5, np.int64(6)),
            "reference_answer": "fine",
            "options": ["A", "B"],
            "labels": [
                {"statement": "Fine.", "char_start": 0, "char_end": 5, "sources": [label_source]}
            ],
            "metadata": {"split": "dev", "n": 3, "tags": ["a"]},
        }
    )
    text, audio = sample.parts
    assert not text.evidence
    assert audio.data == PNG
    assert audio.segments is not None
    assert audio.segments[0].words[0].text == "hi"
    assert sample.response_token_ids == (5, 6)
    assert sample.labels[0].sources[0].group == 1
    assert sample.metadata == {"split": "dev", "n": "3", "tags": '["a"]'}


def test_a_sample_passes_through() -> None:
    sample = chat("Hello?")
    assert parse_any(sample) is sample


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"sample_id": "a", "id": "b"}, "a"),
        ({"sample_id": None, "id": 7}, "7"),
        ({"id": 12.0}, "12"),
        ({"id": np.int64(3)}, "3"),
        ({"id": 0}, "0"),
        ({"id": float("nan"), "custom_id": "c"}, "c"),
        ({}, None),
        ({"id": None}, None),
    ],
)
def test_ids(fields: dict[str, object], expected: str | None) -> None:
    assert normalise(fields)["sample_id"] == expected


def test_an_id_that_is_not_used_stays_in_the_metadata() -> None:
    assert normalise({"sample_id": "a", "id": 5})["metadata"] == {"id": "5"}


def test_system_text_instructs_unless_it_says_otherwise() -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "system", "content": [{"type": "text", "text": "Facts.", "evidence": True}]},
        {"role": "developer", "content": [{"type": "image", "image": "logo.png"}]},
        {"role": "user", "content": "Hi"},
    ]
    row = normalise({"id": "s", "messages": messages})
    sample = to_sample(row)
    assert [part.evidence for part in sample.parts] == [False, True, True, True]
    assert sample.messages[2].role == "system"
    for message in row["messages"]:  # type: ignore[attr-defined]
        for part in message["content"]:
            part["evidence"] = None
    # Rows that never met `normalise` get the same defaults.
    assert [part.evidence for part in to_sample(row).parts] == [False, False, True, True]


@pytest.mark.parametrize(
    "content", ["Yes. No.", [{"type": "text", "text": "Yes."}, {"type": "text", "text": " No."}]]
)
def test_a_closing_assistant_message_is_the_response(content: object) -> None:
    messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": content}]
    sample = parse_any({"id": "s", "messages": messages})
    assert sample.response == "Yes. No."
    assert [message.role for message in sample.messages] == ["user"]
    given = parse_any({"id": "s", "messages": messages, "response": "Other."})
    assert given.response == "Other."
    assert [message.role for message in given.messages] == ["user", "assistant"]


def test_an_assistant_message_in_the_middle_stays() -> None:
    roles = ["user", "assistant", "user"]
    messages = [{"role": role, "content": "x"} for role in roles]
    assert [m.role for m in parse_any({"id": "s", "messages": messages}).messages] == roles


@pytest.mark.parametrize(
    ("uri", "base", "expected"),
    [
        ("a.png", "", "a.png"),
        ("a.png", "/data", "/data/a.png"),
        ("m/a.png", "s3://bucket/set", "s3://bucket/set/m/a.png"),
        ("./m/../a.png", "s3://bucket/set", "s3://bucket/set/a.png"),
        ("../../../a.png", "s3://bucket/set", "s3://bucket/a.png"),
        ("m//a.png", "s3://bucket/set/", "s3://bucket/set/m//a.png"),
        ("m//../a.png", "s3://bucket/day//set", "s3://bucket/day//set/m/a.png"),
        ("./a.png", "s3://bucket", "s3://bucket/a.png"),
        ("a.png", "memory://", "memory:///a.png"),
        ("/abs/a.png", "/data", "/abs/a.png"),
        ("https://h/a.png", "/data", "https://h/a.png"),
        ("gs://b/a.png", "s3://bucket", "gs://b/a.png"),
    ],
)
def test_addresses_resolve_against_the_base(uri: str, base: str, expected: str) -> None:
    obj = {"id": "s", "messages": [{"role": "user", "content": [{"image": uri}]}]}
    assert parse_any(obj, base).parts[0].uri == expected


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (f"data:image/png;base64,{PNG_64}", PNG),
        (f"data:image/png;base64,{PNG_64.rstrip('=')}", PNG),
        ("data:;base64,%2B%2B%2B%2B", b"\xfb\xef\xbe"),
        ("data:text/plain,a%20b", b"a b"),
        ("data:image/png;base64,", b""),
    ],
)
def test_data_uris(uri: str, expected: bytes) -> None:
    part = chat([{"type": "image", "image": uri}]).parts[0]
    assert (part.data, part.uri) == (expected, "")


def test_normalise_has_every_key_and_is_idempotent() -> None:
    row = normalise({})
    assert row == {
        "sample_id": None, "messages": [], "response": None, "response_token_ids": None,
        "reference_answer": None, "options": None, "labels": None, "metadata": {},
    }  # fmt: skip
    full = normalise({"id": 1, "question": [{"text": "a"}, {"video": "v.mp4", "fps": 2}], "k": "v"})
    assert normalise(full) == full
    broken = normalise({"id": [1], "messages": 5})
    assert normalise(broken) == broken


def test_new_problems_join_those_of_an_earlier_reading() -> None:
    row = normalise({"id": 1, "question": 5})
    again = normalise({**row, "options": "AB"})
    assert again["metadata"] == {
        "ingest_error": "question is 5, neither text nor a list of parts; "
        "options is 'AB', not a list"
    }
