"""Videos as lists of frames through every accepted form, and what is refused."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from omnitrace_core.errors import InvalidSample
from omnitrace_core.records import Frame, Part
from omnitrace_core.samples.forms import normalise
from omnitrace_core.samples.parse import parse_any, to_sample

PNG = b"\x89PNG\r\n\x1a\n"
DATA_URI = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


def part_of(block: dict[str, Any], base: str = "") -> Part:
    content = [block, {"type": "text", "text": "What?"}]
    record = {"id": "s", "messages": [{"role": "user", "content": content}]}
    return parse_any(record, base).parts[0]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "video", "video": ["a.png", "b/c.png"], "fps": 4},
        {"type": "video", "video": ("a.png", "b/c.png"), "sample_fps": 4},
        {"type": "video", "video": np.array(["a.png", "b/c.png"]), "sample_fps": 4, "fps": 4},
        {"type": "video", "video": ["a.png", "b/c.png"], "sample_fps": 4, "raw_fps": 24},
        {"video": ["a.png", "b/c.png"], "options": {"fps": 4}},
        {"type": "video_url", "video_url": ["a.png", {"url": "b/c.png"}], "fps": 4},
        {"type": "video", "frames": [{"uri": "a.png"}, {"uri": "b/c.png"}], "options": {"fps": 4}},
    ],
)
def test_forms_of_a_list(block: dict[str, Any]) -> None:
    part = part_of(block, "s3://box/in")
    assert part.frames == (Frame("s3://box/in/a.png"), Frame("s3://box/in/b/c.png"))
    assert (part.type, part.uri, part.data, part.options.fps) == ("video", "", None, 4.0)


def test_frames_are_addresses_data_uris_or_bytes() -> None:
    part = part_of({"type": "video", "video": ["/a.png", DATA_URI, PNG, {"bytes": PNG}], "fps": 2})
    assert part.frames == (Frame("/a.png"), *[Frame(data=PNG)] * 3)


def test_the_reference_format_takes_lists() -> None:
    sample = parse_any({"id": 1, "question": [{"video": ["a.png", "b.png"], "fps": 2}, "What?"]})
    assert sample.parts[0].frames == (Frame("a.png"), Frame("b.png"))


def test_a_row_that_was_written_reads_the_same() -> None:
    block = {"type": "video", "video": ["a.png", PNG], "fps": 2, "nframes": 2}
    record = {"id": "s", "messages": [{"role": "user", "content": [block, {"text": "?"}]}]}
    row = normalise(record, "/in")
    assert to_sample(row) == to_sample(normalise(row)) == parse_any(record, "/in")
    assert to_sample(row).parts[0].options.nframes == 2


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"type": "video", "video": []}, r"part 0 \(video\) is an empty list of frames"),
        ({"type": "video", "frames": []}, "is an empty list of frames"),
        ({"video": []}, "is an empty list of frames"),
        ({"type": "video"}, "neither uri nor data"),
        ({"type": "video", "video": ["a.png", 3]}, "frame 1: 3 is neither an address nor bytes"),
        ({"type": "video", "video": ["a.png", None]}, "frame 1 has neither of uri and data"),
        ({"type": "video", "video": [["a.png"]]}, "frame 0: .* is neither an address nor bytes"),
        ({"type": "video", "video": ["a.png"], "uri": "v.mp4"}, "video and uri"),
        ({"type": "video", "video": ["a.png"], "data": PNG}, "has both frames and data"),
        (
            {"type": "video", "video": ["a.png"], "fps": 2, "sample_fps": 3},
            "fps=2 and sample_fps=3",
        ),
        ({"type": "video", "video": ["a.png"], "fps": 0}, "option fps is 0"),
        ({"type": "video", "uri": "v.mp4", "fps": 2, "nframes": 4}, "both set the number"),
        ({"type": "image", "image": "a.png", "frames": [{"uri": "b"}]}, "only a video can be"),
        ({"type": "audio", "audio": "a.wav", "frames": [{"uri": "b"}]}, "only a video can be"),
        ({"type": "text", "text": "a", "frames": [{"uri": "b"}]}, "has frames"),
        (
            {"type": "video", "video": ["a"], "segments": [{"start_s": 0, "end_s": 1}]},
            "has no sound",
        ),
    ],
)
def test_what_is_refused(block: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSample, match=words):
        part_of(block)


def test_a_frame_with_an_address_and_bytes_is_refused() -> None:
    frame = {"uri": "a.png", "data": PNG}
    part = {"type": "video", "frames": [{"uri": "b.png", "data": None}, frame]}
    row = normalise({"id": "s", "question": [{"text": "?"}]})
    row["messages"] = [{"role": "user", "content": [part]}]
    with pytest.raises(InvalidSample, match="frame 1 has both of uri and data"):
        to_sample(row)
