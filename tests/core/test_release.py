"""The calls of the method's published release: by their signatures, or refused with a remedy."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
    TraceResult,
    UnitOptions,
    UnknownName,
)
from omnitrace_core.release import audio_call
from tests.core.media_files import DATA, beep, write_clip

SPEECH = str(DATA / "two_sentences.flac")
PROMPT = "Summarize the audio recording in English."
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


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four seconds of video with sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    sound = beep(4.0, [1.0], rate=44_100)
    return str(write_clip(path, 40, fps=10, sound=sound, output=["-g", "10"]))


def intervals(result: TraceResult, kind: str) -> list[tuple[float, float]]:
    units = [unit for unit in result.units if unit.kind == kind]
    return [(unit.start_s or 0.0, unit.end_s or 0.0) for unit in units]


def test_the_signatures_are_the_releases() -> None:
    def parameters(name: str) -> dict[str, object]:
        found = inspect.signature(getattr(OmniTracer, name)).parameters.values()
        return {item.name: item.default for item in found if item.name != "self"}

    required = inspect.Parameter.empty
    assert parameters("trace_audio") == {
        "prompt": required,
        "audio": required,
        "audio_chunk_mode": "time_bins",
        "bin_size": 1.0,
        "asr_model": "scribe_v2",
        "semantic_chunks": None,
        "chunker_config": None,
        "generation_config": None,
    }
    assert parameters("trace_video") == {
        "prompt": required,
        "video": required,
        "video_fps": None,
        "video_max_pixels": None,
        "generation_config": None,
    }
    assert parameters("trace_image_text") == {
        "prompt": required,
        "content": required,
        "generation_config": None,
    }
    assert list(inspect.signature(ChunkerConfig).parameters) == [
        "elevenlabs_api_key",
        "asr_model",
        "language_code",
        "diarize",
        "num_speakers",
        "tag_audio_events",
        "timestamps_granularity",
        "embedding_model",
        "min_chunk_duration",
        "max_chunk_duration",
        "similarity_threshold",
        "device",
    ]


def test_models_and_methods_by_the_releases_names(tiny_model: str) -> None:
    hub_id = "Qwen/Qwen2.5-Omni-7B"
    assert OmniTracer(model_name="qwen", method="attmean").model_options.path == hub_id
    assert OmniTracer(" Qwen ").model_options.path == hub_id
    tracer = OmniTracer(model_name="qwen", method="attraw", model_path=tiny_model)
    assert tracer.model_options.path == tiny_model
    assert tracer.trace_options.signals == ("attraw",)
    assert OmniTracer(tiny_model, "attraw").trace_options.signals == ("attraw",)
    assert OmniTracer(model_name=tiny_model).model_options.path == tiny_model


def test_a_model_is_named_once(tiny_model: str) -> None:
    with pytest.raises(ConfigError, match="either model or model_name"):
        OmniTracer()
    for both in ({"model_name": "qwen"}, {"model_path": tiny_model}):
        with pytest.raises(ConfigError, match="either model or model_name"):
            OmniTracer(tiny_model, **both)  # type: ignore[arg-type]


def test_a_folder_with_the_name_of_a_model_is_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("minicpm").mkdir()
    assert OmniTracer("minicpm").model_options.path == "minicpm"


def test_a_model_without_a_backend_is_refused_at_once() -> None:
    with pytest.raises(
        ConfigError, match=r"model_name='minicpm' .* no backend .* model_name='qwen'"
    ):
        OmniTracer(model_name="minicpm", method="attmean")


def test_an_unknown_method_is_refused_with_the_valid_ones(tiny_model: str) -> None:
    with pytest.raises(UnknownName, match=r"'attention'.*attgrads"):
        OmniTracer(tiny_model, method="attention").load()


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
        ({"bin_size": 0}, "bin_size=0: .*greater than 0"),
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
    ],
)
def test_settings_of_the_chunker_that_cannot_be_honoured_are_refused(
    tracer: OmniTracer, setting: dict[str, object], remedy: str
) -> None:
    config = ChunkerConfig(**setting)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=remedy) as caught:
        tracer.trace_audio(PROMPT, SPEECH, "semantic", asr_model="vad", chunker_config=config)
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


def test_video_by_frames_per_second(tracer: OmniTracer, clip: str) -> None:
    usual = tracer.trace_video("What happened?", clip)
    assert len(intervals(usual, "video_bin")) == len(intervals(usual, "sound_bin")) == 4
    dense = tracer.trace_video("What happened?", video=clip, video_fps=4.0)
    assert len(intervals(dense, "video_bin")) == len(intervals(dense, "sound_bin")) == 8
    assert intervals(dense, "sound_bin")[0] == (0.0, 0.5)
    assert [unit.text for unit in dense.units if unit.kind == "instruction"] == ["What happened?"]


def test_video_under_a_pixel_budget(tmp_path: Path, tracer: OmniTracer) -> None:
    large = str(write_clip(tmp_path / "large.mp4", 20, fps=10, size=(448, 448)))
    free = tracer.trace_video("What happened?", large)
    bound = tracer.trace_video("What happened?", large, video_max_pixels=8_000)
    assert bound.trace.n_prompt_tokens < free.trace.n_prompt_tokens


def test_impossible_settings_of_a_video_are_refused(tracer: OmniTracer, clip: str) -> None:
    with pytest.raises(ConfigError, match="video_fps=0; give sampled frames per second"):
        tracer.trace_video("What?", clip, video_fps=0)
    with pytest.raises(InvalidSample, match="total_pixels is -1"):
        tracer.trace_video("What?", clip, video_max_pixels=-1)
    with pytest.raises(ConfigError, match="generation_config=dict"):
        tracer.trace_video("What?", clip, generation_config={})  # type: ignore[arg-type]


def test_texts_and_images(tmp_path: Path, tracer: OmniTracer) -> None:
    picture = str(tmp_path / "picture.png")
    Image.new("RGB", (120, 80), "red").save(picture)
    content = [
        {"type": "text", "text": "Look at this."},
        {"type": "image", "image": picture},
        {"type": "text", "text": "What is it?"},
    ]
    result = tracer.trace_image_text("Answer the question.", content)
    assert [part.type for part in result.sample.parts] == ["text", "text", "image", "text"]
    kinds = [unit.kind for unit in result.units]
    assert kinds == ["instruction", "sentence", "image", "sentence"]


def speech_options(
    asr: AsrOptions, asr_model: str, config: ChunkerConfig | None = None
) -> AsrOptions:
    """The options that a call of `trace_audio` reads its speech with."""
    return audio_call(
        PROMPT,
        SPEECH,
        audio_chunk_mode="semantic",
        bin_size=1.0,
        asr_model=asr_model,
        semantic_chunks=None,
        chunker_config=config,
        units=UnitOptions(),
        asr=asr,
    ).asr


def test_the_tracers_own_settings_of_an_engine_count() -> None:
    for engine in ("whisper", "paraformer"):
        own = AsrOptions(engine=engine, model="models/mine", min_chunk_s=3.0, threads=2)
        assert speech_options(own, engine) == own
    own = AsrOptions(engine="scribe", base_url="http://localhost:1", language="de")
    assert speech_options(own, "scribe_v2") == own.model_copy(update={"model": "scribe_v2"})


def test_settings_of_one_engine_are_not_passed_to_another() -> None:
    own = AsrOptions(
        engine="whisper", model="models/mine", language="de", embedding="models/e", batch_s=9.0
    )
    assert speech_options(own, "scribe_v2") == AsrOptions(
        engine="scribe", model="scribe_v2", embedding="models/e", batch_s=9.0
    )


def test_the_chunkers_settings_have_their_places() -> None:
    config = ChunkerConfig(
        asr_model="scribe_v1",
        language_code="en",
        embedding_model="models/e",
        min_chunk_duration=2.0,
        max_chunk_duration=30.0,
        device="cuda:0",
    )
    wanted = AsrOptions(
        engine="scribe",
        model="scribe_v1",
        language="en",
        embedding="models/e",
        min_chunk_s=2.0,
        max_chunk_s=30.0,
        device="cuda:0",
    )
    assert speech_options(AsrOptions(), "scribe_v2", config) == wanted
    # The chunker's model is a model of Scribe, whatever the engine.
    assert speech_options(AsrOptions(), "vad", config).model is None
