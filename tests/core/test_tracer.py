"""`OmniTracer`: any input form in, traced samples out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnitrace_core import (
    ConfigError,
    CurationOptions,
    DecodeOptions,
    InvalidSample,
    MediaMissing,
    OmniTracer,
    ReadySample,
    Sample,
    SampleError,
    TraceOptions,
    TraceResult,
)
from omnitrace_core.decoded_media import DecodedMedia
from omnitrace_core.media import decode_part, sample_decoder
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import AsrOptions, MediaOptions, UnitOptions
from omnitrace_core.records import Part
from omnitrace_core.samples.parse import parse_any
from tests.core.media_files import audio_bytes, beep, write_clip
from tests.core.ready_samples import ready

CHAT = {
    "id": "lamp",
    "messages": [{"role": "user", "content": "The lamp is red. The door is blue. What is red?"}],
    "response": "The lamp is red. Nothing else is.",
}


@pytest.fixture(scope="module")
def tracer(tiny_model: str) -> OmniTracer:
    return OmniTracer(
        tiny_model, signals=("attmean", "attraw"), decode=DecodeOptions(max_new_tokens=6)
    )


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "picture.png"
    Image.new("RGB", (120, 80), "red").save(path)
    return str(path)


def test_one_sample_gives_one_result_a_list_a_list(tracer: OmniTracer) -> None:
    one = tracer.trace(CHAT)
    assert isinstance(one, TraceResult)
    several = tracer.trace([CHAT, parse_any(CHAT)])
    assert isinstance(several, list)
    assert [result.response for result in several] == [CHAT["response"]] * 2
    assert tracer.trace([]) == []


def test_a_result_is_what_the_readme_says(tracer: OmniTracer) -> None:
    result = tracer.trace(CHAT)
    n_gen, n_units = len(result.token_ids), len(result.units)
    assert "".join(result.tokens) == result.response
    assert [unit.text for unit in result.units] == [
        "The lamp is red.",
        "The door is blue.",
        "What is red?",
    ]
    for name in ("attmean", "attraw"):
        fold = result.folds[name]
        assert fold.mass.shape == fold.peak.shape == (n_gen, n_units)
        assert fold.markup.shape == fold.generated.shape == (n_gen,)
        assert fold.mass.dtype == np.float32
    assert [span.text for span in result.spans] == ["The lamp is red.", "Nothing else is."]
    source = result.spans[0].sources[0]
    assert source.rank == 1
    assert source.text == result.units[source.unit_id].text
    assert CHAT["messages"][0]["content"][source.char_start : source.char_end] == source.text  # type: ignore[index]


def test_every_spelling_of_a_picture_question(tracer: OmniTracer, picture: str) -> None:
    forms: list[dict[str, object]] = [
        {"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": picture}},
            {"type": "text", "text": "What is it?"}]}]},
        {"messages": [{"role": "user", "content": [
            {"type": "image", "image": picture}, {"type": "text", "text": "What is it?"}]}]},
        {"id": "ref", "prompt": "", "question": [{"image": picture}, {"text": "What is it?"}]},
    ]  # fmt: skip
    results = tracer.trace(forms)
    assert len({result.token_ids for result in results}) == 1
    for result in results:
        (unit,) = [unit for unit in result.units if unit.modality == "image"]
        assert unit.box == (0, 0, 120, 80)


def test_samples_that_share_media_give_what_each_gives_alone(
    tracer: OmniTracer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Encoding one sample must not change the pixels and the sound that the next one gets."""
    clip = write_clip(tmp_path / "clip.mp4", 8, sound=beep(0.8, [0.2]))
    samples: list[dict[str, object]] = [
        {
            "id": str(number),
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "video", "video": str(clip)},
                        {"type": "audio", "audio": str(clip)},
                        {"type": "text", "text": "What is it?"},
                    ],
                }
            ],
            "response": "A clip.",
        }
        for number in range(3)
    ]
    decoded: list[str] = []

    def counted(part: Part, options: MediaOptions, rules: MediaRules) -> DecodedMedia:
        decoded.append(part.type)
        return decode_part(part, options, rules)

    monkeypatch.setattr(sample_decoder, "decode_part", counted)
    together = tracer.trace(samples)
    assert decoded == ["video", "audio"]
    # One after the other, so that padding is the same.
    ready = tracer._reader().read_inputs(samples)
    for item, result in zip(ready, together, strict=True):
        assert isinstance(item, ReadySample)
        traced, alone = tracer.trace(item), tracer.trace(samples[0])
        assert traced.units == alone.units == result.units
        for name, fold in traced.folds.items():
            np.testing.assert_array_equal(fold.mass, alone.folds[name].mass)
            np.testing.assert_allclose(result.folds[name].mass, fold.mass, atol=1e-5)


