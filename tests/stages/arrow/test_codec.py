"""Records round-trip through Arrow, value for value."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from omnitrace_core.decoded_media import DecodedMedia
from omnitrace_core.errors import TraceError
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.positions import PositionKind, Positions, PromptMap
from omnitrace_core.records import Fold, SourceUnit, SpeechChunk, TokenTrace, Word
from omnitrace_core.units.extents import extent_of
from stages.arrow import codec, media_codec
from stages.arrow.python_values import python_values
from stages.arrow.state_schema import DECODED, MEDIA_INFO, SPEECH, TRACE, UNIT
from tests.core.ready_samples import image, one_of_each, sound, video


def _same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray):
        return (
            isinstance(other, np.ndarray)
            and one.dtype == other.dtype
            and np.array_equal(one, other)
        )
    if dataclasses.is_dataclass(one) and type(one) is type(other):
        return all(
            _same(getattr(one, field.name), getattr(other, field.name))
            for field in dataclasses.fields(one)
        )
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return one == other


MEDIA: dict[str, DecodedMedia] = {
    "image": image(1),
    "audio": sound(2, 1.5, start_s=3.0),
    "video": video(3),
    "silent": video(4, with_sound=False),
    "noted": dataclasses.replace(image(5), notes=("rotated", "scaled")),
    "empty": dataclasses.replace(sound(6, 1.0), waveform=np.zeros(0, np.float32)),
    "view": dataclasses.replace(image(7), pixels=image(7).pixels[::2, ::-1]),
}


@pytest.mark.parametrize("name", MEDIA)
def test_media_round_trip(name: str) -> None:
    given = {2: MEDIA[name], 5: image(9)}
    array = pa.array([[], media_codec.encode_media(given), None], pa.list_(DECODED))
    none, some, null = python_values(array)
    assert (none, null) == ([], None)
    assert media_codec.decode_media(none) == {}
    back = media_codec.decode_media(some)
    assert _same(back, given)


def test_decoded_arrays_can_be_written_to() -> None:
    array = pa.array([media_codec.encode_media({0: image(1), 1: sound(2, 1.0)})], pa.list_(DECODED))
    back = media_codec.decode_media(python_values(array)[0])
    assert back[0].pixels.flags.writeable  # type: ignore[union-attr]
    assert back[1].waveform.flags.writeable  # type: ignore[union-attr]


def test_units_round_trip() -> None:
    units = tuple(unit for ready in one_of_each().values() for unit in ready.units)
    cell = SourceUnit(3, "image_cell", "image", 1, box=(0.0, 0.5, 10.25, 20.0))
    lists = [codec.encode_units([*units, cell]), None, codec.encode_units([cell]), []]
    array = pa.array(lists, pa.list_(UNIT))
    assert codec.decode_units(array) == [(*units, cell), (), (cell,), ()]
    assert codec.decode_units(array[2:]) == [(cell,), ()]


def test_speech_round_trip() -> None:
    speech = {
        1: (
            SpeechChunk(
                0.0, 1.5, "hello there", (Word("hello", 0.0, 0.7), Word("there", 0.8, 1.5))
            ),
        ),
        4: (SpeechChunk(2.0, 3.0), SpeechChunk(3.5, 4.0, "you")),
    }
    array = pa.array([codec.encode_speech(speech)], pa.list_(SPEECH))
    assert codec.decode_speech(array[0]) == speech


@pytest.mark.parametrize(("n_gen", "n_units"), [(3, 4), (1, 0), (0, 2)])
def test_trace_round_trip(n_gen: int, n_units: int) -> None:
    rng = np.random.default_rng(0)

    def floats(*shape: int) -> np.ndarray:
        return rng.random(shape, dtype=np.float32)

    folds = {
        name: Fold(
            floats(n_gen, n_units), floats(n_gen, n_units), *(floats(n_gen) for _ in range(3))
        )
        for name in ("attmean", "attraw")
    }
    prompt = PromptMap(
        stream=np.array([PositionKind.NONE, PositionKind.TEXT, PositionKind.IMAGE], np.int8),
        part=np.array([-1, 0, 2], np.int32),
        lo=np.array([0, 4, 0], np.float64),
        hi=np.array([0, 7.5, 0], np.float64),
        box=floats(3, 4),
    )
    rows = {name: floats(n_gen, 3) for name in folds}
    trace = TokenTrace(
        response="abc"[:n_gen],
        token_ids=tuple(range(n_gen)),
        tokens=tuple("abc"[:n_gen]),
        char_spans=tuple((i, i + 1) for i in range(n_gen)),
        logprobs=floats(n_gen),
        finish_reason="stop",
        n_prompt_tokens=11,
        folds=folds,
        notes=("retokenised",),
        positions=Positions(prompt, rows),
    )
    bare = dataclasses.replace(trace, positions=None)
    array = pa.array([codec.encode_trace(trace), None, codec.encode_trace(bare)], TRACE)
    assert _same(codec.decode_trace(array[0], n_units), trace)
    assert _same(codec.decode_trace(array[2], n_units), bare)
    assert _same(codec.decode_fold(array[2], "attraw", n_units), folds["attraw"])
    assert codec.decode_positions(array[2]) is None


def test_traces_of_older_versions_do_not_say_what_is_uncovered() -> None:
    one = np.ones(1, np.float32)
    trace = TokenTrace(
        "a",
        (1,),
        ("a",),
        ((0, 1),),
        one,
        "stop",
        3,
        {"a": Fold(one[:, None], one[:, None], one, one)},
    )
    older = codec.encode_trace(trace)
    for fold in older["folds"]:  # type: ignore[attr-defined]
        del fold["uncovered"]
    array = pa.array([codec.encode_trace(trace), older], TRACE)
    assert codec.decode_fold(array[0], "a", 1).uncovered.tolist() == [0.0]
    assert np.isnan(codec.decode_fold(array[1], "a", 1).uncovered).tolist() == [True]


def test_signal_that_was_not_traced() -> None:
    fold = Fold(*[np.zeros((1, 1), np.float32)] * 2, *[np.zeros(1, np.float32)] * 2)
    none = np.zeros(1, np.float32)
    trace = TokenTrace("a", (1,), ("a",), ((0, 1),), none, "stop", 3, {"attmean": fold})
    array = pa.array([codec.encode_trace(trace)], TRACE)
    with pytest.raises(TraceError, match=r"'attraw' was not traced, only \['attmean'\] were"):
        codec.decode_fold(array[0], "attraw", 1)


def test_media_info_keeps_where_media_came_from() -> None:
    samples = one_of_each()["mixed"]
    infos = media_codec.media_info(samples.sample.parts, samples.media, MediaRules())
    assert [(info["part_index"], info["type"]) for info in infos] == [
        (1, "image"),
        (2, "audio"),
        (3, "video"),
    ]
    assert infos[0]["uri"] == "memory://1"
    assert (infos[0]["width"], infos[0]["model_width"], infos[0]["model_height"]) == (640, 84, 56)
    assert infos[1]["end_s"] == 1.5
    assert (infos[2]["n_frames"], infos[2]["sound"]) == (8, True)


@pytest.mark.parametrize("name", ["image", "audio", "video", "silent", "mixed"])
def test_extents_are_restored_from_media_info(name: str) -> None:
    ready, rules = one_of_each()[name], MediaRules()
    infos = media_codec.media_info(ready.sample.parts, ready.media, rules)
    array = pa.array([infos], pa.list_(MEDIA_INFO))
    expected = {index: extent_of(item, rules) for index, item in ready.media.items()}
    assert media_codec.decode_extents(array[0].as_py()) == expected
