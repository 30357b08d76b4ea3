"""The records of the planted world: parts, evidence, questions and samples.

Times are seconds from the start of the recording or clip, boxes [x0, y0, x1, y1] in pixels,
character offsets count in the text of the part (or of the response).
"""

from __future__ import annotations

from dataclasses import dataclass

from omnitrace_core.records import Box, LabelSource, Modality


@dataclass(frozen=True, slots=True)
class Text:
    """A text part. instructs: whether it is an instruction, which is never evidence."""

    text: str
    instructs: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """A coloured shape. quadrant: where it is (0-3, row by row); None for the whole picture."""

    kind: str
    colour: str
    quadrant: int | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """Shapes on a noisy background. seed: of the noise."""

    shapes: tuple[Shape, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Recording:
    """One named sound per second; None is a silent second. seed: of the background noise."""

    sounds: tuple[str | None, ...]
    seed: int


@dataclass(frozen=True, slots=True)
class Clip:
    """One shape (or none) per second, and optionally one sound per second. seed: of the noise."""

    shapes: tuple[Shape | None, ...]
    sounds: tuple[str | None, ...] | None
    seed: int


Part = Text | Picture | Recording | Clip


@dataclass(frozen=True, slots=True)
class Evidence:
    """One place in the input that an answer rests on.

    part: index of the part. chars, box, time: the place in it; None for all of it. group: places of
    one group carry the same fact, so any of them is enough. sound: the place is in a clip's sound.
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
        """As a label of a sample, which does not tell a video's frames from its sound."""
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
class Question:
    """A question with its answer in one sentence and all that the answer rests on.

    values: the words of the answer that can be known from the evidence alone.
    """

    text: str
    answer: str
    evidence: tuple[Evidence, ...]
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WorldSample:
    """A sample: its parts, then a prompt with one question or several.

    prompt: the questions as text, with the lines of the options if there are any. options: of a
    multiple-choice question, without their letters.
    """

    sample_id: str
    task: str
    parts: tuple[Part, ...]
    prompt: str
    questions: tuple[Question, ...]
    options: tuple[str, ...] = ()

    @property
    def prompt_parts(self) -> tuple[tuple[str, bool], ...]:
        """The prompt as text parts, and whether each is evidence: only options are."""
        questions, _, options = self.prompt.partition("\n")
        return ((questions, False), (f"\n{options}", True)) if options else ((questions, False),)

    @property
    def response(self) -> str:
        """The right response: one sentence per question."""
        return " ".join(question.answer for question in self.questions)
