"""The planted world: it is deterministic, its labels are true, and order alone answers nothing."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest

from omnitrace_core.decoded_media import DecodedAudio, DecodedImage, DecodedMedia, DecodedVideo
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import UnitOptions
from omnitrace_core.reader import ReadingOptions, SampleReader
from omnitrace_core.records import ReadySample, SourceUnit
from omnitrace_core.samples.parse import parse_any
from training.world.decoded import as_ready
from training.world.files import write_world
from training.world.lexicon import COLOURS, PLACES, SHAPES, SOUNDS
from training.world.rendering import SAMPLE_RATE, draw_picture, play, quadrant_box
from training.world.samples import Clip, Evidence, Picture, Recording, Shape, Text, WorldSample
from training.world.tasks import CHOICES, TASK_NAMES, TASKS, make_sample

SEEDS = [f"test-{number}" for number in range(40)]


@pytest.mark.parametrize("task", TASK_NAMES)
@pytest.mark.parametrize("level", [2, 4, 6, 8])
def test_answers_rest_on_their_evidence(task: str, level: int) -> None:
    for seed in SEEDS[:10]:
        sample = make_sample(task, level, seed)
        assert sample == make_sample(task, level, seed)
        assert sample.questions
        for question in sample.questions:
            assert all(f" {value}" in question.answer for value in question.values)
            assert question.text in sample.prompt
            for item in question.evidence:
                assert is_in_its_part(sample, item), (sample.sample_id, item)


def is_in_its_part(sample: WorldSample, item: Evidence) -> bool:
    """Whether the evidence lies in its part."""
    part = sample.parts[item.part]
    if isinstance(part, Text):
        assert item.chars is not None
        text = part.text[slice(*item.chars)]
        return item.modality == "text" and text.endswith((".", ":")) and text[0].isupper()
    if isinstance(part, Picture):
        boxes = [quadrant_box(s.quadrant) for s in part.shapes if s.quadrant is not None]
        return item.modality == "image" and (item.box is None or item.box in boxes)
    n_seconds = len(part.sounds if isinstance(part, Recording) else part.shapes)
    assert item.time is not None
    assert item.modality == ("audio" if isinstance(part, Recording) else "video")
    return 0 <= item.time[0] < item.time[1] <= n_seconds


@pytest.mark.parametrize("task", [task for task in TASKS if task != "conflict"])
def test_order_explains_nothing(task: str) -> None:
    """The k-th answer rests on the k-th item no more often than by chance."""
    places: list[int] = []
    for number in range(300):
        sample = make_sample(task, 4, f"order-{number}")
        if len(sample.questions) > 1:
            first, second = (question.evidence[0] for question in sample.questions[:2])
            places.append(int(position(first) < position(second)))
    assert 0.35 < np.mean(places) < 0.65
    assert len(places) > 100


def position(item: Evidence) -> tuple[float, ...]:
    start = item.chars[0] if item.chars else item.time[0] if item.time else 0.0
    row, column = (item.box[1], item.box[0]) if item.box else (0.0, 0.0)
    return (item.part, start, row, column)


@pytest.mark.parametrize("task", CHOICES)
def test_wrong_options_are_in_the_sample_too(task: str) -> None:
    """So the right option cannot be found without the question."""
    for seed in SEEDS:
        sample = make_sample(task, 4, seed)
        media = repr(sample.parts)
        found = [option for option in sample.options if option in media]
        assert sample.questions[0].values[0] in found
        assert len(found) >= 3


def test_pictures_beyond_the_shapes_show_noise() -> None:
    """The out-of-range split has more pictures than there are shapes."""
    sample = make_sample("image_lookup", 7, "more")
    shown = [len(part.shapes) for part in sample.parts if isinstance(part, Picture)]
    assert len(shown) == 7
    assert sorted(shown) == [0] * (7 - len(SHAPES)) + [1] * len(SHAPES)
    assert shown != sorted(shown), "in any order"
    for question in sample.questions:
        (item,) = question.evidence
        part = sample.parts[item.part]
        assert isinstance(part, Picture)
        assert part.shapes[0].kind in question.text


def test_a_level_that_needs_too_many_words_is_refused() -> None:
    with pytest.raises(ValueError, match="lower level"):
        make_sample("text_where", len(PLACES) + 1, "far")


def test_conflicts_follow_the_rule() -> None:
    followed, first = set(), set()
    for seed in SEEDS:
        sample = make_sample("conflict", 3, seed)
        (question,) = sample.questions
        rule, caption = (part.text for part in sample.parts if isinstance(part, Text))
        kind = question.answer.split()[1]
        shown = next(
            shape.colour
            for part in sample.parts
            if isinstance(part, Picture)
            for shape in part.shapes
            if shape.kind == kind
        )
        trusts_text = rule == "Trust the caption."
        assert (question.values[0] in caption) == trusts_text
        assert (question.values == (shown,)) != trusts_text
        followed.add(trusts_text)
        places = [k for k, part in enumerate(sample.parts) if isinstance(part, Text)]
        first.add(places[1] < len(sample.parts) - 1)
    assert followed == first == {True, False}


def test_shapes_lie_in_their_quadrants() -> None:
    for quadrant in range(4):
        for kind in SHAPES:
            pixels = draw_picture(Picture((Shape(kind, "red", quadrant),), seed=1)).astype(int)
            red = np.abs(pixels - COLOURS["red"]).sum(axis=2) == 0
            rows, columns = np.nonzero(red)
            x0, y0, x1, y1 = quadrant_box(quadrant)
            assert red.sum() > 60
            assert columns.min() >= x0
            assert columns.max() < x1
            assert rows.min() >= y0
            assert rows.max() < y1


def test_sounds_differ_and_stay_in_their_second() -> None:
    wave = play(Recording(("bell", None, "horn"), seed=0))
    seconds = wave.reshape(3, SAMPLE_RATE)
    loud = np.sqrt((seconds**2).mean(axis=1))
    assert loud[1] < 0.01 < 0.03 < min(loud[0], loud[2])
    spectra = [np.abs(np.fft.rfft(play(Recording((name,), seed=3)))) for name in SOUNDS]
    unit = np.stack([spectrum / np.linalg.norm(spectrum) for spectrum in spectra])
    alike = unit @ unit.T - np.eye(len(SOUNDS))
    assert alike.max() < 0.9, "two sounds have one spectrum"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[WorldSample]]:
    dest = tmp_path_factory.mktemp("world")
    samples = [make_sample(task, 4, "files") for task in TASK_NAMES]
    write_world(dest, samples)
    return dest, samples


def test_the_same_samples_give_the_same_bytes(
    written: tuple[Path, list[WorldSample]], tmp_path: Path
) -> None:
    dest, samples = written
    write_world(tmp_path, samples)
    names = sorted(path.relative_to(dest) for path in dest.rglob("*") if path.is_file())
    assert len(names) > len(samples)
    assert names == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    for name in names:
        assert (dest / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_files_go_through_the_real_decoders(
    written: tuple[Path, list[WorldSample]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the decoded media, units of the pipeline cover every labelled place."""
    dest, samples = written
    monkeypatch.chdir(dest)
    reader = SampleReader(
        ReadingOptions(MediaRules(), units=UnitOptions(image="grid", grid=(2, 2)))
    )
    lines = (dest / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    for line, made in zip(lines, samples, strict=True):
        ready = reader.read(parse_any(json.loads(line)))
        assert ready.sample.reference_answer == made.response
        for label in ready.sample.labels:
            answer = made.response[label.char_start : label.char_end]
            assert answer == label.statement
            for source in label.sources:
                assert covering(ready, source), (made.sample_id, source)


def test_samples_without_files_equal_decoded_ones_up_to_the_codecs(
    written: tuple[Path, list[WorldSample]], monkeypatch: pytest.MonkeyPatch
) -> None:
    dest, samples = written
    monkeypatch.chdir(dest)
    rules = MediaRules(video_min_pixels=4 * 28 * 28)
    reader = SampleReader(ReadingOptions(rules, units=UnitOptions(image="grid", grid=(2, 2))))
    lines = (dest / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    for line, made in zip(lines, samples, strict=True):
        from_file, direct = reader.read(parse_any(json.loads(line))), as_ready(made, reader)
        for one, other in zip(from_file.units, direct.units, strict=True):
            assert one.kind == other.kind
            assert (one.text, one.box) == (other.text, other.box)
            np.testing.assert_allclose(one.start_s or 0, other.start_s or 0, atol=0.05)
        for index, medium in from_file.media.items():
            same_medium(medium, direct.media[index])


def same_medium(one: DecodedMedia, other: DecodedMedia) -> None:
    if isinstance(one, DecodedImage):
        assert isinstance(other, DecodedImage)
        np.testing.assert_array_equal(one.pixels, other.pixels)
    elif isinstance(one, DecodedAudio):
        assert isinstance(other, DecodedAudio)
        np.testing.assert_allclose(one.waveform, other.waveform, atol=1e-4)
    else:
        assert isinstance(other, DecodedVideo)
        np.testing.assert_allclose(one.frame_times_s, other.frame_times_s, atol=1e-6)
        assert one.fps == pytest.approx(other.fps)
        # H.264 and its colour subsampling blur noise and edges.
        assert np.abs(one.frames.astype(int) - other.frames.astype(int)).mean() < 30
        assert (one.sound is None) == (other.sound is None)


def covering(ready: ReadySample, source: object) -> list[SourceUnit]:
    """Units that hold more than half of a labelled place."""
    from typing import Any

    wanted: Any = source
    found = []
    for unit in ready.units:
        if unit.part_index != wanted.part_index or unit.modality != wanted.modality:
            continue
        if unit.char_start is not None and wanted.char_start is not None:
            shared = min(unit.char_end or 0, wanted.char_end) - max(
                unit.char_start, wanted.char_start
            )
            if shared > (wanted.char_end - wanted.char_start) / 2:
                found.append(unit)
        elif unit.start_s is not None and wanted.start_s is not None:
            shared_s = min(unit.end_s or 0, wanted.end_s) - max(unit.start_s, wanted.start_s)
            if shared_s > 0.5:
                found.append(unit)
        elif unit.box is not None and (wanted.box is None or unit.box == tuple(wanted.box)):
            found.append(unit)
    return found


def test_clips_show_their_shapes_and_have_sound(written: tuple[Path, list[WorldSample]]) -> None:
    dest, samples = written
    sample = next(item for item in samples if item.task == "video_sound")
    (clip,) = sample.parts
    assert isinstance(clip, Clip)
    reader = SampleReader(ReadingOptions(MediaRules()))
    (path,) = dest.glob("media/video_sound*.mp4")
    row = {"sample_id": "a", "messages": [{"role": "user", "content": []}]}
    row["messages"][0]["content"] = [{"type": "video", "video": str(path)}]  # type: ignore[index]
    (video,) = reader.decode(parse_any(row)).values()
    frames = video.frames  # type: ignore[union-attr]
    times = video.frame_times_s  # type: ignore[union-attr]
    assert video.sound is not None  # type: ignore[union-attr]
    for frame, time in zip(frames, times, strict=True):
        shape = clip.shapes[int(time)]
        assert shape is not None
        height, width = frame.shape[:2]
        middle = frame[height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2]
        distance = np.abs(middle.reshape(-1, 3).mean(axis=0) - COLOURS[shape.colour]).max()
        assert distance < 60, (time, shape)


def test_every_seed_gives_another_sample() -> None:
    rng = Random(0)
    made = [make_sample(rng.choice(TASK_NAMES), 4, f"a-{number}") for number in range(60)]
    assert len({(sample.parts, sample.prompt) for sample in made}) == 60
