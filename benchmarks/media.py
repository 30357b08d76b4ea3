"""Media decoding: samples per second of one core, bare library, ours, and ours in a child.

Run from the repository's root: `OMP_NUM_THREADS=1 python -m benchmarks.media`. It makes its own
media. The bare call does the minimum for a result of the same size: Pillow opens, converts and
resizes; soundfile reads and soxr resamples; PyAV decodes all frames (and the sound, if any), and
Pillow resizes as many; silero-vad is called on a waveform. Ours adds limits, checks for truncated
files, a hash and true times; the child adds the transfer between processes. Rates are per second of
processor time, of both processes together. Raw numbers: benchmarks/out/media.json.

`--costs` measures processor time and peak memory per minute of media instead, of ours and of bare
libraries, beside those of the version that decoded with decord (`--before`).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import media_bare, media_cost
from omnitrace_core.asr import load_engine
from omnitrace_core.decoded_media import DecodedAudio, DecodedImage, DecodedMedia
from omnitrace_core.media import decode_part
from omnitrace_core.media.isolation.isolated_decoder import IsolatedDecoder
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import AsrOptions, MediaOptions
from omnitrace_core.records import Modality, Part
from tests.core.media_files import audio_bytes, beep, image_bytes, run_ffmpeg, write_clip

OUTPUT = Path(__file__).parent / "out" / "media.json"
BEFORE = Path(__file__).parent / "results" / "media-cost-before.json"
OPTIONS, RULES = MediaOptions(), MediaRules()
LARGE_BYTES = 100_000_000

Bare = Callable[[Path, Any], object]


@dataclass(frozen=True, slots=True)
class Result:
    """Samples per second of a core: of the bare library, of ours, and of ours in a child.

    child_per_s: None for work that no child does.
    """

    name: str
    bare_per_s: float
    ours_per_s: float
    child_per_s: float | None = None

    @property
    def added_ms(self) -> float:
        """Milliseconds that the child adds to a sample."""
        return 1e3 / (self.child_per_s or self.ours_per_s) - 1e3 / self.ours_per_s

    def line(self) -> str:
        """A row of the table."""
        row = f"{self.name:24}{self.bare_per_s:10.1f}{self.ours_per_s:10.1f}"
        row += f"{self.ours_per_s / self.bare_per_s:8.2f}"
        if self.child_per_s is None:
            return row
        share = self.child_per_s / self.ours_per_s
        return f"{row}{self.child_per_s:10.1f}{share:8.2f}{self.added_ms:10.1f}"


def make_files(folder: Path) -> list[tuple[str, Modality, Path, Bare]]:
    """A file of each kind: its label, type and path, and the bare call that reads it."""
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8))
    icon, photo = folder / "icon.png", folder / "photo.jpg"
    icon.write_bytes(image_bytes(coarse.resize((112, 84))))
    photo.write_bytes(image_bytes(coarse.resize((1600, 1200)), "JPEG", quality=90))
    recording, model_rate = folder / "recording.wav", folder / "16k.wav"
    recording.write_bytes(audio_bytes(beep(30, range(30), 44_100), 44_100))
    model_rate.write_bytes(audio_bytes(beep(30, range(30)), 16_000))
    clip = write_clip(folder / "clip.mp4", 50, size=(640, 360))
    sound = beep(5, range(5), 44_100)
    sounding = write_clip(folder / "sounding.mp4", 50, size=(640, 360), sound=sound)
    wide = folder / "4k.mp4"
    options = "-f lavfi -i testsrc2=s=3840x2160:r=25:d=2 -preset ultrafast -pix_fmt yuv420p"
    run_ffmpeg(*options.split(), wide)
    return [
        ("image 112x84 PNG", "image", icon, media_bare.pillow_image),
        ("image 1600x1200 JPEG", "image", photo, media_bare.pillow_image),
        ("audio 30 s, 44.1 kHz", "audio", recording, media_bare.soundfile_audio),
        ("audio 30 s, 16 kHz", "audio", model_rate, media_bare.soundfile_audio),
        ("video 5 s, 640x360", "video", clip, media_bare.pyav_video),
        ("the same, with sound", "video", sounding, media_bare.pyav_video),
        ("video 2 s, 3840x2160", "video", wide, media_bare.pyav_video),
    ]


def cpu_s(child: int | None = None) -> float:
    """Processor time of this process and a child so far, in seconds."""
    if child is None:
        return time.process_time()
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return time.process_time() + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rates(
    works: Sequence[Callable[[], object]], round_s: float, n_rounds: int, child: int | None = None
) -> list[float]:
    """Calls of each work per second of processor time: the best of `n_rounds` interleaved rounds.

    child: id of a process whose time is added.
    """
    best = [0.0] * len(works)
    for work in works:
        work()
    for _ in range(n_rounds):
        for index, work in enumerate(works):
            started, n_calls = cpu_s(child), 0
            until = time.perf_counter() + round_s
            while time.perf_counter() < until or not n_calls:
                work()
                n_calls += 1
            # /proc gives a child's time in hundredths of a second.
            best[index] = max(best[index], n_calls / max(cpu_s(child) - started, 0.01))
    return best


def measure_media(folder: Path, round_s: float, n_rounds: int) -> list[Result]:
    """Measure all kinds of media; print each result at once."""
    results = []
    with IsolatedDecoder(OPTIONS, RULES) as isolated:
        for name, kind, path, bare in make_files(folder):
            part = Part(kind, uri=str(path))
            like = decode_part(part, OPTIONS, RULES)
            works: list[Callable[[], object]] = [
                partial(bare, path, like),
                partial(decode_part, part, OPTIONS, RULES),
                partial(isolated.decode_part, part),
            ]
            isolated.decode_part(part)
            results.append(Result(name, *rates(works, round_s, n_rounds, isolated.pid)))
            print(results[-1].line(), flush=True)
    return results


def measure_speech(round_s: float, n_rounds: int) -> Result:
    """Measure the engine `vad`, and silero-vad alone, on 30 s of noise in bursts."""
    import torch

    with warnings.catch_warnings():
        # torch deprecates the format of silero-vad's weights.
        warnings.simplefilter("ignore", DeprecationWarning)
        import silero_vad

        detector = silero_vad.load_silero_vad()

    loud = np.repeat(np.random.default_rng(0).random(60) > 0.4, 8_000)
    noise = np.random.default_rng(1).normal(0, 0.2, loud.size) * loud
    waveform = np.clip(noise, -1, 1).astype(np.float32)
    audio = DecodedAudio(waveform, 16_000, 0.0, 30.0, "")
    engine = load_engine(AsrOptions(engine="vad"))
    part = Part("audio", uri="noise.wav")
    works = [
        lambda: silero_vad.get_speech_timestamps(torch.from_numpy(waveform), detector),
        lambda: engine.segments(audio, part),
    ]
    result = Result("speech (vad) in 30 s", *rates(works, round_s, n_rounds))
    print(result.line(), flush=True)
    return result


def large_image(
    part: Part, options: MediaOptions, rules: MediaRules, *, want_sound: bool
) -> DecodedMedia:
    """A decoder that takes no time and returns 100 MB."""
    return DecodedImage(np.empty((LARGE_BYTES // 3, 1, 3), np.uint8), 1, 1, "")


def measure_child() -> dict[str, float]:
    """Wall time of the child without decoding: its start, and the transfer of a large array."""
    part = Part("image", data=image_bytes(Image.new("RGB", (56, 56))))
    with IsolatedDecoder(OPTIONS, RULES) as isolated:
        start_ms = _took_ms(isolated, part)
    with IsolatedDecoder(OPTIONS, RULES, "benchmarks.media:large_image") as isolated:
        large_ms = min(_took_ms(isolated, part) for _ in range(10))
    print(f"\nwall time: start with a first image {start_ms:.0f} ms, 100 MB back {large_ms:.0f} ms")
    return {"start_ms": start_ms, "large_ms": large_ms, "large_bytes": LARGE_BYTES}


def _took_ms(isolated: IsolatedDecoder, part: Part) -> float:
    started = time.perf_counter()
    isolated.decode_part(part)
    return 1e3 * (time.perf_counter() - started)


def measure_rates(folder: Path, round_s: float, n_rounds: int) -> dict[str, object]:
    """Measure everything but costs; returns it as JSON values."""
    header = f"{'samples/s':24}{'bare':>10}{'ours':>10}{'ratio':>8}{'child':>10}{'ratio':>8}"
    print(f"{header}{'added ms':>10}")
    results = measure_media(folder, round_s, n_rounds)
    results.append(measure_speech(round_s, n_rounds))
    machine = {"machine": platform.machine(), "numpy": np.__version__, "child": measure_child()}
    return {**machine, "results": [asdict(result) for result in results]}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure rates, or costs."""
    parser = argparse.ArgumentParser(description="What decoding media costs on one core.")
    parser.add_argument("--round-s", type=float, default=1.0, help="seconds of a round")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the best one counts")
    parser.add_argument("--costs", action="store_true", help="time and memory of each minute")
    parser.add_argument("--before", type=Path, default=BEFORE, help="costs of another version")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="raw numbers, as JSON")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        if options.costs:
            costs = media_cost.measure_costs(Path(folder))
            print(media_cost.table(costs, media_cost.read_costs(options.before)))
            content = media_cost.as_json(costs)
        else:
            content = measure_rates(Path(folder), options.round_s, options.rounds)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(content, indent=2) + "\n")
    print(f"raw numbers: {options.output}")


if __name__ == "__main__":
    main()
