"""Processor time per sample that the stages spend to get from Arrow rows to samples.

Run from the repository's root: `OMP_NUM_THREADS=1 python -m benchmarks.parsing`. Each case is one
chunk of samples. Columns, in milliseconds of processor time per sample (the least of some rounds):

    read     the whole read stage: Parquet rows, their checks, and the chunk's table
    decode   building the samples in the decode stage, inline media included
    later    building them in the speech stage, and again in the trace stage, without inline media
    media    their decoded media as arrays, in the speech stage and again in the trace stage

To compare with another checkout: `PYTHONPATH=<checkout> python benchmarks/parsing.py`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from omnitrace_core.decoded_media import DecodedVideo
from stages.arrow.chunk import (
    sample_structs,
    state_rows,
    with_results,
    with_rows,
    without_inline_data,
)
from stages.arrow.media_codec import encode_media
from stages.read_samples import read_samples
from tests.stages.chunks import plan_of, user, write_shard

STEPS = ("read", "decode", "later", "media")
_INLINE_BYTES = 2**20
_FRAMES = (8, 224, 224, 3)

Row = dict[str, Any]


def _text(words: str) -> Row:
    return {"type": "text", "text": words}


def _texts(number: int) -> Row:
    question = [_text(f"Fact {i} of sample {number} is a short sentence.") for i in range(4)]
    return {"messages": [user(*question, _text("What follows from them?"))]}


def _addresses(number: int) -> Row:
    video = {"type": "video", "uri": f"videos/{number}.mp4", "options": {"fps": 2.0}}
    image = {"type": "image", "uri": f"images/{number}.png"}
    return {"messages": [user(video, image, _text("What happens here?"))]}


def _inline(number: int) -> Row:
    image = {"type": "image", "data": bytes([number % 256]) * _INLINE_BYTES}
    return {"messages": [user(image, _text("What is this?"))]}


def _everything(number: int) -> Row:
    words = [{"text": f"w{i}", "start_s": i / 2, "end_s": i / 2 + 0.5} for i in range(20)]
    segment = {"start_s": 0.0, "end_s": 10.0, "text": "words", "words": words}
    audio = {"type": "audio", "uri": f"{number}.wav", "segments": [segment]}
    source = {"modality": "text", "part_index": 1, "char_start": 0, "char_end": 4}
    return {
        "messages": [user(audio, _text("What is said?"))],
        "response": "Words are said.",
        "labels": [{"statement": "Words are said.", "sources": [source]}],
        "metadata": {f"key {i}": "value" for i in range(5)},
        "options": ["Words", "Music"],
    }


CASES: dict[str, Callable[[int], Row]] = {
    "texts": _texts,
    "addresses": _addresses,
    "inline": _inline,
    "everything": _everything,
}


def measure(case: str, n_samples: int, rounds: int) -> dict[str, float]:
    """Milliseconds of processor time per sample, by step."""
    make = CASES[case]
    rows = [{"sample_id": f"sample-{i}", **make(i)} for i in range(n_samples)]
    with tempfile.TemporaryDirectory() as folder:
        plan = plan_of(write_shard(Path(folder) / "shard.parquet", rows), n_samples)
        read_ms = _least_ms(lambda: read_samples(plan), n_samples, rounds)
        chunk = read_samples(plan)
    decoded = _after_decoding(chunk)
    return {
        "read": read_ms,
        "decode": _least_ms(lambda: _samples(chunk), n_samples, rounds),
        "later": _least_ms(lambda: _samples(decoded), n_samples, rounds),
        "media": _least_ms(lambda: [row.media for row in state_rows(decoded)], n_samples, rounds),
    }


def _samples(chunk: pa.Table) -> None:
    for row in state_rows(chunk):
        assert not row.failed
        assert row.sample.parts


def _after_decoding(chunk: pa.Table) -> pa.Table:
    """The chunk as the decode stage leaves it, with made-up frames for each sample."""
    frames, times_s = np.zeros(_FRAMES, np.uint8), np.arange(_FRAMES[0]) / 2
    video = DecodedVideo(frames, times_s, 2.0, 224, 224, 0.0, 4.0, 4.0, None, "0" * 64)
    results = [{"media": encode_media({0: video})}] * len(sample_structs(chunk))
    decoded = with_results(chunk, results, fields=("media",))
    rows = sample_structs(decoded)
    columns = {field.name: rows.field(field.name) for field in rows.type}
    columns["sample"] = without_inline_data(columns["sample"])
    return with_rows(
        decoded, pa.StructArray.from_arrays(list(columns.values()), fields=list(rows.type))
    )


def _least_ms(work: Callable[[], object], n_samples: int, rounds: int) -> float:
    spent_s = []
    for _ in range(rounds):
        begun = time.process_time()
        work()
        spent_s.append(time.process_time() - begun)
    return 1e3 * min(spent_s) / n_samples


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    print("ms/sample   " + "".join(f"{step:>9}" for step in STEPS))
    for case in CASES:
        found = measure(case, options.samples, options.rounds)
        print(f"{case:12}" + "".join(f"{found[step]:9.3f}" for step in STEPS))


if __name__ == "__main__":
    main()
