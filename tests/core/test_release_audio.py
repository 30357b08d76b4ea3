"""`trace_audio` as in the published release: bins, chunks of speech, and refused settings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from omnitrace_core import (
    AsrOptions,
    BackendError,
    ChunkerConfig,
    ConfigError,
    DecodeOptions,
    InvalidSample,
    OmniTracer,
    SpeechError,
    SpeechSegment,
    UnitOptions,
    UnknownName,
)
from tests.core.release_calls import PROMPT, SPEECH, intervals

FIRST, SECOND = (1.0, 4.0), (6.0, 9.6)


@dataclass
class ReleaseChunk:
    """The fields of the release's own chunks that say where a chunk lies and what is said in it."""

    index: int
    start: float
    end: float
    text: str


@pytest.fixture(scope="module")
def tracer(tiny_model: str) -> OmniTracer:
    return OmniTracer(tiny_model, method="attmean", decode=DecodeOptions(max_new_tokens=6))


def test_time_bins(tracer: OmniTracer) -> None:
    result = tracer.trace_audio(PROMPT, SPEECH)
    whole = intervals(result, "audio_bin")
    assert whole[:2] == [(0.0, 1.0), (1.0, 2.0)]
    halves = intervals(tracer.trace_audio(prompt=PROMPT, audio=SPEECH, bin_size=0.5), "audio_bin")
    assert halves[:2] == [(0.0, 0.5), (0.5, 1.0)]
    assert len(halves) in (2 * len(whole), 2 * len(whole) - 1)


def test_the_sound_stands_before_the_prompt_which_instructs(tracer: OmniTracer) -> None:
    result = tracer.trace_audio(PROMPT, SPEECH)
    assert [part.type for part in result.sample.parts] == ["audio", "text"]
    assert [unit.text for unit in result.units if unit.kind == "instruction"] == [PROMPT]
    assert {source.modality for span in result.spans for source in span.sources} <= {"audio"}
    np.testing.assert_allclose(
        result.folds["attmean"].mass,
        tracer.trace(
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "audio", "audio": SPEECH},
                            {"type": "text", "text": PROMPT, "evidence": False},
                        ],
                    }
                ]
            }
        )
        .folds["attmean"]
        .mass,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "chunks",
    [
        [{"start": 1.0, "end": 4.0, "text": "one"}, {"start": 6.0, "end": 9.6, "text": "two"}],
        [{"start_s": 1.0, "end_s": 4.0, "text": "one"}, {"start": 6, "end": 9.6, "text": "two"}],
        [SpeechSegment(1.0, 4.0, "one"), SpeechSegment(6.0, 9.6, "two")],
        [ReleaseChunk(0, 1.0, 4.0, "one"), ReleaseChunk(1, 6.0, 9.6, "two")],
    ],
    ids=["mappings", "our spelling", "SpeechSegment", "the release's objects"],
)
@pytest.mark.parametrize("asr_model", ["scribe_v2", "no_asr", "vad"])
def test_semantic_chunks_of_the_caller_are_used_as_they_are(
    tracer: OmniTracer, chunks: list[object], asr_model: str
) -> None:
    result = tracer.trace_audio(
        PROMPT, SPEECH, audio_chunk_mode="semantic", semantic_chunks=chunks, asr_model=asr_model
    )
    assert intervals(result, "audio_chunk") == [FIRST, SECOND]
    assert [unit.transcript for unit in result.units if unit.transcript] == ["one", "two"]


def test_they_are_not_joined_whatever_the_tracers_own_settings(tiny_model: str) -> None:
    joins = OmniTracer(
        tiny_model,
        decode=DecodeOptions(max_new_tokens=2),
        asr=AsrOptions(engine="vad", chunking="join"),
    )
    chunks = [{"start": 1.0, "end": 2.0, "text": "a"}, {"start": 2.0, "end": 3.0, "text": "b"}]
    result = joins.trace_audio(PROMPT, SPEECH, "semantic", semantic_chunks=chunks)
    assert intervals(result, "audio_chunk") == [(1.0, 2.0), (2.0, 3.0)]


def test_semantic_chunks_that_cannot_be_used_are_refused(tracer: OmniTracer) -> None:
    with pytest.raises(
        InvalidSample, match=r"semantic_chunks\[0\] is a dict without start and end"
    ):
        tracer.trace_audio(PROMPT, SPEECH, "semantic", semantic_chunks=[{"text": "one"}])
    outside = [{"start": 1.0, "end": 99.0, "text": "one"}]
    with pytest.raises(SpeechError, match="ends after the media does"):
        tracer.trace_audio(PROMPT, SPEECH, "semantic", semantic_chunks=outside)
    with pytest.raises(ConfigError, match="pass audio_chunk_mode='semantic'"):
        tracer.trace_audio(PROMPT, SPEECH, semantic_chunks=outside)


def test_speech_is_found_by_an_engine(tracer: OmniTracer) -> None:
    result = tracer.trace_audio(PROMPT, SPEECH, audio_chunk_mode="semantic", asr_model="vad")
    found = intervals(result, "audio_chunk")
    assert len(found) == 2
    assert found == [pytest.approx(FIRST, abs=0.3), pytest.approx(SECOND, abs=0.3)]


def test_no_asr_cuts_the_sound_into_bins(tracer: OmniTracer) -> None:
    result = tracer.trace_audio(PROMPT, SPEECH, "semantic", bin_size=2.0, asr_model="no_asr")
    assert intervals(result, "audio_bin")[:2] == [(0.0, 2.0), (2.0, 4.0)]


