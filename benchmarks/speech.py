"""Measures engines that transcribe in batches: sounds per second in batches and one by one.

Run from the repository's root: `OMP_NUM_THREADS=1 python -m benchmarks.speech`. Models of the real
architectures with random weights, since the package contains no trained ones: their words are
meaningless, and their speed is that of tiny models. Raw numbers: benchmarks/out/speech.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from omnitrace_core.asr import PartAudio, SpeechEngine, find_segments, load_engine
from omnitrace_core.options import AsrOptions
from tests.core.asr import tiny_speech
from tests.core.asr.speech_sounds import decode_speech

OUTPUT = Path(__file__).parent / "out" / "speech.json"


def make_sounds(n: int) -> list[PartAudio]:
    """`n` sounds: two sentences and their pauses, each with another start."""
    return [PartAudio(*decode_speech(audio_start=0.04 * k)) for k in range(n)]


def measure(
    engine: SpeechEngine, sounds: Sequence[PartAudio], n_rounds: int, clock: Callable[[], float]
) -> tuple[float, float]:
    """Sounds per second one by one and in batches; the best of alternating rounds."""

    def one_by_one() -> None:
        for sound in sounds:
            engine.segments(sound.audio, sound.part)

    ways: list[Callable[[], object]] = [one_by_one, lambda: find_segments(engine, sounds)]
    best = [0.0, 0.0]
    # Loads the model.
    find_segments(engine, sounds[:1])
    for _ in range(n_rounds):
        for index, way in enumerate(ways):
            started = clock()
            way()
            best[index] = max(best[index], len(sounds) / (clock() - started))
    return best[0], best[1]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the engines that transcribe in batches."""
    parser = argparse.ArgumentParser(description="Sounds transcribed in batches and one by one.")
    parser.add_argument("--sounds", type=int, default=16, help="samples of a chunk")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; the best one counts")
    parser.add_argument(
        "--batch-s", type=float, nargs="+", default=[60.0, 480.0], help="values of asr.batch_s"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="raw numbers, as JSON")
    options = parser.parse_args(arguments)
    sounds = make_sounds(options.sounds)
    print(f"{'sounds/s':14}{'batch_s':>10}{'alone':>10}{'together':>10}{'ratio':>8}")
    # Processor time on a CPU, which other processes may use as well.
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        models = {
            "paraformer": tiny_speech.build_paraformer(Path(folder) / "paraformer"),
            "whisper": tiny_speech.build_whisper(Path(folder) / "whisper"),
        }
        for name, model in models.items():
            for batch_s in options.batch_s:
                settings = AsrOptions.model_validate(
                    {"engine": name, "model": model, "batch_s": batch_s, "device": options.device}
                )
                engine = load_engine(settings)
                alone, together = measure(engine, sounds, options.rounds, clock)
                line = f"{name:14}{batch_s:10.0f}{alone:10.2f}{together:10.2f}"
                print(f"{line}{together / alone:8.2f}", flush=True)
                rows.append(
                    {"engine": name, "batch_s": batch_s, "alone": alone, "together": together}
                )
    setup = {"machine": platform.machine(), "device": options.device, "n_sounds": options.sounds}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({**setup, "results": rows}, indent=2) + "\n")
    print(f"raw numbers: {options.output}")


if __name__ == "__main__":
    main()
