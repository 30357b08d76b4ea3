"""Sounds in one batch: segments as one by one, and a failure fails only its own sound."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from omnitrace_core.asr import PartAudio, load_engine
from omnitrace_core.asr.engines import base, paraformer, whisper
from omnitrace_core.asr.engines.base import SpeechResult, find_segments, only_result
from omnitrace_core.asr.engines.sound import SoundClip, cut_clips
from omnitrace_core.asr.engines.transcribing import Recogniser, transcribe
from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.errors import FatalError, SpeechError
from omnitrace_core.options import AsrOptions
from omnitrace_core.records import Float32, Part, SpeechSegment, Word
from omnitrace_core.runtime.process_state import preserve_process_state
from tests.core.asr import tiny_speech
from tests.core.asr.speech_sounds import decode_speech


def sounds() -> list[PartAudio]:
    """Speech of several lengths, rates and places in the file, and silence."""
    decoded = [decode_speech(), decode_speech(audio_start=5.0), decode_speech(audio_end=3.1)]
    speech = [PartAudio(audio, part) for audio, part in decoded]
    quiet = DecodedAudio(np.zeros(40_000, np.float32), 16_000, 0.0, 2.5, "")
    loud = replace(speech[0].audio, waveform=np.clip(speech[0].audio.waveform * 40, -1, 1))
    slow = replace(
        speech[1].audio, sample_rate=8_000, waveform=speech[1].audio.waveform[::2].copy()
    )
    return [
        *speech,
        PartAudio(quiet, Part("audio")),
        PartAudio(loud, Part("audio")),
        PartAudio(slow, Part("audio")),
    ]


def times_of(segments: Sequence[SpeechSegment]) -> list[float]:
    return [at for s in segments for word in s.words for at in (word.start_s, word.end_s)]


def check_same(together: Sequence[SpeechResult], alone: Sequence[SpeechResult]) -> None:
    """The same words at the same times, but for rounding."""
    assert len(together) == len(alone)
    for batched, single in zip(together, alone, strict=True):
        assert isinstance(batched, tuple)
        assert isinstance(single, tuple)
        assert [s.text for s in batched] == [s.text for s in single]
        assert times_of(batched) == pytest.approx(times_of(single), abs=1e-3)


class TestParaformer:
    @pytest.fixture(autouse=True)
    def _needs_funasr(self) -> None:
        pytest.importorskip("funasr", reason="needs the extra paraformer")
        pytest.importorskip("kaldi_native_fbank", reason="needs the extra paraformer")

    @pytest.mark.slow
    @pytest.mark.parametrize("own_times", [True, False])
    @pytest.mark.parametrize("batch_s", [8.0, 1000.0])
    def test_same_segments_as_one_by_one(
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
        real = paraformer.recognise

        def count(model: object, waves: list[Float32]) -> list[list[Word]]:
            sizes.append(len(waves))
            return real(model, waves)  # type: ignore[arg-type]

        monkeypatch.setattr(paraformer, "recognise", count)
        settings = {"engine": "paraformer", "batch_s": batch_s, **models}
        engine = load_engine(AsrOptions.model_validate(settings))
        batch = sounds()
        together = find_segments(engine, batch)
        n_together = len(sizes)
        assert max(sizes) == sum(sizes) if batch_s == 1000 else 1 < max(sizes) < sum(sizes)
        one_clip = load_engine(AsrOptions.model_validate({**settings, "batch_s": 0.1}))
        alone = [one_clip.segments(sound.audio, sound.part) for sound in batch]
        assert set(sizes[n_together:]) == {1}
        check_same(together, alone)
        assert alone[0]


class TestWhisper:
    @pytest.mark.slow
    def test_same_segments_as_one_by_one(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        folder = tiny_speech.build_whisper(tmp_path_factory.mktemp("whisper") / "model")
        settings = {"engine": "whisper", "model": folder, "language": "en"}
        together_options = AsrOptions.model_validate({**settings, "batch_s": 120})
        together = find_segments(load_engine(together_options), sounds())
        one_clip = load_engine(AsrOptions.model_validate({**settings, "batch_s": 1}))
        check_same(together, [one_clip.segments(s.audio, s.part) for s in sounds()])
        assert together[3] == ()

    def test_times_do_not_depend_on_longer_outputs(
        self, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Outputs that end at different steps, which random weights do not give."""
        import torch
        from transformers.generation.utils import GenerateEncoderDecoderOutput

        folder = tiny_speech.build_whisper(tmp_path_factory.mktemp("whisper") / "model")
        with preserve_process_state(1, "transformers"):
            model = whisper.load_pipeline(folder, "cpu", 1).model
        end = model.generation_config.eos_token_id
        n_prompt, n_generated, lengths = 3, 7, (7, 4, 5)
        drawn = torch.Generator().manual_seed(0)
        sequences = torch.full((3, n_prompt + n_generated), 5)
        for row, n in enumerate(lengths):
            sequences[row, n_prompt + n - 1 :] = end
        steps = tuple(
            tuple(
                torch.rand(3, 2, n_prompt if step == 0 else 1, 1500, generator=drawn)
                for _ in range(2)
            )
            for step in range(n_generated)
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

        together = extract(slice(0, 3), n_generated)
        assert together.shape == sequences.shape
        for row, n in enumerate(lengths):
            alone = extract(slice(row, row + 1), n)
            torch.testing.assert_close(together[row : row + 1, : n_prompt + n], alone)
        # When this fails, transformers has fixed it and `padding.py` is no longer needed.
        monkeypatch.setattr(
            model,
            "_extract_token_timestamps",
            type(model)._extract_token_timestamps.__get__(model),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            assert not torch.equal(extract(slice(0, 3), n_generated), together)


Recognise = Callable[[list[Float32]], list[list[Word]]]


def fake_recogniser(recognise: Recognise, batch_s: float = 100.0) -> Recogniser:
    """A recogniser that cuts each sound into clips of a second and fails on marked sounds."""

    def cut(sound: PartAudio) -> list[SoundClip]:
        if sound.part.uri == "uncut":
            raise IndexError("no clips")
        n = int(sound.audio.duration_s)
        return cut_clips(sound.audio, [(float(at), float(at + 1)) for at in range(n)])

    def punctuate(words: list[Word]) -> list[Word]:
        if any(word.text == "0.5" for word in words):
            raise ValueError("no marks")
        return [*words[:-1], *(replace(word, text=f"{word.text}.") for word in words[-1:])]

    return Recogniser(
        "fake", cut, recognise, punctuate, (RuntimeError, ValueError, IndexError), batch_s
    )


def level(value: float, seconds: int, uri: str = "talk.wav") -> PartAudio:
    wave = np.full(seconds * 16_000, value, np.float32)
    return PartAudio(DecodedAudio(wave, 16_000, 0.0, float(seconds), ""), Part("audio", uri=uri))


class TestFailures:
    def recognise(self, waves: list[Float32]) -> list[list[Word]]:
        self.sizes.append(len(waves))
        values = [float(wave[0]) for wave in waves]
        if any(value < 0 for value in values):
            raise RuntimeError("below zero")
        if len(waves) > 4:
            raise RuntimeError("CUDA out of memory (CUDA error: out of memory)")
        return [[Word(f"{value:.1f}", 0.25, 0.75)] for value in values]

    def test_a_failing_sound_leaves_the_others_alone(self) -> None:
        self.sizes: list[int] = []
        bad = (level(-1, 3, "bad.wav"), level(0.1, 2, "uncut"), level(0.5, 1, "marks.wav"))
        good = (level(0.2, 3), level(0.3, 2))
        results = transcribe([good[0], *bad, good[1]], fake_recogniser(self.recognise))
        texts = [r if isinstance(r, SpeechError) else [s.text for s in r] for r in results]
        assert (texts[0], texts[4]) == (["0.2 0.2 0.2."], ["0.3 0.3."])
        assert "bad.wav: fake failed: RuntimeError('below zero')" in str(texts[1])
        assert "uncut: fake failed: IndexError('no clips')" in str(texts[2])
        assert "marks.wav: fake failed: ValueError('no marks')" in str(texts[3])
        assert self.sizes[0] == 9
        last = results[4]
        assert isinstance(last, tuple)
        words = last[0].words
        assert [(w.start_s, w.end_s) for w in words] == [(0.25, 0.75), (1.25, 1.75)]

    def test_a_broken_device_is_fatal(self) -> None:
        def recognise(waves: list[Float32]) -> list[list[Word]]:
            raise RuntimeError("CUDA error: device-side assert triggered")

        with pytest.raises(FatalError, match="fake: the device is broken"):
            transcribe([level(1, 2), level(1, 2)], fake_recogniser(recognise))

    def test_waveforms_may_be_written_to(self) -> None:
        def recognise(waves: list[Float32]) -> list[list[Word]]:
            for wave in waves:
                wave *= 0
            return [[] for _ in waves]

        sound = level(0.5, 2)
        sound.audio.waveform.setflags(write=False)
        assert transcribe([sound], fake_recogniser(recognise)) == [()]
        assert sound.audio.waveform[0] == 0.5

    def test_words_stay_within_their_clip(self) -> None:
        def recognise(waves: list[Float32]) -> list[list[Word]]:
            return [[Word("early", -0.5, 0.4), Word("late", 0.7, 8.0)] for _ in waves]

        (result,) = transcribe([level(0.5, 2)], fake_recogniser(recognise))
        assert isinstance(result, tuple)
        assert [(w.start_s, w.end_s) for w in result[0].words] == [
            (0.0, 0.4),
            (0.7, 1.0),
            (1.0, 1.4),
            (1.7, 2.0),
        ]

    def test_no_sounds(self) -> None:
        assert transcribe([], fake_recogniser(self.recognise)) == []


def test_clips_too_short_for_a_word_are_left_out() -> None:
    audio, _ = decode_speech(audio_start=1.0, audio_end=9.0)
    intervals = [(0.0, 4.0), (4.5, 4.5), (4.6, 4.69), (5.0, 6.0), (8.5, 12.0), (8.95, 9.2)]
    clips = cut_clips(audio, intervals)
    assert [(c.start_s, c.length_s) for c in clips] == [(1.0, 3.0), (5.0, 1.0), (8.5, 0.5)]
    assert all(np.shares_memory(clip.waveform, audio.waveform) for clip in clips)


class OneByOne:
    """An engine without `segments_of`."""

    def segments(self, audio: DecodedAudio, part: Part) -> tuple[SpeechSegment, ...]:
        if audio.waveform[0] < 0:
            raise SpeechError(f"{part.uri}: below zero")
        return (SpeechSegment(0.0, audio.duration_s, "alone"),)


def test_engines_without_batches_get_one_sound_at_a_time() -> None:
    assert not isinstance(OneByOne(), base.BatchEngine)
    good, bad, last = find_segments(OneByOne(), [level(1, 1), level(-1, 1, "bad.wav"), level(1, 2)])
    assert only_result([good])[0].end_s == 1
    assert only_result([last])[0].end_s == 2
    with pytest.raises(SpeechError, match=r"bad\.wav: below zero"):
        only_result([bad])
