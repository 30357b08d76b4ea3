"""Run a chunk through the stages in a process of its own, and print each stage's peak memory.

Usage: `python -m tests.stages.stage_memory FILE`. FILE is JSON: `samples`, each with its parts, and
the options of `media`. The model's stage is replaced by one that makes traces up. Linux only.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import (
    AsrOptions,
    CurationOptions,
    MediaOptions,
    SpanOptions,
    TraceOptions,
    UnitOptions,
)
from omnitrace_core.reader import ReadingOptions
from stages.chunk_speech import ChunkSpeech
from stages.curate_spans import CurateOptions, CurateSpans
from stages.decode_media import DecodeMedia
from stages.records.assemble import Provenance
from tests.stages.chunks import read_chunk, user
from tests.stages.made_traces import MadeTracer, samples_of, trace_stage

MIB = 1 << 20


def main(path: str) -> None:
    """Print peaks in MiB, and the number of units and the error of each sample."""
    job = json.loads(Path(path).read_text())
    text = {"type": "text", "text": "What is it?"}
    rows = [
        {"sample_id": f"s{number}", "messages": [user(*parts, text)]}
        for number, parts in enumerate(job["samples"])
    ]
    with tempfile.TemporaryDirectory() as folder:
        table = read_chunk(Path(folder), rows)
    media = MediaOptions.model_validate(job["media"])
    units = UnitOptions(audio="chunks" if job["segments"] else "bins")
    reading = ReadingOptions(MediaRules(), media, units, AsrOptions(engine="given"))
    found: dict[str, Any] = {}
    decode = DecodeMedia(reading)
    table = _measured(found, "decode_actor", decode, table)
    found["decoded"] = table.nbytes / MIB
    decode._reader._decoder._isolated.close()  # type: ignore[union-attr]
    # Of ended children, in KiB: the decoding child is the only one.
    found["decode_child"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    del decode
    table = _measured(found, "units", ChunkSpeech(reading), table)
    table = _measured(found, "trace", trace_stage(MadeTracer()), table)
    curate = CurateSpans(
        CurateOptions(SpanOptions(), CurationOptions(), TraceOptions(), units),
        Provenance(fingerprint="f00", code_version="1.2.3"),
    )
    table = _measured(found, "curation", curate, table)
    records = samples_of(table)
    found["errors"] = [record["sample"]["message"] for record in records]
    found["n_units"] = [len(record["sample"]["units"] or ()) for record in records]
    print(json.dumps(found))


def _measured(
    found: dict[str, Any], name: str, stage: Callable[[pa.Table], pa.Table], table: pa.Table
) -> pa.Table:
    """The stage's result; its memory before and its peak become entries of `found`."""
    pa.default_memory_pool().release_unused()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    found[f"{name}_before"] = _status_mib("VmRSS")
    result = stage(table)
    found[name] = _status_mib("VmHWM")
    return result


def _status_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main(sys.argv[1])
