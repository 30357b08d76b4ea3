"""What a sample of the world is made of, before it becomes files or tensors.

Times are seconds from the start of the recording or clip, boxes [x0, y0, x1, y1] in pixels,
character offsets count in the text of the part (or of the response).
"""

from __future__ import annotations

from dataclasses import dataclass

from omnitrace_core.records import Box, LabelSource, Modality


@dataclass(frozen=True, slots=True)
class Text:
    """A text part. instructs: whether it names what follows, or rules, and is no evidence."""

    text: str
    instructs: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """A coloured shape that fills most of one quadrant (0-3, row by row), or (None) the middle."""

    kind: str
    colour: str
    quadrant: int | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """Shapes on noise. seed: of the noise."""

    shapes: tuple[Shape, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Recording:
    """One sound a second, by name; None is a silent second. seed: of the background noise."""

    sounds: tuple[str | None, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Clip:
    """One shape (or none) a second on noise, and perhaps a recording of the same length."""

    shapes: tuple[Shape | None, ...]
    sounds: tuple[str | None, ...] | None
    seed: int


Part = Text | Picture | Recording | Clip


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing that an answer rests on. Items of one `group` carry the same fact: any will do.

    sound: of a clip, whether it is heard rather than seen.
    """

    part: int
    modality: Modality
    chars: tuple[int, int] | None = None
    box: Box | None = None
    time: tuple[float, float] | None = None
    group: int | None = None
    sound: bool = False

    @property
    def label(self) -> LabelSource:
        """As a label of a sample says it: which of a video's streams it is in is left out."""
        (char_start, char_end) = self.chars or (None, None)
        (start_s, end_s) = self.time or (None, None)
        return LabelSource(
            modality=self.modality,
            part_index=self.part,
            char_start=char_start,
            char_end=char_end,
            box=self.box,
            start_s=start_s,
            end_s=end_s,
            group=self.group,
        )


@dataclass(frozen=True, slots=True)
class Ask:
    """A question and its answer in one sentence, with all that the answer rests on.

    values: the words of the answer that only the evidence tells.
    """

    question: str
    answer: str
    evidence: tuple[Evidence, ...]
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WorldSample:
    """A sample: its parts, then what asks (`asked`); the answers in asked order.

    options: of a multiple-choice question, without their letters.
    """

    sample_id: str
    task: str
    parts: tuple[Part, ...]
    question: str
    asks: tuple[Ask, ...]
    options: tuple[str, ...] = ()

    @property
    def asked(self) -> tuple[tuple[str, bool], ...]:
        """The text parts that ask, and whether each is evidence: the options are."""
        question, _, options = self.question.partition("\n")
        return ((question, False), (f"\n{options}", True)) if options else ((question, False),)

    @property
    def response(self) -> str:
        """The right response: one sentence per ask."""
        return " ".join(ask.answer for ask in self.asks)
