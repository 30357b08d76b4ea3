"""A beep and a flash at known times lie in the right source units.

Tests file, decoder and units together: constant and variable frame rate, late streams, and cuts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omnitrace_core.decoded_media import DecodedVideo
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.reader import ReadingOptions, SampleReader
from omnitrace_core.records import SOUND_KINDS, ReadySample
from omnitrace_core.samples.parse import parse_any
from tests.core.media_files import beep, run_ffmpeg, write_clip

FRAMES, FPS, BEEP = 50, 10, 3.3
# Frame k has the grey level 4 k + 20; the flash is the frame with this number.
FLASH = 22


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, float, float]]:
    """By name: the file, and the times of its flash and beep on its own clock, in seconds."""
    folder = tmp_path_factory.mktemp("times")
    sound = beep(FRAMES / FPS, [BEEP])
    constant = write_clip(folder / "constant.mp4", FRAMES, fps=FPS, sound=sound, sound_rate=16_000)
    # Frames from number 10 on are shown for 0.2 s instead of 0.1.
    slower = "setpts='if(lt(N,10),N*0.1,1+(N-10)*0.2)/TB'"
    variable = write_clip(
        folder / "variable.mp4",
        FRAMES,
        fps=FPS,
        sound=beep(9.0, [BEEP]),
        sound_rate=16_000,
        video_filter=slower,
    )
    late = folder / "late.mp4"
    streams = ["-map", "0:v", "-map", "1:a", "-c", "copy"]
    run_ffmpeg(
        *("-itsoffset", "1.5", "-i", constant, "-itsoffset", "0.7", "-i", constant), *streams, late
    )
    return {
        "constant": (constant, FLASH / FPS, BEEP),
        "variable": (variable, 1 + (FLASH - 10) * 0.2, BEEP),
        "late": (late, 1.5 + FLASH / FPS, 0.7 + BEEP),
    }


@pytest.mark.parametrize("name", ["constant", "variable", "late"])
@pytest.mark.parametrize("options", [{}, {"fps": 4}, {"video_start": 1.2, "video_end": 6.0}])
def test_flash_and_beep_lie_in_the_right_units(
    clips: Mapping[str, tuple[Path, float, float]], name: str, options: dict[str, Any]
) -> None:
    path, flash_s, beep_s = clips[name]
    content = [{"type": "video", "video": str(path), **options}, {"type": "text", "text": "When?"}]
    row = {"sample_id": "a", "messages": [{"role": "user", "content": content}]}
    ready = SampleReader(ReadingOptions(MediaRules())).read(parse_any(row))
    (video,) = ready.media.values()
    assert isinstance(video, DecodedVideo)
    step = float(np.diff(video.frame_times_s).max())
    found_s = video.frame_times_s[np.abs(levels(video) - (4 * FLASH + 20)).argmin()]
    assert abs(found_s - flash_s) <= step + 0.05
    start, end = covering(ready, float(found_s), sound=False)
    assert start - step <= flash_s <= end + step
    loudest = loudest_s(video)
    assert loudest == pytest.approx(beep_s + 0.05, abs=0.1)
    start, end = covering(ready, loudest, sound=True)
    assert start - 0.1 <= beep_s <= end


def levels(video: DecodedVideo) -> np.ndarray:
    return video.frames.mean(axis=(1, 2, 3))


def loudest_s(video: DecodedVideo) -> float:
    """The middle of the loudest tenth of a second, on the file's clock."""
    assert video.sound is not None
    rate = video.sound.sample_rate
    power = np.convolve(video.sound.waveform**2, np.ones(rate // 10), "valid")
    return video.sound.start_s + (float(power.argmax()) + rate / 20) / rate


def covering(ready: ReadySample, second: float, *, sound: bool) -> tuple[float, float]:
    """The interval of the one unit of a stream that contains a time in seconds."""
    found = [
        (unit.start_s, unit.end_s)
        for unit in ready.units
        if unit.start_s is not None
        and unit.end_s is not None
        and (unit.kind in SOUND_KINDS) == sound
        and unit.start_s <= second < unit.end_s
    ]
    assert len(found) == 1, found
    return found[0]
