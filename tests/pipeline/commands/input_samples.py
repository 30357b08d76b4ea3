"""Write small inputs for ingest, and read its output back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq


def question(sample_id: object, **block: object) -> dict[str, Any]:
    return {"id": sample_id, "question": [block or {"text": f"Question {sample_id}?"}]}


def write_jsonl(path: Path, *objects: object) -> str:
    path.write_text("".join(json.dumps(obj) + "\n" for obj in objects))
    return str(path)


def read(dest: str | Path) -> list[dict[str, Any]]:
    shards = sorted(Path(dest).glob("shard-*.parquet"))
    return [row for shard in shards for row in pq.read_table(shard).to_pylist()]


def ids(dest: str | Path) -> list[str | None]:
    return [row["sample_id"] for row in read(dest)]
