"""Compare formats of a chunk file: its bytes, and the processor time to write and to read it.

Run from the repository's root: `python -m benchmarks.chunk_files [--rows 1]`. The best of five
rounds counts; one thread.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.scale_fake import config_tree, do_chunk, path_of, write_input
from pipeline.config import make_config
from pipeline.driver.plan_run import plan_run
from pipeline.planning.identified_run import identify_run
from pipeline.run_folder.chunk_files import read_chunk_file

_ROUNDS, _TIMES = 5, 20


def chunk_records(folder: Path, n_rows: int) -> pa.Table:
    """The content of a chunk file with made-up records."""
    here = path_of(folder)
    write_input(f"{here}/input", n_rows, 1)
    planned = plan_run(identify_run(make_config(config_tree(here, n_rows), [], "benchmark")))
    chunk = next(planned.plan.chunks(planned.plan.shards[0]))
    do_chunk(chunk, planned.folder.root)
    return read_chunk_file(planned.folder, chunk)


def as_parquet(records: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    pq.write_table(records, sink, compression="lz4", use_dictionary=False)
    return sink.getvalue()


def from_parquet(content: pa.Buffer) -> pa.Table:
    return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)


def as_arrow(records: pa.Table, compression: str | None) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_file(sink, records.schema, options=options) as file:
        file.write_table(records)
    return sink.getvalue()


def from_arrow(content: pa.Buffer) -> pa.Table:
    return pa.ipc.open_file(pa.BufferReader(content)).read_all()


def cpu_ms(work: Callable[[], Any]) -> float:
    """Milliseconds of processor time of a call, in the best of the rounds."""
    rounds = []
    for _ in range(_ROUNDS):
        begun = time.process_time()
        for _ in range(_TIMES):
            work()
        rounds.append(1e3 * (time.process_time() - begun) / _TIMES)
    return min(rounds)


def table(records: pa.Table) -> str:
    """Measure every format; a line for each."""
    lines = [f"{'':16}{'bytes':>10}{'write ms':>10}{'read ms':>10}"]
    for name, write, read in (
        ("Parquet, lz4", as_parquet, from_parquet),
        ("Arrow, lz4", partial(as_arrow, compression="lz4"), from_arrow),
        ("Arrow, uncompressed", partial(as_arrow, compression=None), from_arrow),
    ):
        content = write(records)
        spent = cpu_ms(partial(write, records)), cpu_ms(partial(read, content))
        lines.append(f"{name:16}{content.size:10}{spent[0]:10.2f}{spent[1]:10.2f}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table for a chunk of so many rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1)
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        print(table(chunk_records(Path(folder), arguments.rows)))


if __name__ == "__main__":
    main()
