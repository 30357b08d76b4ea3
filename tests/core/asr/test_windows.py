"""Windows of speech: none too long, each word in the stretch where it is spoken, none twice."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest

from omnitrace_core.asr.engines.base import PartAudio
from omnitrace_core.asr.engines.sound import Interval, SoundClip
from omnitrace_core.asr.engines.transcribing import Recogniser, transcribe
from omnitrace_core.asr.engines.windows import (
    cut_windows,
    list_doubtful,
    place_words,
    plan_windows,
    repeats_itself,
)
from omnitrace_core.decoded_media import DecodedAudio
from omnitrace_core.records import Float32, Part, Word

RATE = 16_000


def noise(length_s: float, quiet: Sequence[Interval] = (), start_s: float = 0.0) -> DecodedAudio:
    """Noise from `start_s` of a file on, loud but for some intervals of the file."""
    wave = np.random.default_rng(0).normal(0, 0.1, round(length_s * RATE)).astype(np.float32)
    for low_s, high_s in quiet:
        wave[round((low_s - start_s) * RATE) : round((high_s - start_s) * RATE)] *= 0.01
    return DecodedAudio(wave, RATE, start_s, start_s + length_s, "")


class TestPlan:
    def test_neighbours_share_a_window_as_long_as_they_fit(self) -> None:
        speech = [(1.0, 9.0), (9.5, 20.0), (22.0, 29.0), (29.5, 30.0), (70.0, 71.0)]
        windows = plan_windows(noise(72.0), speech, 28.0)
        # The third ends exactly 28 s after the first begins.
        assert windows == [tuple(speech[:3]), (speech[3],), (speech[4],)]

    @pytest.mark.parametrize("longest_s", [5.0, 12.0, 28.0])
    def test_all_speech_is_in_one_window_each(self, longest_s: float) -> None:
        drawn = np.random.default_rng(1)
        for _ in range(20):
            edges = np.cumsum(drawn.exponential(4.0, 30)) + 3.0
            speech = [(float(a), float(b)) for a, b in edges.reshape(-1, 2)]
            audio = noise(float(edges[-1]) - 3.0, start_s=3.0)
            windows = plan_windows(audio, speech, longest_s)
            pieces = [piece for window in windows for piece in window]
            assert all(a[1] <= b[0] for a, b in pairwise(pieces))
            assert sum(b - a for a, b in pieces) == pytest.approx(sum(b - a for a, b in speech))
            assert all(window[-1][1] - window[0][0] <= longest_s for window in windows)
            # What begins a window had no room in the one before.
            assert all(b[0][1] - a[0][0] > longest_s for a, b in pairwise(windows))

    @pytest.mark.parametrize("start_s", [0.0, 100.0])
    def test_long_speech_is_cut_where_it_is_quiet(self, start_s: float) -> None:
        quiet = [(start_s + at_s, start_s + at_s + 0.25) for at_s in (5.0, 20.0, 41.0)]
        # Shorter than a pause, though as quiet.
        quiet.append((start_s + 24.0, start_s + 24.05))
        audio = noise(60.0, quiet, start_s)
        ((first,), (second,), (third,)) = plan_windows(audio, [(start_s, start_s + 60.0)], 28.0)
        assert first[1] == second[0] == pytest.approx(start_s + 20.125, abs=0.06)
        assert second[1] == third[0] == pytest.approx(start_s + 41.125, abs=0.06)
        assert (first[0], third[1]) == (start_s, start_s + 60.0)

    def test_no_piece_is_too_short_to_be_understood(self) -> None:
        for length_s in (28.01, 30.0, 42.0, 56.5, 85.0):
            pieces = [p for w in plan_windows(noise(length_s), [(0.0, length_s)], 28.0) for p in w]
            assert all(7.0 - 1e-6 <= b - a <= 28.0 for a, b in pieces)

    def test_a_window_holds_its_pauses_as_they_sound(self) -> None:
        audio = noise(20.0, start_s=5.0)
        (clip,) = cut_windows(audio, [(6.0, 8.0), (11.0, 12.5)], 28.0)
        assert (clip.start_s, clip.length_s) == (6.0, 6.5)
        assert clip.speech == ((6.0, 8.0), (11.0, 12.5))
        assert np.shares_memory(clip.waveform, audio.waveform)
        again = clip.part(11.0, 12.5)
        assert (again.start_s, again.length_s, again.speech) == (11.0, 1.5, ())
        np.testing.assert_array_equal(again.waveform, audio.waveform[6 * RATE : 7 * RATE + 8000])


class TestPlacing:
    speech = ((1.0, 3.0), (4.0, 6.0), (20.0, 22.0))

    def place(self, *times: Interval) -> list[list[Interval]]:
        placed = place_words([Word("w", *interval) for interval in times], self.speech)
        return [[(word.start_s, word.end_s) for word in words] for words in placed]

    def test_words_that_extend_into_pauses_end_with_their_stretch(self) -> None:
        assert self.place((1.0, 2.0), (2.0, 3.9), (3.9, 4.5), (4.5, 12.0), (19.5, 20.5)) == [
            [(1.0, 2.0), (2.0, 3.0)],
            [(4.0, 4.5), (4.5, 6.0)],
            [(20.0, 20.5)],
        ]

    def test_a_word_across_a_pause_goes_where_it_is_longer(self) -> None:
        assert self.place((2.9, 4.5)) == [[], [(4.0, 4.5)], []]
        assert self.place((2.2, 4.1)) == [[(2.2, 3.0)], [], []]

    def test_a_word_that_lasts_until_the_end_of_the_window(self) -> None:
        # What Whisper says of the last word before it goes on at a time.
        assert self.place((2.8, 6.0), (4.0, 4.6)) == [[(2.8, 3.0)], [(4.0, 4.6)], []]
        # Nothing follows, and the next stretch is longer than the rest of the word's own.
        assert self.place((2.5, 22.0)) == [[(2.5, 3.0)], [], []]

    def test_words_beside_speech_stay_near_it_and_those_in_silence_go(self) -> None:
        assert self.place((0.2, 0.7), (6.3, 6.45), (9.0, 11.0), (18.0, 18.9), (19.2, 19.7)) == [
            [(0.5, 0.7)],
            [(6.3, 6.45)],
            [(19.5, 19.7)],
        ]

    def test_words_keep_their_order(self) -> None:
        # Whisper's alignment may put a word at a point of time, and several words at the same.
        assert self.place((4.2, 4.2), (2.0, 2.1), (4.2, 4.3)) == [
            [],
            [(4.2, 4.2), (4.2, 4.3)],
            [],
        ]


class TestOnceMore:
    def test_long_stretches_without_words(self) -> None:
        speech = ((0.0, 2.0), (3.0, 3.8), (5.0, 6.5))
        words = [Word("one", 0.0, 1.0)]
        assert list_doubtful([words, [], []], speech) == [2]
        assert list_doubtful([words, [], [Word("two", 5.0, 6.0)]], speech) == []
        assert list_doubtful([[]], ((0.0, 9.0),)) == []

    def test_all_if_the_words_repeat(self) -> None:
        speech = ((0.0, 2.0), (3.0, 9.0))
        words = [Word(" thank you", 0.0, 1.0)] * 12
        assert list_doubtful([words[:1], words[1:]], speech) == [0, 1]
        assert list_doubtful([words[:1], words[1:2]], speech) == []

    def test_speech_does_not_count_as_repetition(self) -> None:
        assert not repeats_itself(())
        assert not repeats_itself(["No,", "no,", "no,", "no,", "not", "that", "one!"])
        rhyme = "row row row your boat gently down the stream merrily merrily merrily merrily life"
        assert not repeats_itself(rhyme.split())

    def test_what_a_window_left_out_is_heard_by_itself(self) -> None:
        speech = ((1.0, 3.0), (4.0, 6.0), (7.0, 9.0))
        sizes: list[list[float]] = []

        def cut(sound: PartAudio) -> list[SoundClip]:
            return cut_windows(sound.audio, speech, 28.0)

        def recognise(waves: list[Float32]) -> list[list[Word]]:
            sizes.append([len(wave) / RATE for wave in waves])
            whole = [Word("first", 0.0, 1.0), Word("last.", 6.5, 8.0)]
            return [whole if len(w) > 3 * RATE else [Word("middle", 0.5, 1.5)] for w in waves]

        recogniser = Recogniser("fake", cut, recognise, lambda words: words, (ValueError,), 60.0)
        sounds = [PartAudio(noise(10.0), Part("audio"))] * 2
        for result in transcribe(sounds, recogniser):
            assert isinstance(result, tuple)
            (segment,) = result
            assert [(w.text, w.start_s, w.end_s) for w in segment.words] == [
                ("first", 1.0, 2.0),
                ("middle", 4.5, 5.5),
                ("last.", 7.5, 9.0),
            ]
        assert sizes == [[8.0, 8.0], [2.0, 2.0]]
