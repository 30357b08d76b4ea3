"""The demo corpus says what it is said to say, and the view of a run shows what the run holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnitrace_core import errors
from omnitrace_core.records import Sample
from omnitrace_core.samples.parse import parse_any
from stages.arrow.schema import SAMPLES, SPANS
from training.demo import show
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
    for given in (True, False):
        met = [kinds[name] for name, s in samples.items() if (s.response is not None) == given]
        assert set().union(*met) == FOUR
        assert FOUR in met
    assert sum(part.type == "image" for part in samples["image-pair"].parts) == 2
    assert samples["image-choice"].options[1].startswith("B.")
    assert not samples["text-instructed"].parts[0].evidence
    assert all(sample.response or sample.reference_answer for sample in samples.values())


def test_every_address_is_a_file_of_the_corpus(samples: dict[str, Sample], corpus: Path) -> None:
    addresses = {part.uri for sample in samples.values() for part in sample.parts if part.uri}
    on_disk = {str(path) for path in (corpus.parent / "media").iterdir()}
    assert addresses == on_disk


def test_announcements_are_spoken_when_the_segments_say(samples: dict[str, Sample]) -> None:
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


def test_clip_shows_shapes_in_turn_and_rings_when_it_should(corpus: Path) -> None:
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


def test_failed_encoding_says_what_ffmpeg_said(tmp_path: Path) -> None:
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
    met = set()
    for row, code in faulty_rows():
        if code in refused:
            with pytest.raises(errors.SampleError) as caught:
                parse_any(row)
            met.add(caught.value.code)
            assert caught.value.code == code
    assert met == refused


def _source(rank: int, modality: str, part_index: int, **fields: object) -> dict[str, object]:
    return {
        "unit_id": rank,
        "kind": modality,
        "modality": modality,
        "part_index": part_index,
        "text": "",
        "transcript": "",
        "mass": 0.5 / (rank + 1),
        "rank": rank,
        **fields,
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of two samples and a failed row, as the pipeline publishes it."""
    folder = tmp_path / "output" / "run_date=2025-01-31" / "run_id=abc"
    ok = {"status": "ok", "finish_reason": "given", "schema_version": 1}
    bad = {"status": "error", "error_stage": "decode_media", "error_code": "media_missing"}
    samples = [
        {"row_key": "0:0", "sample_id": "mixed", **ok},
        {"row_key": "0:1", "sample_id": "noise", **ok, "finish_reason": "length"},
        {"row_key": "0:2", **bad, "message": "media/nowhere.png: no such\nfile; " + "why " * 40},
    ]
    sources = [
        _source(2, "audio", 0, kind="audio_chunk", start_s=1.0, end_s=2.5, transcript="at nine"),
        _source(0, "text", 1, kind="sentence", text="The lamp is in the kitchen. " * 9),
        _source(1, "image", 2, box=[0, 0, 128, 96]),
        _source(3, "video", 3, kind="sound_bin", start_s=0.5, end_s=1.5),
    ]
    span = {"outcome": "supported", "confidence": 0.25}
    spans = [
        {"row_key": "0:0", "sample_id": "mixed", "span_index": i, "text": f"Span {i}.", **span}
        for i in (2, 1, 0)
    ]
    spans[-1]["sources"] = sources
    noise = {
        "row_key": "0:1",
        "sample_id": "noise",
        "span_index": 0,
        "text": "\x1b[2J a\x07\n" * 30,
    }
    spans.append({**noise, "outcome": "unsupported", "confidence": 0.0})
    for table, rows, schema in (("samples", samples, SAMPLES), ("spans", spans, SPANS)):
        rows = [{"sources": [], **row} for row in rows]
        (folder / table).mkdir(parents=True)
        path = folder / table / "shard-00000.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return folder


def test_show_writes_spans_and_sources_for_people(run: Path) -> None:
    text = "\n".join(show.lines(run))
    body, _, files = text.partition("Files in")
    assert max(map(len, body.splitlines())) <= show.WIDTH
    assert all(line.isprintable() for line in text.splitlines())
    order = [
        "mixed  (response given, replayed)",
        '"Span 0."',
        'text part 1 "The lamp is in the kitchen.',
        "image part 2 [0, 0, 128, 96]",
        'audio part 0 1.0-2.5 s "at nine"',
        "... and 1 more source",
        '"Span 1."',
        "... and 1 more span",
        "noise  (response generated, cut at decode.max_new_tokens)",
        "Errors",
        "row 0:2: media_missing in decode_media",
        "3 samples (2 ok, 1 errors), 4 spans (3 supported)",
        "4 sources named: audio 1, image 1, text 1, video 1",
        "planted world",
    ]
    places = [body.index(words) for words in order]
    assert places == sorted(places)
    assert "0.50\n" in body
    assert "spans/shard-00000.parquet" in files
    assert show.source_name(_source(3, "video", 3, kind="sound_bin", start_s=0.5, end_s=1.5)) == (
        "video part 3 sound 0.5-1.5 s"
    )


def test_show_prints_a_query_that_runs(run: Path) -> None:
    import duckdb

    text = "\n".join(show.lines(run))
    query = text.split('"""')[1]
    rows = duckdb.sql(query).fetchall()
    assert len(rows) == 4


def test_show_finds_the_one_run_below_a_folder(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert show.find_run(run) == run
    assert show.find_run(tmp_path / "output") == run
    (run.parent / "run_id=def" / "samples").mkdir(parents=True)
    with pytest.raises(
        FileNotFoundError, match=r"2 finished runs below it .*run_id=abc.*run_id=def"
    ):
        show.find_run(tmp_path / "output")
    assert show.main([str(tmp_path / "nothing")]) == 2
    assert "0 finished runs" in capsys.readouterr().err