def test_generating_then_replaying_gives_the_same_numbers(tracer: OmniTracer) -> None:
    request = {key: value for key, value in CHAT.items() if key != "response"}
    generated = tracer.trace(request)
    assert generated.trace.finish_reason in ("length", "stop")
    replayed = tracer.trace({**request, "response_token_ids": list(generated.token_ids)})
    assert replayed.token_ids == generated.token_ids
    for name, fold in generated.folds.items():
        np.testing.assert_allclose(fold.mass, replayed.folds[name].mass, atol=1e-6)
    unit_ids = [
        [[s.unit_id for s in span.sources] for span in r.spans] for r in (generated, replayed)
    ]
    assert unit_ids[0] == unit_ids[1]


def test_failures_stay_in_their_place(tracer: OmniTracer) -> None:
    missing = {"id": "x", "question": [{"image": "no/such.png"}, {"text": "Well?"}]}
    first, second, third = tracer.trace_each([CHAT, missing, CHAT])
    assert isinstance(first, TraceResult)
    assert isinstance(third, TraceResult)
    assert isinstance(second, MediaMissing)
    with pytest.raises(SampleError, match=r"no/such\.png"):
        tracer.trace([CHAT, missing])


def test_each_of_one_sample_is_a_list_of_one(tracer: OmniTracer) -> None:
    for sample in (CHAT, parse_any(CHAT)):
        (outcome,) = tracer.trace_each(sample)
        assert isinstance(outcome, TraceResult)
        assert outcome.response == CHAT["response"]


def test_sampling_repeats_with_its_seed(tiny_model: str) -> None:
    request = {"messages": [{"role": "user", "content": "Tell me a story."}]}
    ids = [
        OmniTracer(
            tiny_model, decode=DecodeOptions(max_new_tokens=8, do_sample=True, seed=seed)
        ).trace(request).token_ids
        for seed in (1, 1, 2)
    ]  # fmt: skip
    assert ids[0] == ids[1]
    assert ids[0] != ids[2]


