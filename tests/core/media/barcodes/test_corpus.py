"""No frame of another time than the one it carries, in any codec, container and setting.

`make test` checks a tenth of the corpus, `make nightly` the whole.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from omnitrace_core.options import MediaOptions
from omnitrace_core.records import PartOptions
from tests.core.media.barcodes.bars import MATRICES, Seen, draw, read, turned
from tests.core.media.barcodes.corpus import corpus, made, tenth
from tests.core.media.barcodes.derived import HEVC, PLAIN, WITH_B
from tests.core.media.barcodes.encode import truth_of
from tests.core.media.barcodes.irregular import IRREGULAR, PATTERNS
from tests.core.media.barcodes.judge import decode, faults

READERS = ("pyav", "decord")
# Intact files that the default reader may refuse, by name.
MAY_REFUSE: frozenset[str] = frozenset()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where files are written once that several tests read."""
    return tmp_path_factory.mktemp("barcodes")


def check(name: str, folder: Path, reader: str) -> None:
    path, truth = corpus()[name].make(folder)
    may_refuse = reader == "decord" or bool(truth.odd) or name in MAY_REFUSE
    options = MediaOptions(video_reader=reader)
    assert faults(path, truth, options, may_refuse=may_refuse) == []


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", tenth())
def test_a_tenth(name: str, reader: str, folder: Path) -> None:
    check(name, folder, reader)


@pytest.mark.nightly
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", sorted(corpus()))
def test_the_whole(name: str, reader: str, folder: Path) -> None:
    check(name, folder, reader)


def test_the_corpus_is_as_wide_as_it_should_be() -> None:
    names = set(corpus())
    assert len(names) >= 160
    for word in ("open", "cut", "edits", "turned", "late", "joined", "cat", "slows-down"):
        assert any(word in name for name in names)
    assert len(tenth()) == pytest.approx(len(names) / 10, abs=1)


@pytest.mark.parametrize("size", [(96, 64), (168, 112), (84, 56)])
def test_bars_are_read_however_they_are_turned(size: tuple[int, int]) -> None:
    for number in (0, 1, 341, 1023):
        frame = np.asarray(Image.fromarray(draw(number)).resize(size))
        for matrix in MATRICES.values():
            assert read(turned(frame, matrix)) == Seen(number, matrix)
    halves = (draw(340) // 2 + draw(341) // 2).astype(np.uint8)
    assert read(halves).number is None
    assert read(np.full((64, 96, 3), 128, np.uint8)) == Seen(None, None)


def test_the_judge_sees_a_wrong_frame_time_turn_end_and_choice(folder: Path) -> None:
    """Told another truth than that of the file, it says so."""
    e = replace(WITH_B, n_frames=20)
    path, truth = made(e, folder, "judged"), truth_of(e)

    def said(**changes: object) -> str:
        told = replace(truth, **changes)  # type: ignore[arg-type]
        return " ".join(faults(path, told, MediaOptions(), may_refuse=False))

    assert said() == ""
    assert "are not those of their time" in said(numbers=truth.numbers + 1)
    swapped = np.array([1, 0, *range(2, e.n_frames)])
    assert "0.0000 s: 1 due, 0 given" in said(numbers=swapped)
    assert "times are of no frame" in said(starts_s=truth.starts_s * 1.01)
    assert "starts at" in said(starts_s=truth.starts_s + 0.01)
    assert "turned" in said(matrix=MATRICES["mirrored"])
    assert "ends at" in said(end_s=truth.end_s - 0.02)
    some = np.arange(0, e.n_frames, 2)
    assert "sampled" in said(numbers=some, starts_s=truth.starts_s[some])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_one_video_in_any_container_gives_the_same_samples_and_steps(
    pattern: str, folder: Path
) -> None:
    forms = {name: e for name, e in IRREGULAR.items() if name.startswith(pattern)}
    for wanted in (PartOptions(), PartOptions(fps=5.0), PartOptions(nframes=12)):
        given = {}
        for name, e in forms.items():
            video = decode(made(e, folder, name), MediaOptions(), wanted)
            given[name] = ([read(frame).number for frame in video.frames], video.fps)
        numbers, fps = given[f"{pattern}-mp4"]
        assert all(found == numbers for found, _ in given.values()), given
        # How long the last frame is shown not all containers say.
        assert all(told == pytest.approx(fps, rel=0.03) for _, told in given.values()), given


def test_one_video_of_even_rate_in_any_container(folder: Path) -> None:
    containers = ("mp4", "mov", "fmp4", "mkv", "flv", "ts", "avi")
    base = replace(PLAIN, n_frames=90)
    cases = [replace(base, container=container) for container in containers]
    cases += [replace(HEVC, container=container, n_frames=90) for container in ("mp4", "mkv", "ts")]
    cases += [replace(base, codec=codec, container="webm") for codec in ("vp8", "vp9")]
    for wanted in (PartOptions(), PartOptions(fps=7.0), PartOptions(nframes=12)):
        given = {}
        for e in cases:
            video = decode(made(e, folder, f"even-{e.name}"), MediaOptions(), wanted)
            given[e.name] = ([read(frame).number for frame in video.frames], video.fps)
        numbers, fps = given[base.name]
        assert all(found == numbers for found, _ in given.values()), given
        assert all(told == pytest.approx(fps, rel=2e-3) for _, told in given.values()), given
