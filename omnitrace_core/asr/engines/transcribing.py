"""Words of several sounds from a model that hears stretches of speech in batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from omnitrace_core.asr.engines.base import Heard, Sound, as_speech_error, check_device
from omnitrace_core.asr.engines.sound import Piece, end_of, resampled
from omnitrace_core.asr.engines.words import sentences, tidy_words
from omnitrace_core.errors import SpeechError
from omnitrace_core.records import Float32, Word

# Waveforms at 16 kHz in, the words of each out, on its own clock.
Recognise = Callable[[list[Float32]], list[list[Word]]]


@dataclass(frozen=True, slots=True)
class Recogniser:
    """A model, and how it is fed.

    cut: the stretches of speech in a sound at 16 kHz. punctuate: the words of a sound, once they
    are all known. faults: what is raised on a sound that no sense can be made of. batch_s: most
    seconds of padded speech in one batch. window_s: what each stretch is padded to at least.
    """

    name: str
    cut: Callable[[Sound], list[Piece]]
    recognise: Recognise
    punctuate: Callable[[list[Word]], list[Word]]
    faults: tuple[type[Exception], ...]
    batch_s: float
    window_s: float = 0.0


def transcribe(sounds: Sequence[Sound], recogniser: Recogniser) -> list[Heard]:
    """The sentences of each sound, or its error in their place.

    Stretches of like lengths share batches, whichever sounds they are of.

    Raises:
        FatalError: the device is broken, or a model cannot be loaded.
    """
    errors: dict[int, SpeechError] = {}
    pieces: list[Piece] = []
    owners: list[int] = []
    for number, sound in enumerate(sounds):
        try:
            cut = recogniser.cut(Sound(resampled(sound.audio), sound.part))
        except SpeechError as error:
            errors[number] = error
        except recogniser.faults as error:
            errors[number] = as_speech_error(recogniser.name, sound.part, error)
        else:
            pieces += cut
            owners += [number] * len(cut)
    words = _recognise_all(sounds, pieces, owners, recogniser, errors)
    said: list[list[Word]] = [[] for _ in sounds]
    for owner, spoken in zip(owners, words, strict=True):
        said[owner] += spoken
    return [
        errors[number] if number in errors else _sentences(sound, said[number], recogniser)
        for number, sound in enumerate(sounds)
    ]


def _recognise_all(
    sounds: Sequence[Sound],
    pieces: Sequence[Piece],
    owners: Sequence[int],
    recogniser: Recogniser,
    errors: dict[int, SpeechError],
) -> list[list[Word]]:
    """The words of each piece on the clock of its file; a sound's failure goes to `errors`.

    owners: which sound each piece is of. A batch that fails is halved and tried again, so that a
    piece that cannot be heard costs its own sound alone, and memory that is short a little time.
    """
    words: list[list[Word]] = [[] for _ in pieces]
    lengths_s = [piece.length_s for piece in pieces]
    todo = make_batches(lengths_s, recogniser.batch_s, recogniser.window_s)[::-1]
    while todo:
        batch = [index for index in todo.pop() if owners[index] not in errors]
        if not batch:
            continue
        try:
            # Copies: models write into what they are given, and Arrow's memory is read-only.
            heard = recogniser.recognise([pieces[index].waveform.copy() for index in batch])
        except recogniser.faults as error:
            if len(batch) > 1:
                check_device(recogniser.name, error)
                todo += [batch[len(batch) // 2 :], batch[: len(batch) // 2]]
            else:
                owner = owners[batch[0]]
                errors[owner] = as_speech_error(recogniser.name, sounds[owner].part, error)
            continue
        for index, spoken in zip(batch, heard, strict=True):
            words[index] = [_placed(word, pieces[index]) for word in spoken]
    return words


def _placed(word: Word, piece: Piece) -> Word:
    """A word of a piece, on the clock of the file; models tell times a little outside of theirs."""
    start_s, end_s = (min(max(at, 0.0), piece.length_s) for at in (word.start_s, word.end_s))
    return Word(word.text, piece.start_s + start_s, piece.start_s + end_s)


def _sentences(sound: Sound, words: list[Word], recogniser: Recogniser) -> Heard:
    try:
        words = recogniser.punctuate(words)
    except recogniser.faults as error:
        return as_speech_error(recogniser.name, sound.part, error)
    return sentences(tidy_words(words, sound.audio.start_s, end_of(sound.audio)))


def make_batches(
    lengths_s: Sequence[float], batch_s: float, window_s: float = 0.0
) -> list[list[int]]:
    """Indices in batches of like lengths, each at most `batch_s` seconds once padded, or one.

    window_s: what each is padded to at least.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths_s)), key=lambda i: (lengths_s[i], i)):
        padded_s = max(lengths_s[index], window_s)
        if batches and padded_s * (len(batches[-1]) + 1) <= batch_s:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
