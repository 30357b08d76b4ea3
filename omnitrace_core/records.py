"""Small frozen records that all packages exchange; together they are the project's vocabulary.

Symbols, here and elsewhere: B samples in a batch, P prompt positions, n_gen generated tokens,
n_units source units of one sample. Times are seconds on the clock of the original file, boxes are
[x0, y0, x1, y1] in pixels of the original image (EXIF orientation applied), character offsets are
Python string offsets into the text of the part (or of the response).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.decoded_media import DecodedMedia
from omnitrace_core.positions import Positions

Modality = Literal["text", "image", "audio", "video"]
Float32 = NDArray[np.float32]
Box = tuple[float, float, float, float]

PART_TYPES: tuple[str, ...] = ("text", "image", "audio", "video")

UnitKind = Literal[
    "sentence",  # a sentence of a text part
    "text_part",  # a whole text part (units.text = part)
    "option",  # one option of a multiple-choice question
    "instruction",  # text that instructs rather than informs; never a source by default
    "image",  # a whole image
    "image_cell",  # one cell of an R x C grid over an image
    "audio_bin",  # a time bin of an audio part
    "audio_chunk",  # a stretch of speech in an audio part
    "video_bin",  # a temporal bin of a video's frames
    "sound_bin",  # a time bin of a video's sound
    "sound_chunk",  # a stretch of speech in a video's sound
]
SOUND_KINDS: frozenset[str] = frozenset({"sound_bin", "sound_chunk"})


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a speech segment with its times."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class SpeechSegment:
    """A stretch of speech, as a speech engine returns it or the sample itself gives it."""

    start_s: float
    end_s: float
    text: str = ""
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class SpeechChunk:
    """Neighbouring speech segments joined; one source unit where `units.audio` is chunks."""

    start_s: float
    end_s: float
    text: str = ""
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a video that is a list of pictures: its address or its inline bytes."""

    uri: str = ""
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class PartOptions:
    """Per-part media options (the names of qwen-omni-utils); None means the run's default.

    fps: frames sampled per second of a video file; of a list of frames, the rate of the list.
    """

    fps: float | None = None
    nframes: int | None = None
    min_frames: int | None = None
    max_frames: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    total_pixels: int | None = None
    video_start: float | None = None
    video_end: float | None = None
    audio_start: float | None = None
    audio_end: float | None = None
    audio_track: int | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of a message: text, or media by address (`uri`) or inline bytes (`data`).

    frames: of a video that is a list of pictures, in place of uri and data; frame i is shown from
    i / options.fps seconds on.
    """

    type: Modality
    text: str = ""
    uri: str = ""
    data: bytes | None = None
    evidence: bool = True
    options: PartOptions = PartOptions()
    segments: tuple[SpeechSegment, ...] | None = None
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One chat turn."""

    role: str
    content: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class LabelSource:
    """One piece of reference evidence; sources of one `group` are interchangeable."""

    modality: Modality
    part_index: int
    char_start: int | None = None
    char_end: int | None = None
    box: Box | None = None
    start_s: float | None = None
    end_s: float | None = None
    group: int | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """Reference evidence of one statement of the response."""

    statement: str
    char_start: int | None
    char_end: int | None
    sources: tuple[LabelSource, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One question to a model: messages, and the response if it is already known."""

    sample_id: str
    messages: tuple[Message, ...]
    response: str | None = None
    response_token_ids: tuple[int, ...] | None = None
    reference_answer: str | None = None
    options: tuple[str, ...] = ()
    labels: tuple[Label, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts in reading order; `part_index` everywhere counts in this tuple."""
        return tuple(part for message in self.messages for part in message.content)


@dataclass(frozen=True, slots=True)
class SourceUnit:
    """A contiguous piece of evidence the model saw (paper, Method: S_j).

    `unit_id` is the unit's index j in its sample. Fields that do not apply to the kind are None;
    `text` is the exact text in [char_start, char_end) for text kinds, `transcript` the words of a
    speech chunk.
    """

    unit_id: int
    kind: UnitKind
    modality: Modality
    part_index: int
    text: str = ""
    char_start: int | None = None
    char_end: int | None = None
    box: Box | None = None
    start_s: float | None = None
    end_s: float | None = None
    transcript: str = ""


@dataclass(frozen=True, slots=True)
class ReadySample:
    """A sample whose media are decoded and whose units are cut: the input of a backend.

    media: decoded media by part index; units: in `unit_id` order.
    """

    sample: Sample
    media: Mapping[int, DecodedMedia]
    units: tuple[SourceUnit, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fold:
    """One signal folded into source units (paper, Algorithm 1, line 7).

    mass: [n_gen, n_units] M[t, j], the sum of the signal over the positions of unit j.
    peak: [n_gen, n_units] K[t, j], its maximum over them.
    markup: [n_gen] mass on prompt positions of no unit that are not media; uncovered: [n_gen] on
    media positions of no unit; generated: [n_gen] on earlier tokens. All float32. For attention
    signals mass.sum(1) + markup + uncovered + generated = 1. uncovered is zeros if it is not
    given, and NaN in traces of older versions, whose markup contains it.
    """

    mass: Float32
    peak: Float32
    markup: Float32
    generated: Float32
    uncovered: Float32 = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.uncovered is None:
            object.__setattr__(self, "uncovered", np.zeros_like(self.markup))


@dataclass(frozen=True, slots=True)
class TokenTrace:
    """The trace of one response, token by token.

    token_ids, tokens, logprobs: n_gen entries.
    char_spans: [start, end) of each token in `response`.
    folds: by signal name. positions: the rows they were folded from, if those are kept.
    """

    response: str
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    char_spans: tuple[tuple[int, int], ...]
    logprobs: Float32
    finish_reason: Literal["stop", "length", "given"]
    n_prompt_tokens: int
    folds: Mapping[str, Fold]
    notes: tuple[str, ...] = ()
    positions: Positions | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """A sentence or clause of the response: characters and tokens are half-open ranges."""

    index: int
    text: str
    char_start: int
    char_end: int
    token_start: int
    token_end: int


@dataclass(frozen=True, slots=True)
class Segmentation:
    """A response cut into spans, with a part-of-speech tag per model token (n_gen entries)."""

    spans: tuple[Span, ...]
    pos: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """One unit that supports a span, with its numbers (see `attribution.curation`).

    The unit's fields are also properties of the source: `source.modality`, `source.start_s`.
    """

    unit: SourceUnit
    mass: float
    share: float
    run: float
    score: float
    rank: int

    @property
    def unit_id(self) -> int:
        """Index of the unit in its sample."""
        return self.unit.unit_id

    @property
    def kind(self) -> UnitKind:
        """The kind of the unit."""
        return self.unit.kind

    @property
    def modality(self) -> Modality:
        """Modality of the part it lies in."""
        return self.unit.modality

    @property
    def part_index(self) -> int:
        """The part it lies in."""
        return self.unit.part_index

    @property
    def text(self) -> str:
        """Text of a text unit."""
        return self.unit.text

    @property
    def char_start(self) -> int | None:
        """First character in the part's text."""
        return self.unit.char_start

    @property
    def char_end(self) -> int | None:
        """One past its last character."""
        return self.unit.char_end

    @property
    def box(self) -> Box | None:
        """[x0, y0, x1, y1] in pixels of the original image."""
        return self.unit.box

    @property
    def start_s(self) -> float | None:
        """Start in seconds of the original file."""
        return self.unit.start_s

    @property
    def end_s(self) -> float | None:
        """End in seconds of the original file."""
        return self.unit.end_s

    @property
    def transcript(self) -> str:
        """The words of a speech chunk."""
        return self.unit.transcript


@dataclass(frozen=True, slots=True)
class Attribution:
    """A span and the sources that support it.

    masses: POS-weighted mean mass per bucket: text, image, audio, video, instruction, markup,
    uncovered, generated; they add up to 1 for attention signals.
    """

    span: Span
    outcome: Literal["supported", "unsupported"]
    confidence: float
    masses: Mapping[str, float]
    sources: tuple[Source, ...]

    @property
    def text(self) -> str:
        """The span's text."""
        return self.span.text

    @property
    def char_start(self) -> int:
        """First character of the span in the response."""
        return self.span.char_start

    @property
    def char_end(self) -> int:
        """One past the span's last character."""
        return self.span.char_end
