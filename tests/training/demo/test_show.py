"""The report on a demo's run: what was right first, nothing outside the model's world."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.commands.terminal import WIDTH, plain
from stages.arrow.table_schema import SAMPLES, SPANS
from training.demo import corpus, show
from training.demo.comparison import ScoredStatement

HOSTILE = "\x1b[2J a\x07\n\u202e"


def unit(unit_id: int, kind: str, modality: str, part_index: int, **place: object) -> Any:
    fields = {"unit_id": unit_id, "kind": kind, "modality": modality, "part_index": part_index}
    return {"text": "", "transcript": "", **fields, **place}


LAMP = "The lamp is in the kitchen."
UNITS = [
    unit(0, "sentence", "text", 0, text=LAMP, char_start=0, char_end=27),
    unit(1, "bin", "audio", 1, start_s=1.0, end_s=2.0),
    unit(2, "bin", "audio", 1, start_s=2.0, end_s=3.0),
    unit(3, "image", "image", 2, box=[0.0, 0.0, 56.0, 56.0]),
]


QUESTION = "Where is the lamp?"
PARTS = [
    {"type": "text", "text": LAMP, "evidence": True},
    {"type": "audio", "uri": "bell.wav", "evidence": True},
    {"type": "image", "uri": "shape.png", "evidence": True},
    {"type": "text", "text": QUESTION, "evidence": False},
]


def label(statement: str, *evidence: dict[str, object]) -> dict[str, object]:
    sources = [{"part_index": 0, **source} for source in evidence]
    return {"statement": statement, "char_start": 0, "char_end": 1, "sources": sources}


def sample(row: int, **fields: object) -> dict[str, object]:
    return {
        "row_key": f"0:{row}",
        "sample_id": f"sample-{row}",
        "status": "ok",
        "units": UNITS,
        "labels": [],
        "messages": [{"role": "user", "content": PARTS}],
        "notes": [],
        "schema_version": 1,
        **fields,
    }


def span(row: int, index: int, text: str, *chosen: int) -> dict[str, object]:
    sources = [
        {**UNITS[unit_id], "mass": 0.5 / rank, "share": 0.5, "rank": rank}
        for rank, unit_id in enumerate(chosen, start=1)
    ]
    fields = {"row_key": f"0:{row}", "span_index": index, "text": text, "sources": sources}
    return {**fields, "outcome": "supported", "confidence": 0.5}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run as the pipeline publishes it: right, half right, unsaid, of another world, failed."""
    folder = tmp_path / "output" / "run_date=2025-01-31" / "run_id=abc"
    second = {"modality": "audio", "part_index": 1, "start_s": 1.2, "end_s": 2.0}
    place = {"modality": "text", "char_start": 0, "char_end": 27}
    samples = [
        sample(0, labels=[label("It is in the kitchen.", place), label("Never said.", place)]),
        sample(1, labels=[label("The bell came.", second)]),
        sample(2),
        sample(3, sample_id=HOSTILE, labels=[label(f"Shown{HOSTILE}.", place)]),
        sample(
            4,
            sample_id=None,
            status="error",
            error_stage="decode_media",
            error_code="media_missing",
            message=f"media/nowhere.png: no such\nfile; {HOSTILE}" + "why " * 90,
        ),
    ]
    spans = [
        span(0, 0, "It is in the kitchen.", 0),
        span(1, 0, "The bell came.", 1, 3),
        span(2, 0, "Nonsense of another world.", 3),
        span(3, 0, f"Shown{HOSTILE}.", 0),
    ]
    for table, rows, schema in (("samples", samples, SAMPLES), ("spans", spans, SPANS)):
        (folder / table).mkdir(parents=True)
        path = folder / table / "shard-00000.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
    return folder


