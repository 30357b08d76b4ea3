"""The calls of the method's published release: by their signatures, or refused with a remedy."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

from omnitrace_core import (
    AsrOptions,
    ChunkerConfig,
    ConfigError,
    DecodeOptions,
    InvalidSample,
    OmniTracer,
    UnitOptions,
    UnknownName,
)
from omnitrace_core.release import audio_call
from tests.core.media_files import beep, write_clip
from tests.core.release_calls import PROMPT, SPEECH, intervals


@pytest.fixture(scope="module")
def tracer(tiny_model: str) -> OmniTracer:
    return OmniTracer(tiny_model, method="attmean", decode=DecodeOptions(max_new_tokens=6))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four seconds of video with sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    sound = beep(4.0, [1.0], rate=44_100)
    return str(write_clip(path, 40, fps=10, sound=sound, output=["-g", "10"]))


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
    assert OmniTracer("qwen", "attmean", tiny_model).model_options.path == tiny_model
    assert OmniTracer(tiny_model, method=" AttMean").trace_options.signals == ("attmean",)
    assert OmniTracer(tiny_model, method="heads:W.npy").trace_options.signals == ("heads:W.npy",)
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


@pytest.mark.slow
def test_a_modality_is_its_method(tracer: OmniTracer, clip: str) -> None:
    content = [{"type": "text", "text": "The lamp is red."}]
    for result, kinds in (
        (tracer.trace(modality="audio", prompt=PROMPT, audio=SPEECH, bin_size=2.0), {"audio_bin"}),
        (tracer.trace(modality=" Video", prompt=PROMPT, video=clip), {"video_bin", "sound_bin"}),
        (tracer.trace(modality="image_text", prompt=PROMPT, content=content), {"sentence"}),
        (
            tracer.trace("image_text", prompt=PROMPT, content=content),  # type: ignore[call-overload]
            {"sentence"},
        ),
    ):
        assert {unit.kind for unit in result.units} == {"instruction", *kinds}


def test_a_modality_that_cannot_be_traced_is_refused(tracer: OmniTracer) -> None:
    with pytest.raises(ConfigError, match="modality='speech'; valid: 'image_text', 'audio'"):
        tracer.trace(modality="speech", prompt=PROMPT)
    with pytest.raises(ConfigError, match="either samples or modality"):
        tracer.trace({"question": []}, modality="audio")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="unexpected keyword argument 'sound'"):
        tracer.trace({"question": []}, sound="a.wav")  # type: ignore[call-overload]


def test_information_on_the_backend(tracer: OmniTracer, tiny_model: str) -> None:
    found = tracer.get_backend_info()
    assert list(found) == [
        "model_name",
        "method",
        "model_type",
        "special_token_count",
        "audio_token_id",
        "vision_token_id",
        "image_token_id",
    ]
    assert found["model_name"] == tiny_model
    assert found["method"] == "attmean"
    numbers = [found[name] for name in list(found)[3:]]
    assert all(isinstance(number, int) and number > 0 for number in numbers)


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
    for wrong in ("2", True, float("nan"), float("inf")):
        message = re.escape(f"video_fps={wrong!r}; give sampled frames per second")
        with pytest.raises(ConfigError, match=message):
            tracer.trace_video("What?", clip, video_fps=wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidSample, match="total_pixels is -1"):
        tracer.trace_video("What?", clip, video_max_pixels=-1)
    with pytest.raises(ConfigError, match="generation_config=dict"):
        tracer.trace_video("What?", clip, generation_config={})  # type: ignore[arg-type]


@dataclass(frozen=True)
class ReleaseGeneration:
    """Fields of the release's GenerationConfig."""

    max_new_tokens: int = 64
    min_new_tokens: int = 0
    no_repeat_ngram_size: int = 5
    method: str = "attmean"


def test_refused_settings_of_generation_are_named_for_the_tracer(tracer: OmniTracer) -> None:
    for config, settings in (
        (ReleaseGeneration(), "max_new_tokens=64, no_repeat_ngram_size=5"),
        ({"max_new_tokens": 9}, "max_new_tokens=9, no_repeat_ngram_size=3"),
    ):
        with pytest.raises(ConfigError, match=rf"decode=DecodeOptions\({settings}\)"):
            tracer.trace_image_text("?", [], generation_config=config)  # type: ignore[arg-type]


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


def test_a_config_of_the_chunker_overrides_only_what_it_sets() -> None:
    own = AsrOptions(engine="scribe", model="scribe_v1", min_chunk_s=2.0, max_chunk_s=9.0)
    assert speech_options(own, "scribe_v2", ChunkerConfig()) == own
    found = speech_options(own, "scribe_v2", ChunkerConfig(max_chunk_duration=4.0))
    assert found == own.model_copy(update={"max_chunk_s": 4.0})
    config = ChunkerConfig()
    config.asr_model = "scribe_v2"
    config.min_chunk_duration = 5.0
    found = speech_options(own, "scribe_v2", config)
    assert found == own.model_copy(update={"model": "scribe_v2", "min_chunk_s": 5.0})


def test_without_settings_of_the_tracer_the_releases_values_hold() -> None:
    found = speech_options(AsrOptions(), "scribe_v2", ChunkerConfig())
    assert (found.model, found.min_chunk_s, found.max_chunk_s) == ("scribe_v2", 5.0, 60.0)


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
