"""Runs through all stages without Ray; a fake tracer makes up the model's numbers."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.config import RunConfig
from pipeline.driver.run import run
from pipeline.graph import plan_row
from pipeline.planning.plan import Chunk
from pipeline.run_folder.commit import CommittedChunk, ExecuteChunks, commit_chunk
from pipeline.run_folder.planned_run import PlannedRun
from stages.chunk_speech import ChunkSpeech
from stages.curate_spans import CurateOptions, CurateSpans
from stages.decode_media import DecodeMedia
from stages.read_samples import read_samples
from stages.records.assemble import Provenance
from tests.core.media_files import audio_bytes, beep, image_bytes
from tests.pipeline.made_runs import config_for, planned_run
from tests.stages.chunks import text_row, user, write_shard
from tests.stages.made_traces import MadeTracer, trace_stage

TEXT = "The lamp is red. It stands in the hall. Where does it stand?"
GERMAN = "Die Lampe steht in der Halle neben der Tür. Sie ist rot und ziemlich alt."
SAID = "In the hall. A lamp stands there, and it is red. Nothing else is lit."


def write_corpus(folder: Path) -> None:
    """Four shards under `folder`/input: text, pictures and sound by address and inline, errors."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / "lamp.png"
    picture.write_bytes(image_bytes(Image.new("RGB", (120, 80), "red")))
    sound = folder / "beep.wav"
    sound.write_bytes(audio_bytes(beep(3.2, at=(0.5, 2.0)), 16_000))
    segments = [{"start_s": 0.4, "end_s": 1.1, "text": "here"}, {"start_s": 1.9, "end_s": 2.6}]
    parts: dict[str, dict[str, Any]] = {
        "picture": {"type": "image", "uri": str(picture)},
        "sound": {"type": "audio", "uri": str(sound), "segments": segments},
        "inline": {"type": "audio", "data": sound.read_bytes()},
        "missing": {"type": "image", "uri": str(folder / "none.png")},
    }
    rows = {
        name: {"sample_id": name, "messages": [user(part, {"type": "text", "text": TEXT})]}
        for name, part in parts.items()
    }
    rows["sound"]["response"] = SAID
    shards = {
        "a": [text_row("text", TEXT), rows["picture"], rows["sound"], text_row(None)],
        "b": [rows["inline"], rows["missing"], text_row("said", TEXT, response=SAID)],
        "c": [
            text_row("marks", TEXT, response="..."),
            rows["picture"] | {"sample_id": "again"},
            text_row("German", TEXT, response=GERMAN),
        ],
        "d": [],
    }
    for name, samples in shards.items():
        write_shard(folder / "input" / f"{name}.parquet", samples)


def traced_run(folder: Path, **sections: Any) -> PlannedRun:
    """A finished run over the corpus of `write_corpus`, which is written if it is missing."""
    if not (folder / "input").exists():
        write_corpus(folder)
    planned = planned_run(config_for(folder, **sections))
    run(planned, stages_of(planned))
    return planned


def stages_of(planned: PlannedRun) -> ExecuteChunks:
    """Execute all stages in this process, with a fake tracer in place of the model."""
    config: RunConfig = planned.config
    reading = config.reading_options(planned.rules)
    decode, chunk_audio = DecodeMedia(reading), ChunkSpeech(reading)
    trace = trace_stage(MadeTracer(config.trace))
    provenance = Provenance(planned.identity.fingerprint, "1.2.3")
    options = CurateOptions(config.spans, config.curation, config.trace, config.units)
    curate = CurateSpans(options, provenance)

    def execute(chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        for chunk in chunks:
            done = curate(trace(chunk_audio(decode(read_samples(plan_row(chunk))))))
            yield CommittedChunk(**commit_chunk(done, planned.folder).to_pylist()[0])

    return execute