def test_a_call_leaves_the_tracers_own_settings(tiny_model: str) -> None:
    tracer = OmniTracer(
        tiny_model,
        decode=DecodeOptions(max_new_tokens=2),
        units=UnitOptions(audio="chunks", bin_s=3.0),
    )
    tracer.trace_audio(PROMPT, SPEECH, bin_size=0.5)
    result = tracer.trace({"question": [{"audio": SPEECH}, {"text": "What is said?"}]})
    assert len(intervals(result, "audio_chunk")) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"audio_chunk_mode": "words"}, "audio_chunk_mode='words'; valid: 'time_bins', 'semantic'"),
        ({"bin_size": 0}, "bin_size=0: .*greater than or equal to 0"),
        ({"generation_config": object()}, "generation_config=object .*DecodeOptions"),
        (
            {"audio_chunk_mode": "semantic", "asr_model": "whisper"},
            "asr_model='whisper' needs the address of its model.*AsrOptions",
        ),
        (
            {"audio_chunk_mode": "semantic", "asr_model": "paraformer"},
            "asr_model='paraformer' needs the address of its model.*AsrOptions",
        ),
        (
            {"audio_chunk_mode": "semantic", "chunker_config": {"device": "cpu"}},
            "chunker_config is a dict; make it with .*ChunkerConfig",
        ),
        ({"chunker_config": 5}, "chunker_config is a int; make it with .*ChunkerConfig"),
    ],
)
def test_what_cannot_be_honoured_is_refused(
    tracer: OmniTracer, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        tracer.trace_audio(PROMPT, SPEECH, **arguments)  # type: ignore[arg-type]


def test_an_unknown_speech_model_is_refused_with_the_valid_ones(tracer: OmniTracer) -> None:
    with pytest.raises(
        UnknownName, match=r"asr_model='kaldi'; valid: .*no_asr, paraformer, scribe"
    ):
        tracer.trace_audio(PROMPT, SPEECH, "semantic", asr_model="kaldi")
    with pytest.raises(UnknownName, match="asr_model='kaldi'; valid"):
        tracer.trace_audio(PROMPT, SPEECH, asr_model="kaldi")


def test_scribe_takes_its_key_from_the_environment(
    tracer: OmniTracer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ELEVENLABS_API_KEY", raising=False)
    with pytest.raises(BackendError, match="ELEVENLABS_API_KEY"):
        tracer.trace_audio(PROMPT, SPEECH, "semantic")


@pytest.mark.parametrize(
    ("setting", "remedy"),
    [
        ({"elevenlabs_api_key": "sk-secret"}, "environment variable ELEVENLABS_API_KEY"),
        ({"diarize": True}, r"diarize=True\): .*leave it False"),
        ({"num_speakers": 2}, r"num_speakers=2\): .*leave it None"),
        ({"tag_audio_events": True}, r"tag_audio_events=True\): .*leave it False"),
        ({"timestamps_granularity": "character"}, r"='character'\): .*leave it 'word'"),
        ({"similarity_threshold": 0.5}, r"similarity_threshold=0.5\): .*leave it None"),
        ({"min_chunk_duration": -1.0}, r"ChunkerConfig.min_chunk_duration=-1.0: .*greater"),
        (
            {"min_chunk_duration": 9.0, "max_chunk_duration": 3.0},
            r"min_chunk_duration=9.0 is above ChunkerConfig.max_chunk_duration=3.0; give",
        ),
        ({"min_chunk_duration": 61.0}, r"=61.0 is above ChunkerConfig.max_chunk_duration=60.0"),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        {"audio_chunk_mode": "semantic", "asr_model": "vad"},
        {"audio_chunk_mode": "semantic", "asr_model": "no_asr"},
        {"audio_chunk_mode": "semantic", "semantic_chunks": [{"start": 1.0, "end": 4.0}]},
        {"audio_chunk_mode": "time_bins"},
    ],
    ids=["vad", "no_asr", "semantic_chunks", "time_bins"],
)
def test_settings_of_the_chunker_that_cannot_be_honoured_are_refused(
    tracer: OmniTracer, setting: dict[str, object], remedy: str, call: dict[str, object]
) -> None:
    config = ChunkerConfig(**setting)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=remedy) as caught:
        tracer.trace_audio(PROMPT, SPEECH, **call, chunker_config=config)  # type: ignore[arg-type]
    assert "sk-secret" not in str(caught.value) + repr(config)


def test_the_chunkers_limits_count(tiny_model: str) -> None:
    joins = OmniTracer(
        tiny_model, decode=DecodeOptions(max_new_tokens=2), asr=AsrOptions(chunking="join")
    )
    config = ChunkerConfig(min_chunk_duration=9.0)
    result = joins.trace_audio(PROMPT, SPEECH, "semantic", asr_model="vad", chunker_config=config)
    assert len(intervals(result, "audio_chunk")) == 1


def test_an_embedding_model_without_its_commit_is_refused(tracer: OmniTracer) -> None:
    config = ChunkerConfig(embedding_model="BAAI/bge-m3")
    with pytest.raises(BackendError, match=r"'BAAI/bge-m3' .* a hub id needs its commit"):
        tracer.trace_audio(PROMPT, SPEECH, "semantic", asr_model="vad", chunker_config=config)
