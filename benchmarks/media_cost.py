"""Processor time and peak memory of decoding a file, each file in a process of its own.

`benchmarks.media` calls `measure_costs`; as a program, this module measures one file.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import media_bare
from omnitrace_core.decoded_media import DecodedAudio, DecodedImage, DecodedMedia, DecodedVideo
from omnitrace_core.media import decode_part
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Modality, Part
from tests.core.media_files import audio_bytes, beep, image_bytes, run_ffmpeg

ROOT = Path(__file__).resolve().parents[1]
OURS = "ours"
# A file is decoded again until this much processor time has passed; the fastest counts.
_LEAST_S, _MOST_CALLS = 2.0, 5
_MODEL_RATE = 16_000

Bare = Callable[[Path, Any], object]


@dataclass(frozen=True, slots=True)
class CostFile:
    """A file to decode. minutes: of media; None for a picture. bare: baselines, by library."""

    name: str
    kind: Modality
    path: Path
    warm_up: Path
    minutes: float | None
    bare: Sequence[str]


@dataclass(frozen=True, slots=True)
class Cost:
    """cpu_s: per minute of media, or per picture. peak_mib: of the file, above the idle process."""

    cpu_s: float
    peak_mib: float


Costs = Mapping[str, Mapping[str, Cost]]  # by file and decoder


def make_files(folder: Path) -> list[CostFile]:
    """The files, and a short one of each kind that loads the libraries."""
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8))
    icon, photo = folder / "icon.png", folder / "photo.jpg"
    icon.write_bytes(image_bytes(coarse))
    photo.write_bytes(image_bytes(coarse.resize((1600, 1200)), "JPEG", quality=90))
    short, recording = folder / "short.wav", folder / "recording.wav"
    short.write_bytes(audio_bytes(beep(1, [0], 44_100), 44_100))
    recording.write_bytes(audio_bytes(beep(30, range(30), 44_100), 44_100))
    track, minutes, hour = (folder / name for name in ("track.m4a", "minutes.m4a", "hour.m4a"))
    noise = "anoisesrc=r=44100:a=0.1:seed=1"
    _encode(f"-f lavfi -i {noise}:d=1", "-c:a aac", track)
    _encode(f"-f lavfi -i {noise}:d=180", "-c:a aac -b:a 128k", minutes)
    _encode(f"-f lavfi -i {noise}:d=3600", "-c:a aac -aac_coder fast -b:a 64k", hour)
    clip, sounding, wide = (folder / name for name in ("clip.mp4", "sounding.mp4", "wide.mp4"))
    pictures, codec = "-f lavfi -i testsrc2=s={}:r=25:d={}", "-preset ultrafast -pix_fmt yuv420p"
    _encode(pictures.format("64x48", 1) + f" -f lavfi -i {noise}:d=1", codec, clip)
    _encode(pictures.format("640x360", 20) + f" -f lavfi -i {noise}:d=20", codec, sounding)
    _encode(pictures.format("3840x2160", 2), codec, wide)
    video, sound = ("decord_video", "pyav_video"), ("decord_audio", "pyav_audio")
    return [
        CostFile("image 1600x1200 JPEG", "image", photo, icon, None, ("pillow_image",)),
        CostFile("WAV 30 s, 44.1 kHz", "audio", recording, short, 0.5, ("soundfile_audio",)),
        CostFile("M4A 3 min, 44.1 kHz", "audio", minutes, track, 3.0, sound),
        CostFile("M4A 1 h, 44.1 kHz", "audio", hour, track, 60.0, sound),
        CostFile("H.264 20 s, 640x360, sound", "video", sounding, clip, 20 / 60, video),
        CostFile("H.264 2 s, 3840x2160", "video", wide, clip, 2 / 60, video),
    ]


def _encode(inputs: str, options: str, path: Path) -> None:
    run_ffmpeg(*inputs.split(), *options.split(), path)


def measure_costs(folder: Path) -> Costs:
    """The costs of ours and of the libraries alone."""
    costs: dict[str, dict[str, Cost]] = {}
    for file in make_files(folder):
        sizes, ours = measure_file(file, OURS, "{}")
        bare = {name: measure_file(file, name, sizes)[1] for name in file.bare}
        costs[file.name] = {OURS: ours, **bare}
        print(f"  {file.name}: {ours.cpu_s:.2f} s, {ours.peak_mib:,.0f} MiB", flush=True)
    return costs


def measure_file(file: CostFile, decoder: str, sizes: str) -> tuple[str, Cost]:
    """The sizes of the decoded media, as JSON, and its cost."""
    command = [sys.executable, "-m", "benchmarks.media_cost", decoder, file.kind]
    paths = [str(file.path), str(file.warm_up), sizes]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(
        [*command, *paths], cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    line = json.loads(ended.stdout.splitlines()[-1])
    cost = Cost(**line["cost"])
    return json.dumps(line["sizes"]), replace(cost, cpu_s=cost.cpu_s / (file.minutes or 1.0))


def table(after: Costs, before: Costs | None = None) -> str:
    """The costs per minute of media, and per picture, with those of another version before them."""
    lines = [
        "processor time and peak memory; times per minute of media, or per picture",
        f"{'':28}{'decoder':17}{'before s':>10}{'after s':>10}{'before MiB':>12}{'after MiB':>12}",
    ]
    for name, decoders in after.items():
        earlier = (before or {}).get(name, {})
        for decoder, cost in decoders.items():
            old = earlier.get(decoder)
            old_s, old_mib = (
                ("", "") if old is None else (f"{old.cpu_s:.3f}", f"{old.peak_mib:,.0f}")
            )
            lines.append(
                f"{name:28}{decoder:17}{old_s:>10}{cost.cpu_s:>10.3f}"
                f"{old_mib:>12}{cost.peak_mib:>12,.0f}"
            )
            name = ""
    return "\n".join(lines)


def as_json(costs: Costs) -> dict[str, object]:
    """Costs as JSON values, with the load of the machine."""
    rows = {name: {who: asdict(cost) for who, cost in row.items()} for name, row in costs.items()}
    return {"load_average": os.getloadavg(), "costs": rows}


def read_costs(path: Path) -> Costs:
    """What `as_json` wrote to a file."""
    rows = json.loads(path.read_text())["costs"]
    return {name: {who: Cost(**cost) for who, cost in row.items()} for name, row in rows.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure one file in this process and print the numbers as a line of JSON."""
    parser = argparse.ArgumentParser(description="The cost of decoding one file.")
    parser.add_argument("decoder", help=f"{OURS}, or a function of benchmarks.media_bare")
    parser.add_argument("kind", choices=["image", "audio", "video"])
    parser.add_argument("path", type=Path)
    parser.add_argument("warm_up", type=Path, help="a short file, decoded first")
    parser.add_argument("sizes", type=json.loads, help="what ours decoded, as JSON")
    options = parser.parse_args(arguments)
    if options.decoder == OURS:
        decode: Callable[[Path], object] = partial(_decode_ours, options.kind)
    else:
        like = _media_like(options.sizes)
        decode = partial(_call_bare, getattr(media_bare, options.decoder), like)
    decode(options.warm_up)
    idle_mib = _start_peak()
    decoded = decode(options.path)
    peak_mib = _peak_mib() - idle_mib
    sizes = _sizes_of(decoded) if options.decoder == OURS else {}
    del decoded
    cost = Cost(_fastest_s(partial(decode, options.path)), peak_mib)
    print(json.dumps({"sizes": sizes, "cost": asdict(cost)}))


