"""Write samples of the world as input for the pipeline: JSON Lines, media files and labels.

`python -m training.world.files DEST --per-task 50 --level 4 --seed held-out`. Media are real files:
PNG, WAV, and MP4 from H.264 and AAC encoders. The same arguments give the same bytes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from omnitrace_core.printable import printable
from training.clips import write_clip
from training.world.rendering import FPS, clip_sound, draw_clip, draw_picture, play
from training.world.rendering import SAMPLE_RATE as RATE
from training.world.samples import Evidence, Part, Picture, Recording, Text, WorldSample
from training.world.tasks import TASK_NAMES, make_sample

Row = dict[str, object]


def write_world(dest: Path, samples: Iterable[WorldSample]) -> Path:
    """Write DEST/samples.jsonl and DEST/media; returns the path of samples.jsonl."""
    (dest / "media").mkdir(parents=True, exist_ok=True)
    path = dest / "samples.jsonl"
    with path.open("w", encoding="utf-8") as lines:
        for sample in samples:
            lines.write(json.dumps(world_row(dest, sample), ensure_ascii=False) + "\n")
    return path


def world_row(dest: Path, sample: WorldSample) -> Row:
    """The sample as a line of samples.jsonl. Writes its media to DEST/media."""
    content = [_part(dest, f"{sample.sample_id}-{k}", part) for k, part in enumerate(sample.parts)]
    content += [
        {"type": "text", "text": text, "evidence": is_evidence}
        for text, is_evidence in sample.prompt_parts
    ]
    return {
        "sample_id": sample.sample_id,
        "messages": [{"role": "user", "content": content}],
        "reference_answer": sample.response,
        "options": list(sample.options),
        "labels": _labels(sample),
        "metadata": {"task": sample.task},
    }


def _part(dest: Path, name: str, part: Part) -> Row:
    """The part as it stands in a message. Writes its medium."""
    if isinstance(part, Text):
        return {"type": "text", "text": part.text, "evidence": not part.instructs}
    if isinstance(part, Picture):
        from PIL import Image

        address = f"media/{name}.png"
        Image.fromarray(draw_picture(part)).save(dest / address)
        return {"type": "image", "image": address}
    if isinstance(part, Recording):
        import soundfile

        address = f"media/{name}.wav"
        soundfile.write(dest / address, play(part), RATE, subtype="PCM_16")
        return {"type": "audio", "audio": address}
    address = f"media/{name}.mp4"
    write_clip(dest / address, draw_clip(part), FPS, clip_sound(part), RATE)
    return {"type": "video", "video": address}


def _labels(sample: WorldSample) -> list[Row]:
    labels: list[Row] = []
    start = 0
    for question in sample.questions:
        labels.append(
            {
                "statement": question.answer,
                "char_start": start,
                "char_end": start + len(question.answer),
                "sources": [_source(item) for item in question.evidence],
            }
        )
        start += len(question.answer) + 1
    return labels


def _source(item: Evidence) -> Row:
    return {name: value for name, value in asdict(item.label).items() if value is not None}


def main(argv: Sequence[str] | None = None) -> None:
    """Write a split."""
    parser = argparse.ArgumentParser(description="Write samples of the planted world.")
    parser.add_argument("dest", type=Path)
    parser.add_argument("--tasks", nargs="+", default=list(TASK_NAMES), choices=TASK_NAMES)
    parser.add_argument("--per-task", type=int, default=20)
    parser.add_argument("--level", type=int, default=4, help="items per sample")
    parser.add_argument("--seed", default="0", help="any word; each word gives another split")
    args = parser.parse_args(argv)
    samples = (
        make_sample(task, args.level, f"{args.seed}-{number}")
        for task in args.tasks
        for number in range(args.per_task)
    )
    print(printable(write_world(args.dest, samples)))


if __name__ == "__main__":
    main()
