"""Each second of each sound belongs to exactly one unit, whatever speech is found in it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from omnitrace_core.backends import load_backend
from omnitrace_core.backends.base import Backend
from omnitrace_core.decoded_media import DecodedAudio, DecodedMedia, DecodedVideo
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import AsrOptions, ModelOptions, UnitOptions
from omnitrace_core.positions import PositionKind, PromptMap
from omnitrace_core.reader import ReadingOptions, SampleReader
from omnitrace_core.records import (
    Message,
    Part,
    ReadySample,
    Sample,
    SourceUnit,
    SpeechChunk,
    SpeechSegment,
)
from omnitrace_core.units.assign import assign_units
from omnitrace_core.units.cut import build_units
from omnitrace_core.units.extents import Extent
from omnitrace_core.units.sound import cut_sound, place_chunks
from tests.core.ready_samples import sound, video

TOKEN_S = 0.04
Speech = Sequence[SpeechChunk]


def extent(kind: str, start_s: float, end_s: float) -> Extent:
    """A sound of its own, or that of a video whose frames are at 2.0 to 4.0 s."""
    if kind == "audio":
        return Extent("audio", 0, 0, start_s, end_s, (), (start_s, end_s))
    return Extent("video", 64, 64, 2.0, 4.0, (2.0, 3.0, 4.0), (start_s, end_s))


def positions(extent: Extent) -> PromptMap:
    """Audio tokens of 0.04 s over the whole sound, the last one shorter."""
    assert extent.sound is not None
    start_s, end_s = extent.sound
    n = max(1, math.ceil((end_s - start_s - 1e-9) / TOKEN_S))
    lo = start_s + np.arange(n, dtype=np.float64) * TOKEN_S
    stream = PositionKind.AUDIO if extent.kind == "audio" else PositionKind.SOUND
    return PromptMap(
        stream=np.full(n, stream, np.int8),
        part=np.zeros(n, np.int32),
        lo=lo,
        hi=np.minimum(lo + TOKEN_S, end_s),
        box=np.zeros((n, 4), np.float32),
    )


def sound_units(
    extent: Extent, speech: Speech, options: UnitOptions, evidence: bool = True
) -> tuple[list[SourceUnit], tuple[str, ...]]:
    """The units of the sound, and the notes."""
    part = Part(extent.kind, uri="x", evidence=evidence)
    sample = Sample("a", (Message("user", (part,)),))
    units, notes = build_units(sample, {0: extent}, {0: tuple(speech)}, lambda text: [], options)
    return [unit for unit in units if unit.kind != "video_bin"], notes


def check_tiles(extent: Extent, units: Sequence[SourceUnit]) -> None:
    """No hole, no overlap, none empty, and each position in the unit that holds most of it."""
    assert extent.sound is not None
    edges = [(unit.start_s, unit.end_s) for unit in units]
    starts, ends = [e[0] for e in edges], [e[1] for e in edges]
    assert (starts[0], ends[-1]) == extent.sound
    assert ends[:-1] == starts[1:]
    assert all(a is not None and b is not None and a < b for a, b in edges)
    prompt = positions(extent)
    numbered = [replace(unit, unit_id=j) for j, unit in enumerate(units)]
    index = assign_units(prompt, numbered)
    assert (index >= 0).all()
    assert (np.diff(index) >= 0).all()
    middle = np.searchsorted(np.asarray(starts, float), (prompt.lo + prompt.hi) / 2, "right") - 1
    halved = np.abs(np.asarray(starts, float)[index] - (prompt.lo + prompt.hi) / 2) < 1e-3
    ends_there = np.abs(np.asarray(ends, float)[index] - (prompt.lo + prompt.hi) / 2) < 1e-3
    # A unit within a position may lie on its middle and still hold less of it than another.
    small = np.array([b - a < TOKEN_S for a, b in edges])  # type: ignore[operator]
    plain = ~(halved | ends_there | np.isin(middle, np.flatnonzero(small)) | small[index])
    np.testing.assert_array_equal(index[plain], middle[plain])


def random_speech(rng: np.random.Generator, start_s: float, end_s: float) -> list[SpeechChunk]:
    """Chunks in any order that may overlap, be empty, lie outside the sound or touch its ends."""
    chunks = []
    for k in range(int(rng.integers(0, 7))):
        a = start_s + rng.uniform(-0.2, 1.1) * (end_s - start_s)
        length_s = rng.choice([0.0, 0.01, 0.3, 1.0, rng.uniform(0, end_s - start_s)])
        chunks.append(SpeechChunk(a, a + length_s, f"w{k}"))
    if chunks and rng.random() < 0.4:
        chunks[0] = replace(chunks[0], start_s=start_s)
    if chunks and rng.random() < 0.4:
        chunks[-1] = replace(chunks[-1], end_s=max(end_s, chunks[-1].start_s))
    for k in range(1, len(chunks)):
        # Chunks that touch, and pauses around the shortest that is a unit.
        if rng.random() < 0.3:
            at = chunks[k - 1].end_s + rng.choice([0.0, 0.05, 0.299, 0.3, 0.301])
            chunks[k] = SpeechChunk(at, at + 0.5, chunks[k].text)
    return chunks


def random_cases(n: int) -> Iterator[tuple[Extent, list[SpeechChunk], UnitOptions, bool]]:
    rng = np.random.default_rng(7)
    for _ in range(n):
        kind = str(rng.choice(["audio", "video"]))
        # Cut by audio_start, or the sound of a video before or after its frames.
        start_s = float(rng.choice([0.0, 1.3, 2.0, 2.8, 3599.96]))
        length_s = float(rng.choice([0.04, 0.2, 0.97, 1.0, 1.01, 3.0, rng.uniform(0.04, 12)]))
        options = UnitOptions(
            audio=str(rng.choice(["bins", "chunks"])),
            bin_s=float(rng.choice([0.02, 0.1, 0.25, 0.7, 1.0, 5.0, 60.0])),
        )
        speech = random_speech(rng, start_s, start_s + length_s)
        yield extent(kind, start_s, start_s + length_s), speech, options, rng.random() < 0.9


def test_every_second_of_every_sound_is_in_exactly_one_unit() -> None:
    seen = set()
    for case, speech, options, evidence in random_cases(600):
        units, notes = sound_units(case, speech, options, evidence)
        seen |= {unit.kind for unit in units}
        if not evidence:
            (unit,) = units
            assert case.sound is not None
            assert unit.start_s is not None
            assert unit.end_s is not None
            assert unit.start_s <= case.sound[0]
            assert unit.end_s >= case.sound[1]
            assert (assign_units(positions(case), [replace(unit, unit_id=0)]) == 0).all()
            continue
        check_tiles(case, units)
        check_bins(units, options.bin_s)
        check_speech(case, speech, units, notes, options)
    bins = {"audio_bin", "sound_bin"}
    assert seen == bins | {"audio_chunk", "sound_chunk", "instruction"}


def check_bins(units: Sequence[SourceUnit], bin_s: float) -> None:
    """Bins are no longer than asked for but by a remainder, and have no transcript."""
    for unit in units:
        if unit.kind in ("audio_bin", "sound_bin"):
            assert unit.transcript == ""
            assert unit.start_s is not None
            assert unit.end_s is not None
            most_s = bin_s + max(TOKEN_S, min(0.3, bin_s / 2))
            assert unit.end_s - unit.start_s <= most_s + 1e-6


def check_speech(
    case: Extent,
    speech: Speech,
    units: Sequence[SourceUnit],
    notes: Sequence[str],
    options: UnitOptions,
) -> None:
    """Speech lies in chunks, which are longer than it by short pauses; no word is lost unsaid, and
    each is where most of it was spoken."""
    chunks = [unit for unit in units if unit.kind in ("audio_chunk", "sound_chunk")]
    if options.audio == "bins":
        assert not chunks
        assert notes == ()
        return
    assert case.sound is not None
    inside = [
        (max(c.start_s, case.sound[0]), min(c.end_s, case.sound[1]), c.text)
        for c in speech
        if max(c.start_s, case.sound[0]) < min(c.end_s, case.sound[1])
    ]
    said = sorted(word for unit in chunks for word in unit.transcript.split())
    assert said == sorted(text for _, _, text in inside)
    assert any("left out" in note for note in notes) == (len(inside) < len(speech))
    assert any("no speech found" in note for note in notes) == (not chunks)
    for start_s, end_s, text in inside:
        shared_s = [min(end_s, u.end_s or 0) - max(start_s, u.start_s or 0) for u in units]
        (place,) = [j for j, unit in enumerate(units) if text in unit.transcript.split()]
        assert shared_s[place] > max(shared_s) - 1e-5
        assert all(u in chunks or s < 1e-5 for u, s in zip(units, shared_s, strict=True))
    cut = [
        c
        for c in speech
        if max(c.start_s, case.sound[0]) < min(c.end_s, case.sound[1])
        and (c.start_s < case.sound[0] - 0.1 or c.end_s > case.sound[1] + 0.1)
    ]
    assert any("its transcript is whole" in note for note in notes) == bool(cut)
    lengths = sum((u.end_s or 0) - (u.start_s or 0) for u in chunks)
    spoken = _length_of_union([(a, b) for a, b, _ in inside])
    assert spoken - 1e-5 <= lengths <= spoken + 0.3 * (len(chunks) + 1)


def _length_of_union(intervals: list[tuple[float, float]]) -> float:
    total, reached = 0.0, -math.inf
    for start_s, end_s in sorted(intervals):
        total += max(0.0, end_s - max(start_s, reached))
        reached = max(reached, end_s)
    return total


@pytest.mark.parametrize(
    ("speech", "bin_s", "expected"),
    [
        ([], 1.0, ["0-1", "1-2", "2-3"]),
        ([(1.0, 1.4)], 1.0, ["0-1", "*1-1.4", "1.4-2.4", "2.4-3"]),
        ([(0.0, 1.0), (2.5, 3.0)], 1.0, ["*0-1", "1-2", "2-2.5", "*2.5-3"]),
        # A remainder of at most 0.3 s and half a bin joins the bin before it.
        ([(2.2, 3.0)], 1.0, ["0-1", "1-2.2", "*2.2-3"]),
        ([(1.55, 3.0)], 0.5, ["0-0.5", "0.5-1", "1-1.55", "*1.55-3"]),
        ([(1.26, 3.0)], 0.5, ["0-0.5", "0.5-1", "1-1.26", "*1.26-3"]),
        # Short pauses join the chunk before them, or the first chunk.
        ([(0.2, 1.0), (1.25, 2.0), (2.0, 2.8)], 1.0, ["*0-1.25", "*1.25-2", "*2-3"]),
        ([(0.2, 1.0), (1.25, 2.0), (2.0, 2.8)], 0.1, ["*0-1.25", "*1.25-2", "*2-3"]),
        ([(0.5, 2.5)], 60.0, ["0-0.5", "*0.5-2.5", "2.5-3"]),
        # Overlapping, within another, empty, outside.
        ([(0.5, 1.5), (1.0, 2.0)], 1.0, ["0-0.5", "*0.5-1.5", "*1.5-2", "2-3"]),
        ([(0.5, 2.5), (1.0, 2.0)], 1.0, ["0-0.5", "*0.5-2.5", "2.5-3"]),
        ([(1.0, 1.0), (5.0, 6.0)], 1.0, ["0-1", "1-2", "2-3"]),
        ([(-1.0, 9.0)], 1.0, ["*0-3"]),
    ],
)  # fmt: skip
def test_gaps_become_bins(
    speech: list[tuple[float, float]], bin_s: float, expected: list[str]
) -> None:
    chunks, _ = place_chunks((0.0, 3.0), [SpeechChunk(*edges, "x") for edges in speech])
    pieces = cut_sound((0.0, 3.0), chunks, bin_s)
    shown = [
        f"{'' if p.transcript is None else '*'}{round(p.start_s, 6):g}-{round(p.end_s, 6):g}"
        for p in pieces
    ]
    assert shown == expected


def test_changes_of_speech_are_noted() -> None:
    given = [(0.5, 1.5, "a"), (1.0, 2.0, "b"), (1.2, 1.4, "c"), (4.0, 5.0, "d"), (2.5, 2.5, "e")]
    chunks = [SpeechChunk(*item) for item in given]
    units, notes = sound_units(extent("audio", 0.0, 3.0), chunks, UnitOptions(audio="chunks"))
    assert [unit.transcript for unit in units] == ["", "a c", "b", ""]
    assert notes == (
        "part 0: speech chunks overlap; each begins where the one before it ends",
        "part 0: speech without length within the sound is left out",
    )


def test_units_cut_from_units_are_the_same() -> None:
    """Stored units are cut again without a new search for speech."""
    for case, speech, options, _ in random_cases(200):
        chunks = options.model_copy(update={"audio": "chunks"})
        units, _ = sound_units(case, speech, chunks)
        stored = [
            SpeechChunk(unit.start_s or 0.0, unit.end_s or 0.0, unit.transcript)
            for unit in units
            if unit.kind in ("audio_chunk", "sound_chunk")
        ]
        again, notes = sound_units(case, stored, chunks)
        assert again == units
        assert not any("overlap" in note or "left out" in note for note in notes)


def shifted(media: DecodedAudio, start_s: float) -> DecodedAudio:
    return replace(media, start_s=start_s, duration_s=start_s + 30.0)


def given_ready(
    media: DecodedMedia, segments: Sequence[tuple[float, float]], bin_s: float, evidence: bool
) -> ReadySample:
    """Ready with the segments of its own part, by the engine `given`."""
    kind = "video" if isinstance(media, DecodedVideo) else "audio"
    spoken = tuple(SpeechSegment(*edges, f"w{k}") for k, edges in enumerate(segments))
    part = Part(kind, uri="memory://0", segments=spoken, evidence=evidence)  # type: ignore[arg-type]
    sample = Sample("a", (Message("user", (part, Part("text", text="What is said?"))),))
    options = UnitOptions(audio="chunks", bin_s=bin_s)
    asr = AsrOptions(engine="given")
    reader = SampleReader(ReadingOptions(MediaRules(), units=options, asr=asr))
    return reader.make_ready(sample, {0: media}, reader.find_speech(sample, {0: media}))


@pytest.fixture(scope="module")
def backend(tiny_model: str) -> Backend:
    return load_backend(ModelOptions(path=tiny_model, device="cpu"))


MEDIA: dict[str, DecodedMedia] = {
    "audio": sound(1, 3.013),
    "cut": shifted(sound(2, 2.5), 4.5),  # audio_start, audio_end
    "short": sound(3, 0.05),
    "video": video(4),
    "late": replace(video(5), sound=shifted(sound(5, 2.0), 1.37)),
    "early": replace(
        video(6),
        start_s=1.0,
        end_s=5.0,
        frame_times_s=1.0 + np.arange(8) / 2,
        sound=shifted(sound(6, 4.5), 0.25),
    ),
}


@pytest.mark.parametrize("kind", MEDIA)
@pytest.mark.parametrize("bin_s", [0.2, 1.0])
def test_every_position_of_the_backend_has_a_unit(
    backend: Backend, kind: str, bin_s: float
) -> None:
    media = MEDIA[kind]
    track = media.sound if isinstance(media, DecodedVideo) else media
    assert isinstance(track, DecodedAudio)
    begin_s, length_s = track.start_s, len(track.waveform) / track.sample_rate
    for speech in ([], [(0.51, 0.53)], [(0.0, 0.77), (0.9, 1.413)], [(1.1, length_s)]):
        segments = [(begin_s + a, begin_s + b) for a, b in speech if a < b <= length_s]
        for evidence in (True, False):
            ready = given_ready(media, segments, bin_s, evidence)
            encoded = backend.encode(ready)
            assert (encoded.unit_index[encoded.prompt.is_media] >= 0).all()
            assert not any("lie in no unit" in note for note in encoded.notes)
            sounding = [unit for unit in ready.units if unit.kind.startswith(("audio", "sound"))]
            for left, right in pairwise(sounding):
                assert left.end_s == right.start_s