def test_what_was_right_comes_first_and_nothing_of_another_world(run: Path) -> None:
    text = plain(show.blocks(run))
    assert all(line.isprintable() for line in text.split("\n"))
    in_order = [
        r"^Where is the lamp\?$",
        r'"It is in the kitchen\." +0\.50  text part 0 "The lamp is in the  +'
        r'text part 0 "The lamp is in the$',
        r"All sentences with planted evidence",
        r"audio +1 +1 +0\.67",
        r"text +3 +2 +0\.67",
        r"Errors",
        r"row 0:4 +decode_media +media_missing +media/nowhere\.png: no such file",
        r"5 samples \(4 ok, 1 error\), as Parquet in",
        r"samples/ 5 rows, spans/ 4 rows",
        r"Outside of that world \(1 sample\)",
        r"not shown",
        r"Three things to try next",
    ]
    places = [re.search(pattern, text, flags=re.M) for pattern in in_order]
    assert None not in places
    starts = [place.start() for place in places if place is not None]
    assert starts == sorted(starts)
    assert "Nonsense" not in text
    assert "The bell came" not in text, "its sources are not the planted ones alone"


def test_it_fits_the_page(run: Path) -> None:
    lines = plain(show.blocks(run)).split("\n")
    tables = [line for line in lines if not line.startswith("   ") and str(run) not in line]
    assert max(map(len, tables)) <= WIDTH


def test_sources_are_named_in_words() -> None:
    assert show.source_name(UNITS[0]) == f'text part 0 "{LAMP}"'
    assert show.source_name(UNITS[1]) == "audio part 1 1.0-2.0 s"
    assert show.source_name(UNITS[3]) == "image part 2 [0, 0, 56, 56]"
    sound = unit(4, "sound_bin", "video", 3, start_s=0.5, end_s=1.5)
    assert show.source_name(sound) == "video part 3 sound 0.5-1.5 s"
    speech = unit(5, "audio_chunk", "audio", 0, start_s=1.0, end_s=2.5, transcript="at nine")
    assert show.source_name(speech) == 'audio part 0 1.0-2.5 s "at nine"'
    long = unit(6, "sentence", "text", 1, text="The lamp is in the kitchen. " * 9)
    assert show.source_name(long).endswith('..."')


def test_the_commands_to_try_next_work(run: Path, tmp_path: Path) -> None:
    text = plain(show.blocks(tmp_path / "output"))
    inspect, query, curate = re.findall(r"^   (\S+ (?:.|\n     )*)$", text, flags=re.M)
    done = subprocess.run(["bash", "-c", query], capture_output=True, text=True, check=True)
    assert re.search(r"text .* 2 ", done.stdout)
    done = subprocess.run(["bash", "-c", inspect], capture_output=True, text=True, check=True)
    assert "sample-0  (0:0): ok" in done.stdout
    assert LAMP in done.stdout
    assert f"inspect {tmp_path / 'output'} sample-0" in inspect
    assert f"curate {tmp_path / 'output'} out/mine/paper curation.preset=paper" in curate


def test_the_query_finds_a_folder_with_an_odd_name(run: Path, tmp_path: Path) -> None:
    odd = run.parent.parent.rename(tmp_path / """it's $HOME `x` "y" """)
    (query,) = re.findall(r"^   (\S+ -c (?:.|\n     )*)$", plain(show.blocks(odd)), flags=re.M)
    done = subprocess.run(["bash", "-c", query], capture_output=True, text=True, check=True)
    assert re.search(r"text .* 2 ", done.stdout)


def test_examples_are_of_different_tasks_where_there_are_such() -> None:
    def statement(number: int, modality: str, task: str, f1: float = 1.0) -> ScoredStatement:
        return ScoredStatement(f"s{number}", task, "", "Yes.", True, (), modality, f1)

    found = show.examples(
        [
            statement(0, "text", "where"),
            statement(1, "text", "where"),
            statement(2, "audio", "after"),
            statement(3, "text", "who", f1=0.5),
            statement(4, "text", "who"),
            statement(5, "text", "both"),
            statement(6, "audio", "after"),
        ]
    )
    assert [item.sample_id for item in found] == ["s0", "s4", "s2", "s6"]


@pytest.mark.parametrize("main", [show.main, corpus.main])
def test_wrong_arguments_are_printed_safely(
    main: Callable[[list[str]], object], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["folder", f"more{HOSTILE}"])
    assert stop.value.code == 2
    printed = capsys.readouterr().err
    assert r"more\x1b[2J" in printed
    assert all(line.isprintable() for line in printed.split("\n"))


def test_the_one_run_below_a_folder_is_found(
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
