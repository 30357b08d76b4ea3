"""The demo corpus: its samples, its media, and its rows that must fail."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from omnitrace_core import errors
from omnitrace_core.records import Sample
from omnitrace_core.samples.parse import parse_any
from training.demo.corpus import faulty_rows, make_corpus
from training.demo.media import SAMPLE_RATE, Scene, write_clip

MAX_CORPUS_BYTES = 1_000_000
FOUR = {"text", "image", "audio", "video"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def samples(corpus: Path) -> dict[str, Sample]:
    rows = [json.loads(line) for line in corpus.read_text(encoding="utf-8").splitlines()]
    read = [parse_any(row, base=str(corpus.parent)) for row in rows]
    return {sample.sample_id: sample for sample in read}


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_corpus_is_small_and_the_same_each_time(corpus: Path, tmp_path: Path) -> None:
    first, second = _files(corpus.parent), _files(make_corpus(tmp_path).parent)
    assert first == second
    assert sum(map(len, first.values())) < MAX_CORPUS_BYTES


def test_corpus_covers_modalities_and_both_kinds_of_response(samples: dict[str, Sample]) -> None:
    assert len(samples) >= 12
    kinds = {name: {part.type for part in sample.parts} for name, sample in samples.items()}
    for has_response in (True, False):
        found = [
            kinds[name]
            for name, sample in samples.items()
            if (sample.response is not None) == has_response
        ]
        assert set().union(*found) == FOUR
        assert FOUR in found
    assert sum(part.type == "image" for part in samples["image-pair"].parts) == 2
    assert samples["image-choice"].options[1].startswith("B.")
    assert not samples["text-instructed"].parts[0].evidence
    assert all(sample.response or sample.reference_answer for sample in samples.values())


def test_every_address_is_a_file_of_the_corpus(samples: dict[str, Sample], corpus: Path) -> None:
    addresses = {part.uri for sample in samples.values() for part in sample.parts if part.uri}
    on_disk = {str(path) for path in (corpus.parent / "media").iterdir()}
    assert addresses == on_disk


def test_announcements_are_spoken_within_their_segments(samples: dict[str, Sample]) -> None:
    import soundfile

    part = samples["audio-speech"].parts[0]
    waveform, rate = soundfile.read(part.uri, dtype="float32")
    assert rate == SAMPLE_RATE
    assert part.segments is not None
    first, second = part.segments
    assert second.end_s == pytest.approx(len(waveform) / rate, abs=1e-3)

    def loudness(start_s: float, end_s: float) -> float:
        return float(np.abs(waveform[round(start_s * rate) : round(end_s * rate)]).mean())

    pause = loudness(first.end_s, second.start_s)
    assert min(loudness(s.start_s, s.end_s) for s in part.segments) > 20 * pause


def test_clips_show_shapes_in_turn_and_sound_at_their_time(corpus: Path) -> None:
    import decord

    shapes = decord.VideoReader(str(corpus.parent / "media" / "in_turn.mp4"))
    per_second = round(shapes.get_avg_fps())
    assert len(shapes) == 6 * per_second
    centres = {1: (48, 34), 3: (48, 94), 5: (60, 63)}  # seconds: row, column
    seen = [shapes[s * per_second].asnumpy()[y, x].argmax() for s, (y, x) in centres.items()]
    assert seen == [0, 1, 2], "red, then green, then blue"

    bell = str(corpus.parent / "media" / "bell.mp4")
    track = decord.AudioReader(bell, sample_rate=SAMPLE_RATE, mono=True)[:].asnumpy()[0]
    assert np.abs(track[: int(1.9 * SAMPLE_RATE)]).max() < 0.02
    assert np.abs(track[int(2.1 * SAMPLE_RATE) : int(3.9 * SAMPLE_RATE)]).max() > 0.3


def test_a_failed_encoding_reports_what_ffmpeg_printed(tmp_path: Path) -> None:
    path = tmp_path / "no_such_folder" / "clip.mp4"
    with pytest.raises(RuntimeError, match="No such file or directory"):
        write_clip(path, [Scene(0.5)])


def test_faulty_rows_follow_the_good_ones(corpus: Path, tmp_path: Path) -> None:
    good = corpus.read_text(encoding="utf-8").splitlines()
    with_errors = make_corpus(tmp_path, with_errors=True)
    rows = [json.loads(line) for line in with_errors.read_text(encoding="utf-8").splitlines()]
    assert [json.dumps(row, ensure_ascii=False) for row in rows[: len(good)]] == good
    assert rows[len(good) :] == [row for row, _ in faulty_rows()]
    media = tmp_path / "media"
    assert (media / "empty.wav").stat().st_size == 0
    assert not (media / "nowhere.png").exists()
    ids = [row.get("sample_id") for row in rows]
    assert ids.count("text-lookup") == 2
    assert None in ids


def test_rows_that_cannot_be_samples_are_refused_with_their_code() -> None:
    refused = {"unknown_part_type", "invalid_sample", "missing_sample_id"}
    found = set()
    for row, code in faulty_rows():
        if code in refused:
            with pytest.raises(errors.SampleError) as caught:
                parse_any(row)
            found.add(caught.value.code)
            assert caught.value.code == code
    assert found == refused
