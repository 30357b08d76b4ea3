"""The table of engines, and the engines given and vad; vad on real speech."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

from omnitrace_core.asr import SpeechEngine, engines, list_asr_engines, load_engine
from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.errors import SpeechError, UnknownName
from omnitrace_core.media import decode_part
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import AsrOptions, MediaOptions
from omnitrace_core.records import Part, SpeechSegment, Word
from tests.core.asr.speech_sounds import SPEECH, covered_s, decode_speech, long_speech


class TestTable:
    def test_an_unknown_engine_lists_the_valid_ones(self) -> None:
        with pytest.raises(UnknownName, match=r"'parrot'; valid engines: .*given.*vad"):
            load_engine(AsrOptions(engine="parrot"))

    def test_entry_points_add_engines(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Everything:
            def __init__(self, options: AsrOptions) -> None:
                self.options = options

            def segments(self, audio: DecodedAudio, part: Part) -> tuple[SpeechSegment, ...]:
                return (SpeechSegment(audio.start_s, audio.duration_s),)

        @dataclass(frozen=True)
        class Point:
            name: str

            def load(self) -> type[SpeechEngine]:
                return Everything

        def entry_points(group: str) -> list[Point]:
            assert group == "omnitrace.asr"
            return [Point("everything"), Point("vad")]

        monkeypatch.setattr(engines, "entry_points", entry_points)
        assert isinstance(load_engine(AsrOptions(engine="everything")), Everything)
        names = ("everything", "given", "paraformer", "scribe", "vad", "whisper")
        assert list_asr_engines() == names
        # A plug-in cannot replace a shipped engine.
        assert not isinstance(load_engine(AsrOptions(engine="vad")), Everything)
        with pytest.raises(UnknownName, match="everything, given, paraformer, scribe, vad"):
            load_engine(AsrOptions(engine="nothing"))


@pytest.fixture(scope="module")
def engine() -> SpeechEngine:
    return load_engine(AsrOptions())


class TestVad:
    def test_finds_the_speech_and_not_the_pauses(self, engine: SpeechEngine) -> None:
        import torch

        n_threads = torch.get_num_threads()
        audio, part = decode_speech()
        segments = engine.segments(audio, part)
        assert len(segments) == 2
        spoken = sum(high - low for low, high in SPEECH)
        assert covered_s(segments, SPEECH) >= 0.95 * spoken
        pauses = ((0.0, 1.0), (4.045, 6.045), (9.645, audio.duration_s))
        silent = sum(high - low for low, high in pauses)
        assert covered_s(segments, pauses) < 0.1 * silent
        assert torch.get_num_threads() == n_threads

    def test_speech_and_silence_of_a_longer_sound(self, engine: SpeechEngine) -> None:
        """Sentences at two levels between silences of 0.5 to 8 s that hold faint noise."""
        audio, spoken, silent = long_speech()
        segments = engine.segments(audio, Part("audio"))
        assert covered_s(segments, spoken) >= 0.95 * sum(high - low for low, high in spoken)
        assert covered_s(segments, silent) < 0.1 * sum(high - low for low, high in silent)
        # A long silence is never inside a segment.
        for low, high in silent:
            middle = (low + high) / 2
            assert high - low < 1.0 or not any(s.start_s < middle < s.end_s for s in segments)

    def test_times_are_seconds_of_the_file(self, engine: SpeechEngine) -> None:
        whole = engine.segments(*decode_speech())
        cut = engine.segments(*decode_speech(audio_start=5.0))
        assert len(cut) == 1
        assert cut[0].start_s == pytest.approx(whole[1].start_s, abs=0.1)
        assert cut[0].end_s == pytest.approx(whole[1].end_s, abs=0.1)

    def test_speech_up_to_the_end_stays_inside_the_file(self, engine: SpeechEngine) -> None:
        audio, part = decode_speech(audio_start=6.5, audio_end=8.0)
        (segment,) = engine.segments(audio, part)
        assert segment.start_s >= 6.5
        assert segment.end_s <= 8.0

    @pytest.mark.parametrize("longest_s", [0.5, 1.0, 60.0])
    def test_no_segment_is_too_long(self, longest_s: float) -> None:
        segments = load_engine(AsrOptions(max_chunk_s=longest_s)).segments(*decode_speech())
        assert all(0 < s.end_s - s.start_s <= longest_s + 1e-9 for s in segments)
        assert all(a.end_s <= b.start_s + 1e-9 for a, b in pairwise(segments))
        assert covered_s(segments, SPEECH) >= 0.95 * sum(high - low for low, high in SPEECH)

    def test_other_sample_rates(self, engine: SpeechEngine) -> None:
        audio, part = decode_speech()
        rules = MediaRules(sample_rate=24_000)
        other = decode_part(part, MediaOptions(), rules)
        assert isinstance(other, DecodedAudio)
        for a, b in zip(engine.segments(audio, part), engine.segments(other, part), strict=True):
            assert (a.start_s, a.end_s) == pytest.approx((b.start_s, b.end_s), abs=0.1)

    @pytest.mark.parametrize("level", [0.0, 0.01])
    def test_no_speech_gives_no_segments(self, engine: SpeechEngine, level: float) -> None:
        noise = np.random.default_rng(0).normal(0, level, 32_000).astype(np.float32)
        audio = DecodedAudio(noise, 16_000, 0.0, 2.0, "")
        assert engine.segments(audio, Part("audio")) == ()

    def test_same_result_every_time(self, engine: SpeechEngine) -> None:
        audio, part = decode_speech()
        first = engine.segments(audio, part)
        # Arrays from Arrow are read-only.
        audio.waveform.setflags(write=False)
        assert engine.segments(audio, part) == first
        engine.segments(*decode_speech(audio_start=6.5, audio_end=8.0))
        assert engine.segments(*decode_speech()) == first


class TestGiven:
    AUDIO = DecodedAudio(np.zeros(16_000 * 10, np.float32), 16_000, 0.0, 10.0, "")

    def segments(
        self, *given: SpeechSegment, audio: DecodedAudio = AUDIO
    ) -> tuple[SpeechSegment, ...]:
        part = Part("audio", uri="talk.wav", segments=given)
        return load_engine(AsrOptions(engine="given")).segments(audio, part)

    def test_returns_them_unchanged(self) -> None:
        given = (
            SpeechSegment(0.5, 2.0, "Hello.", (Word("Hello", 0.5, 1.0),)),
            SpeechSegment(2.0, 9.0, "Bye."),
        )
        assert self.segments(*given) == given
        assert self.segments() == ()

    def test_a_rounded_end_is_clipped_to_the_file(self) -> None:
        assert self.segments(SpeechSegment(9.0, 10.05)) == (SpeechSegment(9.0, 10.0),)

    def test_segments_and_their_texts_are_cut_to_the_decoded_stretch(self) -> None:
        audio = DecodedAudio(np.zeros(16_000 * 3, np.float32), 16_000, 4.0, 10.0, "")
        words = (Word("one", 3.0, 3.5), Word("two", 4.5, 5.0))
        later = (Word("three", 6.0, 6.4), Word("four", 6.9, 7.2), Word("five", 7.3, 8.0))
        given = (
            SpeechSegment(1, 2, "out"),
            SpeechSegment(3, 5, "One, two.", words),
            SpeechSegment(5.5, 8, "Three? Four! Five.", later),
            SpeechSegment(8, 9, "out"),
        )
        assert self.segments(*given, audio=audio) == (
            SpeechSegment(4.0, 5, "two.", words[1:]),
            SpeechSegment(5.5, 7.0, "Three? Four!", later[:2]),
        )
        # Words that are not those of the text are taken as they are.
        other = SpeechSegment(3, 5, "1 and 2", words)
        assert [s.text for s in self.segments(other, audio=audio)] == ["two"]
        # None of its words is heard.
        assert self.segments(SpeechSegment(3, 8, "one", words[:1]), audio=audio) == ()

    def test_a_text_without_words_keeps_its_times(self) -> None:
        """So that `place_chunks` can say that not all of it is heard."""
        audio = DecodedAudio(np.zeros(16_000 * 3, np.float32), 16_000, 4.0, 10.0, "")
        over = SpeechSegment(6, 8, "over")
        assert self.segments(over, audio=audio) == (over,)
        assert self.segments(SpeechSegment(6, 8), audio=audio) == (SpeechSegment(6, 7.0),)

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ((SpeechSegment(2.0, 2.0),), r"segment 0 \[2.0, 2.0\] s does not end after it starts"),
            ((SpeechSegment(float("nan"), 2.0),), "segment 0 .* does not end after it starts"),
            ((SpeechSegment(-1.0, 2.0),), "segment 0 .* starts before 0.0 s"),
            ((SpeechSegment(3, 5), SpeechSegment(1, 2)), "segment 1 .* starts before 5 s"),
            ((SpeechSegment(3, 5), SpeechSegment(4, 6)), "segment 1 .* starts before 5 s"),
            ((SpeechSegment(3, 50),), r"segment 0 .* ends after the media does \(10.000 s\)"),
            ((SpeechSegment(3, float("inf")),), "segment 0 .* ends after the media does"),
            (
                (SpeechSegment(1, 2, "a", (Word("a", 1.5, 2.5),)),),
                r"segment 0 .*: word 0 'a' \[1.5, 2.5\] s ends after its segment does",
            ),
            (
                (SpeechSegment(1, 2, "a", (Word("a", 0.5, 1.5),)),),
                "segment 0 .*: word 0 'a' .* starts before its segment or the word before it",
            ),
            (
                (SpeechSegment(1, 2, "a b", (Word("a", 1.5, 1.6), Word("b", 1.2, 1.3))),),
                "segment 0 .*: word 1 'b' .* starts before its segment or the word before it",
            ),
            (
                (SpeechSegment(1, 2, "a", (Word("a", float("nan"), 1.6),)),),
                "segment 0 .*: word 0 'a' .* ends before it starts",
            ),
        ],
    )
    def test_impossible_times(self, given: tuple[SpeechSegment, ...], message: str) -> None:
        with pytest.raises(SpeechError, match=f"talk.wav: {message}"):
            self.segments(*given)

    def test_without_segments(self) -> None:
        engine = load_engine(AsrOptions(engine="given"))
        with pytest.raises(SpeechError, match=r"talk\.wav: asr\.engine=given needs segments"):
            engine.segments(self.AUDIO, Part("audio", uri="talk.wav"))
