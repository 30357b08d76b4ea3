"""How much memory a chunk of long media takes in the stages, each measured at its peak (Linux).

docs/cluster.md, "Memory of a decoding actor", states the numbers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.core.media_files import audio_bytes, beep, run_ffmpeg
from tests.stages.chunks import Row

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="peaks are read from /proc"),
]
# What the process takes besides media: buffers of Arrow, and what the allocator keeps.
SLACK_MIB = 60


def measure(
    folder: Path,
    samples: Sequence[Sequence[Row]],
    media: Mapping[str, int] | None = None,
    *,
    segments: bool = False,
) -> dict[str, Any]:
    """Peaks in MiB, by stage, of a chunk of these samples; see tests/stages/stage_memory.py."""
    job = folder / "job.json"
    job.write_text(json.dumps({"samples": samples, "media": media or {}, "segments": segments}))
    ended = subprocess.run(
        [sys.executable, "-m", "tests.stages.stage_memory", str(job)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    print(json.dumps(found))
    assert found["errors"] == [""] * len(samples)
    return found


def test_an_actor_holds_a_chunk_once(tmp_path: Path) -> None:
    """Ten minutes of sound are 37 MiB: of four different ones, and of one in eight samples."""
    path = tmp_path / "sound.wav"
    path.write_bytes(audio_bytes(beep(600, range(0, 600, 7)).astype(np.float32), 16_000))
    segments = [{"start_s": 5.0, "end_s": 500.0, "text": "hello", "words": []}]
    sound: Row = {"type": "audio", "uri": str(path), "segments": segments}
    four = [[{**sound, "options": {"audio_start": 0.5 * number}}] for number in range(4)]
    apart = measure(tmp_path, four, segments=True)
    one_mib = 600 * 16_000 * 4 / 2**20
    assert 3.9 * one_mib < apart["decoded"] < 4 * one_mib + 1
    # All that was decoded, and the one that is copied.
    grown = apart["decode_actor"] - apart["decode_actor_before"]
    assert grown < 5 * one_mib + SLACK_MIB
    shared = measure(tmp_path, [[sound]] * 8, segments=True)
    assert shared["decoded"] < one_mib + 1
    grown = shared["decode_actor"] - shared["decode_actor_before"]
    assert grown < 2 * one_mib + SLACK_MIB
    assert shared["decode_child"] < 250
    assert all(n_units > 2 for n_units in shared["n_units"])


@pytest.mark.nightly
def test_hours_of_sound_and_video_keep_to_the_stated_memory(tmp_path: Path) -> None:
    """An hour of M4A, and a video of two hours with sound, in one chunk."""
    sound, video = tmp_path / "hour.m4a", tmp_path / "hours.mp4"
    noise, aac = "anoisesrc=a=0.1:seed=1:r={}:d={}", "-c:a aac -aac_coder fast -b:a"
    run_ffmpeg(*f"-f lavfi -i {noise.format(44_100, 3600)} {aac} 64k".split(), sound)
    pictures = "-f lavfi -i testsrc2=s=320x180:r=1:d=7200"
    coded = "-preset ultrafast -pix_fmt yuv420p -g 60"
    track = f"-f lavfi -i {noise.format(16_000, 7200)}"
    run_ffmpeg(*f"{pictures} {track} {coded} {aac} 32k".split(), video)
    samples = [[{"type": "audio", "uri": str(sound)}], [{"type": "video", "uri": str(video)}]]
    limits = {"max_audio_s": 3_610, "max_video_s": 7_210, "max_decoded_mib": 1_024}
    found = measure(tmp_path, samples, limits)
    assert found["decode_child"] < 1_200
    assert found["decode_actor"] < 1_700
    assert found["units"] < found["units_before"] + found["decoded"] + 2 * SLACK_MIB
    assert found["curation"] < 400
    n_sound, n_video = found["n_units"]
    assert 3_600 <= n_sound <= 3_602
    assert n_video >= 7_200 + 384
