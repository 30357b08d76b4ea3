"""Transcribe several sounds with a model that takes clips of speech in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter

from omnitrace_core.asr.engines.base import (
    PartAudio,
    SpeechResult,
    as_speech_error,
    raise_if_device_broken,
)
from omnitrace_core.asr.engines.sound import SoundClip, decoded_end_s, resample
from omnitrace_core.asr.engines.windows import list_doubtful, place_words
from omnitrace_core.asr.engines.words import split_sentences, tidy_words
from omnitrace_core.errors import SpeechError
from omnitrace_core.records import Float32, Word

# Takes waveforms at 16 kHz; returns the words of each, with times from the start of the waveform.
Recognise = Callable[[list[Float32]], list[list[Word]]]


@dataclass(frozen=True, slots=True)
class Recogniser:
    """The steps of an engine that transcribes, and the sizes of its batches.

    name: the engine, in messages.
    cut: the clips of speech in a sound at 16 kHz.
    recognise: the words of each clip.
    punctuate: takes all words of a sound, returns them with punctuation.
    input_errors: exceptions of the library that concern a single sound.
    batch_s: most seconds of padded speech in one batch.
    window_s: the least length to which the model pads each clip, in seconds.
    """

    name: str
    cut: Callable[[PartAudio], list[SoundClip]]
    recognise: Recognise
    punctuate: Callable[[list[Word]], list[Word]]
    input_errors: tuple[type[Exception], ...]
    batch_s: float
    window_s: float = 0.0


def transcribe(sounds: Sequence[PartAudio], recogniser: Recogniser) -> list[SpeechResult]:
    """The sentences of each sound, or its error.

    Clips of similar length share a batch, whichever sounds they come from.

    Raises:
        FatalError: the device is broken, or a model cannot be loaded.
    """
    errors: dict[int, SpeechError] = {}
    clips: list[SoundClip] = []
    # The index of the sound that each clip comes from.
    clip_sounds: list[int] = []
    for number, sound in enumerate(sounds):
        try:
            sound_clips = recogniser.cut(PartAudio(resample(sound.audio), sound.part))
        except SpeechError as error:
            errors[number] = error
        except recogniser.input_errors as error:
            errors[number] = as_speech_error(recogniser.name, sound.part, error)
        else:
            clips += sound_clips
            clip_sounds += [number] * len(sound_clips)
    sound_words = _hear(sounds, clips, clip_sounds, recogniser, errors)
    return [
        errors[number] if number in errors else _segments(sound, sound_words[number], recogniser)
        for number, sound in enumerate(sounds)
    ]


def _hear(
    sounds: Sequence[PartAudio],
    clips: Sequence[SoundClip],
    clip_sounds: Sequence[int],
    recogniser: Recogniser,
    errors: dict[int, SpeechError],
) -> list[list[Word]]:
    """The words of each sound; doubtful stretches of windows are transcribed once more."""
    # Of each sound: where a stretch starts, and its words.
    pieces: list[list[tuple[float, list[Word]]]] = [[] for _ in sounds]
    again: list[SoundClip] = []
    again_sounds: list[int] = []
    clip_words = _recognise_all(sounds, clips, clip_sounds, recogniser, errors)
    for number, clip, words in zip(clip_sounds, clips, clip_words, strict=True):
        if not clip.speech:
            pieces[number].append((clip.start_s, words))
            continue
        placed = place_words(words, clip.speech)
        doubtful = list_doubtful(placed, clip.speech)
        for index, (start_s, end_s) in enumerate(clip.speech):
            if index in doubtful:
                again.append(clip.part(start_s, end_s))
                again_sounds.append(number)
            else:
                pieces[number].append((start_s, placed[index]))
    again_words = _recognise_all(sounds, again, again_sounds, recogniser, errors)
    for number, clip, words in zip(again_sounds, again, again_words, strict=True):
        pieces[number].append((clip.start_s, words))
    return [
        [word for _, words in sorted(of_sound, key=itemgetter(0)) for word in words]
        for of_sound in pieces
    ]


def _recognise_all(
    sounds: Sequence[PartAudio],
    clips: Sequence[SoundClip],
    clip_sounds: Sequence[int],
    recogniser: Recogniser,
    errors: dict[int, SpeechError],
) -> list[list[Word]]:
    """The words of each clip, in seconds of the original file.

    A batch that fails is halved and tried again: a clip that cannot be transcribed fails only its
    own sound, whose error is added to `errors`, and a lack of memory costs only time.
    """
    words: list[list[Word]] = [[] for _ in clips]
    lengths_s = [clip.length_s for clip in clips]
    pending = make_batches(lengths_s, recogniser.batch_s, recogniser.window_s)[::-1]
    while pending:
        batch = [index for index in pending.pop() if clip_sounds[index] not in errors]
        if not batch:
            continue
        try:
            # Copies, because models write into their input and Arrow's memory is read-only.
            results = recogniser.recognise([clips[index].waveform.copy() for index in batch])
        except recogniser.input_errors as error:
            if len(batch) > 1:
                raise_if_device_broken(recogniser.name, error)
                pending += [batch[len(batch) // 2 :], batch[: len(batch) // 2]]
            else:
                number = clip_sounds[batch[0]]
                errors[number] = as_speech_error(recogniser.name, sounds[number].part, error)
            continue
        for index, clip_words in zip(batch, results, strict=True):
            words[index] = [_in_file_time(word, clips[index]) for word in clip_words]
    return words


def _in_file_time(word: Word, clip: SoundClip) -> Word:
    """A word of a clip, in seconds of the file; models return times slightly outside the clip."""
    start_s, end_s = (min(max(at_s, 0.0), clip.length_s) for at_s in (word.start_s, word.end_s))
    return Word(word.text, clip.start_s + start_s, clip.start_s + end_s)


def _segments(sound: PartAudio, words: list[Word], recogniser: Recogniser) -> SpeechResult:
    try:
        words = recogniser.punctuate(words)
    except recogniser.input_errors as error:
        return as_speech_error(recogniser.name, sound.part, error)
    return split_sentences(tidy_words(words, sound.audio.start_s, decoded_end_s(sound.audio)))


def make_batches(
    lengths_s: Sequence[float], batch_s: float, window_s: float = 0.0
) -> list[list[int]]:
    """Group clips of similar length into batches of at most `batch_s` seconds after padding.

    lengths_s: the length of each clip in seconds. window_s: the least length to which each clip is
    padded. Returns the indices of the clips of each batch; a longer clip is a batch by itself.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths_s)), key=lambda i: (lengths_s[i], i)):
        padded_s = max(lengths_s[index], window_s)
        if batches and padded_s * (len(batches[-1]) + 1) <= batch_s:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
