"""A decoder on a machine that lacks disk space or file handles blames the machine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnitrace_core.errors import MediaMissing, NodeFault
from omnitrace_core.media.isolation.isolated_decoder import IsolatedDecoder
from omnitrace_core.media.sample_decoder import SampleDecoder
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from tests.core.media.isolation.decoding_children import RULES
from tests.core.media_files import audio_bytes, image_bytes, run_ffmpeg
from tests.small_disk import grow, small_disk, use

STARVED = "tests.core.media.isolation.starved_decoder:decode"
REASON = re.compile("Too many open files|temporary")
SOUND = audio_bytes(np.zeros(16_000, np.float32), 16_000)


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Part]:
    """A part of each kind that is opened in its own way; given by its path, or by its bytes."""
    folder = tmp_path_factory.mktemp("media")
    image, sound, film = folder / "a.png", folder / "a.m4a", folder / "a.mp4"
    image.write_bytes(image_bytes(Image.new("RGB", (56, 56))))
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=1", sound)
    run_ffmpeg("-f", "lavfi", "-i", "testsrc=d=1:s=64x64", film)
    parts: dict[str, Part] = {"wave inline": Part("audio", data=SOUND)}
    for part in (
        Part("image", uri=str(image)),
        Part("audio", uri=str(sound)),
        Part("video", uri=str(film)),
    ):
        content = Path(part.uri).read_bytes()
        parts[f"{part.type} at a path"] = part
        parts[f"{part.type} inline"] = replace(part, uri="", data=content)
    return parts


@pytest.fixture(scope="module")
def starved() -> Iterator[IsolatedDecoder]:
    with IsolatedDecoder(MediaOptions(), RULES, STARVED) as isolated:
        yield isolated


@pytest.mark.slow
def test_missing_file_handles_are_never_the_samples(
    starved: IsolatedDecoder, media: dict[str, Part]
) -> None:
    faults = []
    for name, part in media.items():
        for when in ("cold", "warm"):
            for n_free in range(8):
                order = Part(part.type, uri=part.uri, data=part.data, text=f"{when} {n_free}")
                try:
                    starved.decode_part(order)
                except NodeFault as fault:
                    faults.append(str(fault))
                else:
                    break
            else:
                pytest.fail(f"{name}: 7 handles are not enough")
    assert len(faults) >= 12
    assert any("/av/" in fault for fault in faults), faults
    assert all(REASON.search(fault) for fault in faults), faults


def test_missing_file_is_still_the_samples(starved: IsolatedDecoder) -> None:
    with pytest.raises(MediaMissing):
        starved.decode_part(Part("image", uri="/no/such.png", text="cold 50"))


def test_full_temporary_disk_is_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sound of 63 KiB does not fit beside 48 on 96, and decodes when the disk has grown."""
    with small_disk(tmp_path / "small", "96k") as folder:
        use(folder, 48)
        monkeypatch.setenv("TMPDIR", str(folder))
        decoder = SampleDecoder(MediaOptions(), RULES, isolate=True)
        for _ in range(2):
            with pytest.raises(NodeFault, match=r"No space left on device.*set TMPDIR") as caught:
                decoder.decode_parts([Part("audio", data=SOUND)])
            assert str(folder) in str(caught.value)
        grow(folder, "1m")
        assert decoder.decode_parts([Part("audio", data=SOUND)])
        del decoder


def test_no_temporary_folder_at_all_is_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(NodeFault, match="No such file"):
        SampleDecoder(MediaOptions(), RULES).decode_parts([Part("audio", data=SOUND)])
