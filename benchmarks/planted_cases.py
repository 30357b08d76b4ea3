"""Trace samples of the planted world, and find the units that hold their planted evidence."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from omnitrace_core.attribution.scores import Fact, evidence_facts, match_statements
from omnitrace_core.errors import SampleError
from omnitrace_core.options import UnitOptions
from omnitrace_core.reader import ReadingOptions, SampleReader
from omnitrace_core.records import (
    SOUND_KINDS,
    ReadySample,
    Segmentation,
    SourceUnit,
    TokenTrace,
)
from omnitrace_core.samples.parse import parse_any
from omnitrace_core.text.spans import Segmenter
from omnitrace_core.tracing.batch_tracer import BatchTracer
from training.world.decoded import as_ready
from training.world.files import write_world
from training.world.samples import Question, WorldSample
from training.world.tasks import make_sample

# Tasks by the kind of their evidence; `mixed` has all kinds.
GROUPS: dict[str, tuple[str, ...]] = {
    "text": (
        "text_where",
        "text_who",
        "text_summary",
        "text_both",
        "text_choice",
        "text_count",
        "text_compare",
    ),
    "image": (
        *("image_lookup", "image_whose", "image_regions", "image_choice"),
        *("image_count", "conflict"),
    ),
    "audio": ("audio_after", "audio_choice"),
    "video": ("video_lookup", "video_sound"),
    "mixed": ("mixed",),
}
# Tasks whose pictures are cut into quadrants, because their evidence is in one region.
IN_REGIONS = frozenset({"image_regions"})
_BATCH = 16


@dataclass(frozen=True, slots=True)
class Case:
    """One answered sample.

    spans: for each question the span that states the right answer, None if no span does. evidence:
    for each question the units that hold its evidence.
    """

    sample: WorldSample
    ready: ReadySample
    trace: TokenTrace
    segmentation: Segmentation
    spans: tuple[int | None, ...]
    evidence: tuple[tuple[Fact, ...], ...]

    @property
    def candidates(self) -> list[int]:
        """Units that a method may name: all except instructions."""
        return [unit.unit_id for unit in self.ready.units if unit.kind != "instruction"]


def answer(
    tracer: BatchTracer,
    segmenter: Segmenter,
    task: str,
    level: int,
    seed: str,
    n: int,
    *,
    files: bool = False,
) -> Iterator[Case]:
    """Let the model answer `n` samples of a task, and trace it.

    files: whether media pass through PNG, WAV and MP4 files and the decoders of the pipeline.
    Raises: SampleError.
    """
    units = UnitOptions(image="grid" if task in IN_REGIONS else "whole", grid=(2, 2))
    reader = SampleReader(ReadingOptions(tracer.backend.rules, units=units))
    samples = [make_sample(task, level, f"{seed}-{number}") for number in range(n)]
    for start in range(0, n, _BATCH):
        batch = samples[start : start + _BATCH]
        ready = read_files(batch, reader) if files else [as_ready(s, reader) for s in batch]
        for sample, item, trace in zip(batch, ready, tracer.trace(ready), strict=True):
            if isinstance(trace, SampleError):
                raise trace
            yield _as_case(sample, item, trace, segmenter)


def read_files(samples: Sequence[WorldSample], reader: SampleReader) -> list[ReadySample]:
    """Write samples with their media, and read them as the pipeline does."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = write_world(folder, samples).read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        for part in (part for row in rows for part in row["messages"][0]["content"]):
            if part["type"] != "text":
                part[part["type"]] = str(folder / part[part["type"]])
        return [reader.read(parse_any(row)) for row in rows]


def _as_case(
    sample: WorldSample, ready: ReadySample, trace: TokenTrace, segmenter: Segmenter
) -> Case:
    segmentation = segmenter.segment(trace.response, trace.char_spans)
    texts = [span.text for span in segmentation.spans]
    return Case(
        sample=sample,
        ready=ready,
        trace=trace,
        segmentation=segmentation,
        spans=tuple(match_statements([question.answer for question in sample.questions], texts)),
        evidence=tuple(evidence_units(question, ready.units) for question in sample.questions),
    )


def evidence_units(question: Question, units: Sequence[SourceUnit]) -> tuple[Fact, ...]:
    """The units that hold an answer's evidence; in a video, only units of the evidence's stream."""
    streams = {
        sound: [unit for unit in units if (unit.kind in SOUND_KINDS) == sound]
        for sound in (False, True)
    }
    return tuple(
        item
        for sound, of_stream in streams.items()
        for item in evidence_facts(
            [piece.label for piece in question.evidence if piece.sound == sound], of_stream
        )
    )
