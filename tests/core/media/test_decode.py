"""`SampleDecoder` on the media of a sample, and the cost of imports."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from omnitrace_core.decoded_media import DecodedAudio, DecodedImage
from omnitrace_core.errors import MediaError
from omnitrace_core.media import SampleDecoder
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Message, Part, Sample
from tests.conftest import ROOT
from tests.core.media_files import audio_bytes, beep, image_bytes

RULES = MediaRules()
DEFAULTS = MediaOptions()
RED = Image.new("RGB", (112, 84), (200, 30, 40))


def _sample(*parts: Part) -> Sample:
    return Sample("s", (Message("user", parts[:1]), Message("user", parts[1:])))


def test_media_are_returned_by_part_index() -> None:
    image = Part("image", data=image_bytes(RED))
    audio = Part("audio", data=audio_bytes(beep(1, [0]), 16_000))
    sample = _sample(Part("text", text="What?"), image, Part("text", text="And?"), audio)
    decoded = SampleDecoder(DEFAULTS, RULES).decode_parts(sample.parts)
    assert [type(decoded[k]) for k in (1, 3)] == [DecodedImage, DecodedAudio]
    assert len(decoded) == 2


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda folder: folder / "none.png", "media_missing"),
        (lambda folder: folder, "media_denied"),
        (lambda folder: _write(folder / "empty.png", b""), "media_empty"),
        (lambda folder: _write(folder / "cut.png", image_bytes(RED)[:60]), "media_corrupt"),
    ],
)
def test_errors_name_the_part_and_its_address(
    make: Callable[[Path], Path], code: str, tmp_path: Path
) -> None:
    path = make(tmp_path)
    sample = _sample(Part("text", text="What?"), Part("image", uri=str(path)))
    with pytest.raises(MediaError) as caught:
        SampleDecoder(DEFAULTS, RULES).decode_parts(sample.parts)
    assert caught.value.code == code
    assert str(caught.value).startswith(f"part 1: {path}: ")


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_importing_loads_no_decoder() -> None:
    heavy = "{'torch', 'decord', 'av', 'librosa', 'soundfile', 'fsspec', 'silero_vad', 'ray'}"
    imports = "import sys, omnitrace_core.media, omnitrace_core.asr"
    code = f"{imports}; found = {heavy} & {{*sys.modules}}; assert not found, found"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