def test_without_tracing_only_the_response_is_made(
    tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = OmniTracer(tiny_model, trace=TraceOptions(enabled=False))
    # A known response needs no pass of the model.
    monkeypatch.delattr(type(plain.backend), "prefill")
    result = plain.trace(CHAT)
    assert result.response == CHAT["response"]
    assert not result.folds
    assert not result.spans


NAMELESS = {key: value for key, value in CHAT.items() if key != "id"}
QUESTION = {"question": [{"text": "The lamp is red. What is red?"}], "answer": "The lamp"}
INPUTS: dict[str, tuple[Mapping[str, object] | Sample | ReadySample, str]] = {
    "chat": (CHAT, "lamp"),
    "chat without an id": (NAMELESS, "sample-1"),
    "reference format without an id": (QUESTION, "sample-1"),
    "record": (parse_any(CHAT), "lamp"),
    "ready sample": (ready(["The lamp is red."], response="It is red."), "made"),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", INPUTS)
def test_prepare_and_stream_take_what_trace_takes(tracer: OmniTracer, form: str) -> None:
    sample, name = INPUTS[form]
    result = tracer.trace(sample)
    assert result.sample.sample_id == name
    alone = tracer.backend.prepare(sample)
    several = tracer.backend.prepare([CHAT, sample])
    assert [item.ready.sample.sample_id for item in alone.encoded] == [name]
    assert alone.encoded[0].n_prompt == result.trace.n_prompt_tokens
    last = "sample-2" if name == "sample-1" else name
    assert [item.ready.sample.sample_id for item in several.encoded] == ["lamp", last]
    assert [unit for unit in alone.encoded[0].ready.units] == list(result.units)
    assert "".join(token.text for token in tracer.stream(sample)) == result.response


@pytest.mark.parametrize("sample", ["The lamp is red.", b"bytes", 7, None])
def test_what_is_not_a_sample_is_refused_by_each(tracer: OmniTracer, sample: object) -> None:
    with pytest.raises(InvalidSample, match=r"sample 1 is a .*; give a mapping"):
        tracer.trace_each(sample)  # type: ignore[arg-type]
    for samples in ([sample], sample):
        with pytest.raises(InvalidSample, match=r"sample 1 is a .*; give a mapping"):
            tracer.trace(samples)  # type: ignore[call-overload]
        with pytest.raises(InvalidSample, match=r"sample 1 is a .*; give a mapping"):
            tracer.backend.prepare(samples)  # type: ignore[arg-type]
    with pytest.raises(InvalidSample, match="prepare needs at least one sample"):
        tracer.backend.prepare([])
    with pytest.raises(ConfigError, match="stream takes one sample, not a list"):
        list(tracer.stream([CHAT]))  # type: ignore[arg-type]


def test_a_result_is_printed_on_one_screen(tracer: OmniTracer) -> None:
    result = tracer.trace(CHAT)
    lines = str(result).splitlines()
    assert lines[0] == "sample lamp"
    assert lines[1].endswith("response given | signals: attmean, attraw")
    assert 5 <= len(lines) <= 24
    assert repr(result).startswith("TraceResult('lamp', ")


def test_curation_settings_count(tiny_model: str) -> None:
    strict = OmniTracer(tiny_model, curation=CurationOptions(min_confidence=1.0))
    assert {span.outcome for span in strict.trace(CHAT).spans} == {"unsupported"}


def test_what_is_heard_at_most_ends_the_units(tiny_model: str, tmp_path: Path) -> None:
    """Words that are not heard are in no unit, or a note says that the transcript is whole."""
    path = tmp_path / "beep.wav"
    path.write_bytes(audio_bytes(beep(3, [0.5, 2.5]), 16_000))
    words = [
        {"text": "hi", "start_s": 1.0, "end_s": 1.3},
        {"text": "there", "start_s": 2.0, "end_s": 2.4},
    ]
    segment = {"start_s": 1.0, "end_s": 2.5, "text": "Hi there."}
    media = MediaOptions(max_heard_s=1.5)
    units = UnitOptions(audio="chunks")
    tracer = OmniTracer(tiny_model, media=media, units=units, asr=AsrOptions(engine="given"))
    for given, transcript in (({**segment, "words": words}, "Hi"), (segment, "Hi there.")):
        part = {"type": "audio", "audio": str(path), "segments": [given]}
        content = [part, {"type": "text", "text": "What is said?"}]
        chat = {"messages": [{"role": "user", "content": content}], "response": "A greeting."}
        result = tracer.trace(chat)
        heard = [u for u in result.units if u.modality == "audio"]
        assert [(u.kind, u.start_s, u.end_s, u.transcript) for u in heard] == [
            ("audio_bin", 0.0, 1.0, ""),
            ("audio_chunk", 1.0, 1.5, transcript),
        ]
        notes = result.trace.notes
        assert "part 0: heard 1.5 of 3.0 s of sound, as media.max_heard_s says" in notes
        whole = "part 0: speech goes on outside what is heard; its transcript is whole"
        assert (whole in notes) == (transcript == "Hi there.")
        np.testing.assert_array_equal(result.folds["attmean"].uncovered, 0.0)
