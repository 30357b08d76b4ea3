"""Sounds of several samples heard together: as one by one, and one's failure is its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from omnitrace_core.asr import Sound, load_engine
from omnitrace_core.asr.engines import base, paraformer, whisper
from omnitrace_core.asr.engines.base import Heard, hear, only
from omnitrace_core.asr.engines.sound import Piece, cut_pieces
from omnitrace_core.asr.engines.transcribing import Recogniser, transcribe
from omnitrace_core.errors import FatalError, SpeechError
from omnitrace_core.options import AsrOptions
from omnitrace_core.records import DecodedAudio, Float32, Part, SpeechSegment, Word
from omnitrace_core.runtime.process_state import preserve_process_state
from tests.core.asr import tiny_speech
from tests.core.asr.speech_sounds import decode_speech


def sounds() -> list[Sound]:
    """Speech of several lengths, rates and places in the file, and silence."""
    cuts: list[dict[str, float]] = [{}, {"audio_start": 5.0}, {"audio_end": 3.1}]
    made = [Sound(*decode_speech(**cut)) for cut in cuts]
    quiet = DecodedAudio(np.zeros(40_000, np.float32), 16_000, 0.0, 2.5, "")
    loud = replace(made[0].audio, waveform=np.clip(made[0].audio.waveform * 40, -1, 1))
    slow = replace(made[1].audio, sample_rate=8_000, waveform=made[1].audio.waveform[::2].copy())
    return [
        *made,
        Sound(quiet, Part("audio")),
        Sound(loud, Part("audio")),
        Sound(slow, Part("audio")),
    ]


def times_of(segments: Sequence[SpeechSegment]) -> list[float]:
    return [at for s in segments for word in s.words for at in (word.start_s, word.end_s)]


def check_same(together: Sequence[Heard], alone: Sequence[Heard]) -> None:
    """The same words at the same times, but for rounding."""
    assert len(together) == len(alone)
    for mine, other in zip(together, alone, strict=True):
        assert isinstance(mine, tuple)
        assert isinstance(other, tuple)
        assert [s.text for s in mine] == [s.text for s in other]
        assert times_of(mine) == pytest.approx(times_of(other), abs=1e-3)


class TestParaformer:
    @pytest.fixture(autouse=True)
    def _needs_funasr(self) -> None:
        pytest.importorskip("funasr", reason="needs the extra paraformer")
        pytest.importorskip("kaldi_native_fbank", reason="needs the extra paraformer")

    @pytest.mark.parametrize("own_times", [True, False])
    @pytest.mark.parametrize("batch_s", [8.0, 1000.0])
    def test_as_one_by_one(
        self,
        tmp_path_factory: pytest.TempPathFactory,
        monkeypatch: pytest.MonkeyPatch,
        own_times: bool,
        batch_s: float,
    ) -> None:
        root = tmp_path_factory.mktemp("funasr")
        models = {
            "model": tiny_speech.build_paraformer(root / "asr", own_times=own_times),
            "vad_model": tiny_speech.build_detector(root / "vad"),
            "punc_model": tiny_speech.build_punctuator(root / "punc"),
        }
        sizes: list[int] = []
        plain = paraformer._recognise

        def counted(model: object, waves: list[Float32]) -> list[list[Word]]:
            sizes.append(len(waves))
            return plain(model, waves)  # type: ignore[arg-type]

        monkeypatch.setattr(paraformer, "_recognise", counted)
        told = {"engine": "paraformer", "batch_s": batch_s, **models}
        engine = load_engine(AsrOptions.model_validate(told))
        given = sounds()
        together = hear(engine, given)
        n_together = len(sizes)
        assert max(sizes) == sum(sizes) if batch_s == 1000 else 1 < max(sizes) < sum(sizes)
        one_piece = load_engine(AsrOptions.model_validate({**told, "batch_s": 0.1}))
        alone = [one_piece.segments(sound.audio, sound.part) for sound in given]
        assert set(sizes[n_together:]) == {1}
        check_same(together, alone)
        assert alone[0]


class TestWhisper:
    def test_as_one_by_one(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        folder = tiny_speech.build_whisper(tmp_path_factory.mktemp("whisper") / "model")
        told = {"engine": "whisper", "model": folder, "language": "en"}
        together_options = AsrOptions.model_validate({**told, "batch_s": 120})
        together = hear(load_engine(together_options), sounds())
        one_piece = load_engine(AsrOptions.model_validate({**told, "batch_s": 1}))
        check_same(together, [one_piece.segments(s.audio, s.part) for s in sounds()])
        assert together[3] == ()

    def test_times_do_not_depend_on_longer_answers(
        self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Answers that end at different steps, which random weights do not give."""
        import torch
        from transformers.generation.utils import GenerateEncoderDecoderOutput

        folder = tiny_speech.build_whisper(tmp_path_factory.mktemp("whisper") / "model")
        with preserve_process_state(1, "transformers"):
            model = whisper._load(folder, "cpu", 1).model
        end = model.generation_config.eos_token_id
        n_prompt, n_said, lengths = 3, 7, (7, 4, 5)
        drawn = torch.Generator().manual_seed(0)
        sequences = torch.full((3, n_prompt + n_said), 5)
        for row, n in enumerate(lengths):
            sequences[row, n_prompt + n - 1 :] = end
        steps = tuple(
            tuple(
                torch.rand(3, 2, n_prompt if step == 0 else 1, 1500, generator=drawn)
                for _ in range(2)
            )
            for step in range(n_said)
        )
        frames = torch.tensor([900, 600, 300])

        def extract(rows: slice, n: int) -> torch.Tensor:
            found = GenerateEncoderDecoderOutput(
                sequences=sequences[rows, : n_prompt + n],  # type: ignore[arg-type]
                cross_attentions=tuple(  # type: ignore[arg-type]
                    tuple(layer[rows] for layer in step) for step in steps[:n]
                ),
            )
            heads = model.generation_config.alignment_heads
            times: torch.Tensor = model._extract_token_timestamps(
                found, heads, num_frames=frames[rows], num_input_ids=n_prompt
            )
            return times

        together = extract(slice(0, 3), n_said)
        assert together.shape == sequences.shape
        for row, n in enumerate(lengths):
            alone = extract(slice(row, row + 1), n)
            torch.testing.assert_close(together[row : row + 1, : n_prompt + n], alone)
        # Once transformers itself sees to it, `padding.py` need not.
        monkeypatch.setattr(
            model,
            "_extract_token_timestamps",
            type(model)._extract_token_timestamps.__get__(model),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            assert not torch.equal(extract(slice(0, 3), n_said), together)


Recognise = Callable[[list[Float32]], list[list[Word]]]


def engine_of(recognise: Recognise, batch_s: float = 100.0) -> Recogniser:
    """Hears every second sample of sound, cut in stretches of a second."""

    def cut(sound: Sound) -> list[Piece]:
        if sound.part.uri == "uncut":
            raise IndexError("no cut")
        n = int(sound.audio.duration_s)
        return cut_pieces(sound.audio, [(float(at), float(at + 1)) for at in range(n)])

    def punctuate(words: list[Word]) -> list[Word]:
        if any(word.text == "0.5" for word in words):
            raise ValueError("no marks")
        return [*words[:-1], *(replace(word, text=f"{word.text}.") for word in words[-1:])]

    return Recogniser(
        "fake", cut, recognise, punctuate, (RuntimeError, ValueError, IndexError), batch_s
    )


def level(value: float, seconds: int, uri: str = "talk.wav") -> Sound:
    wave = np.full(seconds * 16_000, value, np.float32)
    return Sound(DecodedAudio(wave, 16_000, 0.0, float(seconds), ""), Part("audio", uri=uri))


class TestFailures:
    def recognise(self, waves: list[Float32]) -> list[list[Word]]:
        self.sizes.append(len(waves))
        values = [float(wave[0]) for wave in waves]
        if any(value < 0 for value in values):
            raise RuntimeError("below zero")
        if len(waves) > 4:
            raise RuntimeError("CUDA out of memory (CUDA error: out of memory)")
        return [[Word(f"{value:.1f}", 0.25, 0.75)] for value in values]

    def test_one_sound_that_fails_costs_no_other(self) -> None:
        self.sizes: list[int] = []
        bad = (level(-1, 3, "bad.wav"), level(0.1, 2, "uncut"), level(0.5, 1, "marks.wav"))
        good = (level(0.2, 3), level(0.3, 2))
        heard = transcribe([good[0], *bad, good[1]], engine_of(self.recognise))
        texts = [h if isinstance(h, SpeechError) else [s.text for s in h] for h in heard]
        assert (texts[0], texts[4]) == (["0.2 0.2 0.2."], ["0.3 0.3."])
        assert "bad.wav: fake failed: RuntimeError('below zero')" in str(texts[1])
        assert "uncut: fake failed: IndexError('no cut')" in str(texts[2])
        assert "marks.wav: fake failed: ValueError('no marks')" in str(texts[3])
        assert self.sizes[0] == 9
        words = heard[4][0].words  # type: ignore[index]
        assert [(w.start_s, w.end_s) for w in words] == [(0.25, 0.75), (1.25, 1.75)]

    def test_a_broken_device_is_fatal(self) -> None:
        def recognise(waves: list[Float32]) -> list[list[Word]]:
            raise RuntimeError("CUDA error: device-side assert triggered")

        with pytest.raises(FatalError, match="fake: the device is broken"):
            transcribe([level(1, 2), level(1, 2)], engine_of(recognise))

    def test_waveforms_may_be_written_to(self) -> None:
        def recognise(waves: list[Float32]) -> list[list[Word]]:
            for wave in waves:
                wave *= 0
            return [[] for _ in waves]

        sound = level(0.5, 2)
        sound.audio.waveform.setflags(write=False)
        assert transcribe([sound], engine_of(recognise)) == [()]
        assert sound.audio.waveform[0] == 0.5

    def test_words_stay_within_their_piece(self) -> None:
        def recognise(waves: list[Float32]) -> list[list[Word]]:
            return [[Word("early", -0.5, 0.4), Word("late", 0.7, 8.0)] for _ in waves]

        ((first, *_),) = transcribe([level(0.5, 2)], engine_of(recognise))
        assert [(w.start_s, w.end_s) for w in first.words] == [
            (0.0, 0.4),
            (0.7, 1.0),
            (1.0, 1.4),
            (1.7, 2.0),
        ]

    def test_nothing_to_hear(self) -> None:
        assert transcribe([], engine_of(self.recognise)) == []


def test_pieces_that_hold_no_word_are_left_out() -> None:
    audio, _ = decode_speech(audio_start=1.0, audio_end=9.0)
    cuts = [(0.0, 4.0), (4.5, 4.5), (4.6, 4.69), (5.0, 6.0), (8.5, 12.0), (8.95, 9.2)]
    pieces = cut_pieces(audio, cuts)
    assert [(p.start_s, p.length_s) for p in pieces] == [(1.0, 3.0), (5.0, 1.0), (8.5, 0.5)]
    assert all(np.shares_memory(piece.waveform, audio.waveform) for piece in pieces)


class OneByOne:
    """An engine that hears no batches."""

    def segments(self, audio: DecodedAudio, part: Part) -> tuple[SpeechSegment, ...]:
        if audio.waveform[0] < 0:
            raise SpeechError(f"{part.uri}: below zero")
        return (SpeechSegment(0.0, audio.duration_s, "alone"),)


def test_engines_without_batches_are_asked_one_by_one() -> None:
    assert not isinstance(OneByOne(), base.BatchEngine)
    good, bad, last = hear(OneByOne(), [level(1, 1), level(-1, 1, "bad.wav"), level(1, 2)])
    assert only([good])[0].end_s == 1
    assert only([last])[0].end_s == 2
    with pytest.raises(SpeechError, match=r"bad\.wav: below zero"):
        only([bad])