def _decode_ours(kind: Modality, path: Path) -> DecodedMedia:
    options = MediaOptions(max_audio_s=7_200, max_video_s=7_200)
    return decode_part(Part(kind, uri=str(path)), options, MediaRules())


def _call_bare(bare: Bare, like: DecodedMedia, path: Path) -> object:
    return bare(path, like)


def _fastest_s(work: Callable[[], object]) -> float:
    times_s: list[float] = []
    while len(times_s) < _MOST_CALLS and sum(times_s) < _LEAST_S:
        started = time.process_time()
        work()
        times_s.append(time.process_time() - started)
    return min(times_s)


def _start_peak() -> float:
    """Resident MiB of this process now; its peak is counted from here on (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status_mib("VmRSS")


def _peak_mib() -> float:
    return _status_mib("VmHWM")


def _status_mib(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {name}; run this on Linux")


def _sizes_of(media: object) -> dict[str, Any]:
    if isinstance(media, DecodedImage):
        return {"pixels": media.pixels.shape}
    if isinstance(media, DecodedVideo):
        return {"frames": media.frames.shape, "sound": media.sound is not None}
    return {}


def _media_like(sizes: dict[str, Any]) -> DecodedMedia:
    """Media of these sizes, without contents: memory that is not touched takes no room."""
    sound = DecodedAudio(np.empty(0, np.float32), _MODEL_RATE, 0.0, 0.0, "")
    if "pixels" in sizes:
        return DecodedImage(np.empty(sizes["pixels"], np.uint8), 1, 1, "")
    if "frames" not in sizes:
        return sound
    frames = np.empty(sizes["frames"], np.uint8)
    track = sound if sizes["sound"] else None
    return DecodedVideo(frames, np.empty(len(frames)), 1.0, 1, 1, 0.0, 0.0, 0.0, track, "")


if __name__ == "__main__":
    main()
