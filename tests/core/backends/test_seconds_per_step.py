"""What the model is told of the time of media follows the media, whatever was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from omnitrace_core import OmniTracer
from omnitrace_core.backends.qwen2_5_omni import Qwen25OmniBackend
from tests.core.media.barcodes.corpus import made
from tests.core.media.barcodes.derived import PLAIN
from tests.core.media.barcodes.irregular import IRREGULAR

LENGTH_S, RATE = 5.0, 30


@pytest.fixture(scope="module")
def tracer(tiny_model: str) -> OmniTracer:
    return OmniTracer(tiny_model, signals=("attmean",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("steps")


def steps(tracer: OmniTracer, path: Path, **options: float) -> tuple[int, float]:
    """Steps that a video has for the model, and the seconds of each that the model is told."""
    part = {"type": "video", "video": str(path), **options}
    content = [part, {"type": "text", "text": "What?"}]
    sample = {"sample_id": "v", "messages": [{"role": "user", "content": content}], "response": "x"}
    inputs: Mapping[str, Any] = tracer.backend.prepare([sample]).inputs
    return int(inputs["video_grid_thw"][0, 0]), float(inputs["video_second_per_grid"][0])


@pytest.mark.parametrize(
    "options",
    [{"fps": fps} for fps in (0.5, 1, 2, 4, 7.3, 30)] + [{"nframes": n} for n in (1, 4, 7, 20)],
)
def test_steps_cover_the_video_at_every_rate(
    tracer: OmniTracer, folder: Path, options: dict[str, float]
) -> None:
    n, step_s = steps(tracer, made(PLAIN, folder, "plain"), **options)
    assert n * step_s == pytest.approx(LENGTH_S, abs=0.02)


def test_steps_cover_what_is_asked_for_of_a_video(tracer: OmniTracer, folder: Path) -> None:
    path = made(PLAIN, folder, "plain")
    n, step_s = steps(tracer, path, video_start=1.0, video_end=3.99, fps=4)
    assert n * step_s == pytest.approx(3.0, abs=0.02)


@pytest.mark.parametrize("name", ["slows-down-mp4", "slows-down-mkv", "pauses-flv", "uneven-mp4-b"])
@pytest.mark.parametrize("options", [{}, {"nframes": 12}])
def test_steps_cover_videos_of_irregular_rate(
    tracer: OmniTracer, folder: Path, name: str, options: dict[str, float]
) -> None:
    e = IRREGULAR[name]
    assert e.keep is not None
    n, step_s = steps(tracer, made(e, folder, name), **options)
    # Of the last frame not all containers say how long it is shown.
    assert n * step_s == pytest.approx(e.keep[-1] / RATE, abs=0.3)


@pytest.mark.parametrize("options", [{"nframes": 16}, {"nframes": 8}, {"fps": 2}])
def test_no_steps_beyond_the_frames_of_a_short_video(
    tracer: OmniTracer, folder: Path, options: dict[str, float]
) -> None:
    n, step_s = steps(tracer, made(replace(PLAIN, n_frames=9), folder, "nine"), **options)
    assert n * 2 <= 9
    assert n * step_s == pytest.approx(9 / RATE, abs=0.02)


def test_sound_longer_than_the_window_of_the_extractor_is_whole(
    tracer: OmniTracer, tmp_path: Path
) -> None:
    """Its 300 s are where the official processor cuts without a word."""
    path, rate, beep_s = tmp_path / "long.flac", 8_000, 340
    sound = np.zeros(350 * rate, dtype=np.float32)
    sound[beep_s * rate :][:rate] = 0.5 * np.sin(np.arange(rate))
    soundfile.write(path, sound, rate)
    content = [{"type": "audio", "audio": str(path)}, {"type": "text", "text": "What?"}]
    sample = {"sample_id": "a", "messages": [{"role": "user", "content": content}], "response": "x"}
    prepared = tracer.backend.prepare([sample])
    units = [unit for unit in prepared.encoded[0].ready.units if unit.modality == "audio"]
    assert len(units) == 350
    assert units[-1].end_s == 350
    # 100 mel frames, and 25 positions, per second.
    levels = np.asarray(prepared.inputs["input_features"])[0].mean(axis=0)
    assert abs(int(levels.argmax()) - beep_s * 100) <= 100
    assert isinstance(tracer.backend, Qwen25OmniBackend)
    token = tracer.backend.processor.audio_token_id
    assert int((prepared.inputs["input_ids"] == token).sum()) == 350 * 25
