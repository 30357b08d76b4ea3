"""Make the parts of a sample and the questions that they answer.

Each function adds parts to a `SampleBuilder` and returns questions in the order of their evidence;
tasks choose among them and shuffle. All randomness comes from the builder's generator.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random

from omnitrace_core.records import Modality
from training.world.lexicon import (
    COLOURS,
    NAMES,
    NUMBERS,
    OBJECTS,
    PLACES,
    SHAPES,
    SOUNDS,
)
from training.world.rendering import quadrant_box
from training.world.samples import (
    Clip,
    Evidence,
    Part,
    Picture,
    Question,
    Recording,
    Shape,
    Text,
)


@dataclass(slots=True)
class SampleBuilder:
    """A sample that is being made: its parts so far, and the words that they use.

    rng: source of all randomness of the sample.
    """

    rng: Random
    parts: list[Part] = field(default_factory=list)
    used_words: set[str] = field(default_factory=set)

    def add(self, part: Part) -> int:
        """Append a part; returns its index."""
        self.parts.append(part)
        return len(self.parts) - 1

    def pick(self, words: tuple[str, ...], n: int) -> list[str]:
        """`n` different words that no other part of the sample uses.

        Raises:
            ValueError: there are fewer than `n` left.
        """
        free = [word for word in words if word not in self.used_words]
        if n > len(free):
            raise ValueError(
                f"the sample needs {n} words of the list {words[0]}, {words[1]}, ..., of which "
                f"{len(free)} are unused; choose a lower level"
            )
        chosen = self.rng.sample(free, n)
        self.used_words.update(chosen)
        return chosen

    def seed(self) -> int:
        """A seed for one part's noise."""
        return self.rng.randrange(2**31)


@dataclass(frozen=True, slots=True)
class Fact:
    """Who brought which thing to which place, and the sentence that says so."""

    name: str
    thing: str
    place: str
    evidence: Evidence

    @property
    def sentence(self) -> str:
        """The fact as a sentence of the text."""
        return f"{self.name} brought the {self.thing} to the {self.place}."


def facts(builder: SampleBuilder, n: int, places: list[str] | None = None) -> list[Fact]:
    """Add a text part of `n` facts, one sentence each. places: of the things; None for any."""
    names, things = builder.pick(NAMES, n), builder.pick(OBJECTS, n)
    places = places or builder.pick(PLACES, n)
    added: list[Fact] = []
    start, index = 0, len(builder.parts)
    for name, thing, place in zip(names, things, places, strict=True):
        length = len(f"{name} brought the {thing} to the {place}.")
        evidence = Evidence(index, "text", chars=(start, start + length))
        added.append(Fact(name, thing, place, evidence))
        start += length + 1
    builder.add(Text(" ".join(fact.sentence for fact in added)))
    return added


def where(fact: Fact) -> Question:
    """Where a thing is."""
    answer = f"The {fact.thing} is in the {fact.place}."
    return Question(f"Where is the {fact.thing}?", answer, (fact.evidence,), (fact.place,))


def who(fact: Fact) -> Question:
    """Who brought a thing to its place."""
    answer = f"The {fact.thing} came from {fact.name}."
    return Question(f"Who brought the {fact.thing}?", answer, (fact.evidence,), (fact.name,))


def summary(fact: Fact) -> Question:
    """What one person did, in one sentence."""
    values = (fact.thing, fact.place)
    return Question(f"Tell of {fact.name}.", fact.sentence, (fact.evidence,), values)


def where_both(first: Fact, second: Fact) -> Question:
    """Where two things are, in one sentence: the answer rests on both facts."""
    text = f"Where are the {first.thing} and the {second.thing}?"
    answer = (
        f"The {first.thing} is in the {first.place} and the {second.thing} in the {second.place}."
    )
    evidence = (first.evidence, second.evidence)
    return Question(text, answer, evidence, (first.place, second.place))


def same_place(first: Fact, second: Fact) -> Question:
    """Whether two things are in one place: the answer rests on both sentences."""
    pair = f"the {first.thing} and the {second.thing}"
    same = first.place == second.place
    value = "together" if same else "apart"
    evidence = (first.evidence, second.evidence)
    answer = f"{pair[0].upper()}{pair[1:]} are {value}."
    return Question(f"Are {pair} together?", answer, evidence, (value,))


def count_in(place: str, all_facts: list[Fact]) -> Question:
    """How many things are in a place: the answer rests on every sentence that names it."""
    evidence = tuple(fact.evidence for fact in all_facts if fact.place == place)
    number = NUMBERS[len(evidence)]
    answer = f"In the {place} there are {number} things."
    return Question(f"How many things are in the {place}?", answer, evidence, (number,))


def pictures(builder: SampleBuilder, n: int) -> list[Question]:
    """Add `n` pictures, each of another shape and colour; of noise alone when shapes run out."""
    shown = _pictures(builder, [""] * n)
    return [_colour_of(kind, colour, evidence) for _, kind, colour, evidence in shown]


def whose_picture(builder: SampleBuilder, n: int) -> list[Question]:
    """Add `n` pictures, each after a line with a name; questions ask whose picture shows a shape.

    The answer rests on the picture and on the line before it.
    """
    names = builder.pick(NAMES, n)
    return [
        Question(
            f"Who brought the {kind}?",
            f"The {kind} came from {name}.",
            (_line_before(builder, evidence), evidence),
            (name,),
        )
        for name, kind, _, evidence in _pictures(builder, names)
    ]


def _pictures(builder: SampleBuilder, names: Sequence[str]) -> list[tuple[str, str, str, Evidence]]:
    """Add pictures of one shape each; returns name, shape, colour and evidence of each.

    names: who brought each picture, written in a line before it; empty for no line. Pictures beyond
    the number of shapes show noise alone and are left out of what is returned.
    """
    added = []
    for name, shapes in zip(names, _one_each(builder, len(names)), strict=True):
        if name:
            builder.add(Text(f"The picture from {name}:"))
        index = builder.add(Picture(shapes, builder.seed()))
        added += [(name, shape.kind, shape.colour, Evidence(index, "image")) for shape in shapes]
    return added


def _line_before(builder: SampleBuilder, picture: Evidence) -> Evidence:
    """The whole text part before a picture."""
    line = builder.parts[picture.part - 1]
    assert isinstance(line, Text)
    return Evidence(picture.part - 1, "text", chars=(0, len(line.text)))


def _one_each(builder: SampleBuilder, n: int) -> list[tuple[Shape, ...]]:
    """What `n` pictures show: each another shape, or nothing when shapes run out."""
    free = sum(kind not in builder.used_words for kind in SHAPES)
    kinds = builder.pick(SHAPES, min(n, free))
    colours = builder.pick(tuple(COLOURS), len(kinds))
    shown: list[tuple[Shape, ...]] = [(Shape(*pair),) for pair in zip(kinds, colours, strict=True)]
    shown += [()] * (n - len(shown))
    builder.rng.shuffle(shown)
    return shown


def regions(builder: SampleBuilder, n: int) -> list[Question]:
    """Add one picture of `n` shapes, each in another quadrant."""
    kinds, colours = builder.pick(SHAPES, n), builder.pick(tuple(COLOURS), n)
    quadrants = builder.rng.sample(range(4), n)
    shapes = tuple(map(Shape, kinds, colours, quadrants))
    index = builder.add(Picture(shapes, builder.seed()))
    return [
        _colour_of(
            shape.kind,
            shape.colour,
            Evidence(index, "image", box=quadrant_box(quadrant)),
        )
        for shape, quadrant in zip(shapes, quadrants, strict=True)
    ]


def count_shapes(builder: SampleBuilder, n: int) -> list[Question]:
    """Add `n` pictures, some of the same shape: how many show it rests on all that do."""
    kinds = [builder.rng.choice(SHAPES[:3]) for _ in range(n)]
    builder.used_words.update(kinds)
    colours = builder.pick(tuple(COLOURS), n)
    shown = [
        (kind, builder.add(Picture((Shape(kind, colour),), builder.seed())))
        for kind, colour in zip(kinds, colours, strict=True)
    ]
    questions = []
    for kind, count in sorted(Counter(kinds).items()):
        evidence = tuple(Evidence(index, "image") for name, index in shown if name == kind)
        answer = f"The number of pictures with a {kind} is {NUMBERS[count]}."
        text = f"How many pictures show a {kind}?"
        questions.append(Question(text, answer, evidence, (NUMBERS[count],)))
    return questions


def conflict(builder: SampleBuilder, n: int) -> list[Question]:
    """Add a caption and a picture that disagree on a colour, and a rule which of them to trust.

    `n` other pictures stand among them; the order of all is random.
    """
    kind, (caption_colour, shown_colour) = (
        builder.pick(SHAPES, 1)[0],
        builder.pick(tuple(COLOURS), 2),
    )
    trusts_text = builder.rng.random() < 0.5
    builder.add(Text(f"Trust the {'caption' if trusts_text else 'picture'}.", instructs=True))
    caption = f" The {kind} is {caption_colour}."
    parts: list[Part] = [Text(caption), Picture((Shape(kind, shown_colour),), builder.seed())]
    parts += [Picture(shapes, builder.seed()) for shapes in _one_each(builder, n)]
    order = builder.rng.sample(range(len(parts)), len(parts))
    indexes = {place: builder.add(parts[place]) for place in order}
    if trusts_text:
        evidence = Evidence(indexes[0], "text", chars=(1, len(caption)))
        return [_colour_of(kind, caption_colour, evidence)]
    return [_colour_of(kind, shown_colour, Evidence(indexes[1], "image"))]


def recording(builder: SampleBuilder, n: int) -> list[Question]:
    """Add `n` different sounds, a second each: what sounded after another rests on both."""
    sounds = builder.pick(SOUNDS, n)
    index = builder.add(Recording(tuple(sounds), builder.seed()))
    return _after_sounds(sounds, index, "audio")


def clip(builder: SampleBuilder, n: int, sound: bool) -> list[Question]:
    """Add a clip of `n` shapes, a second each; with sound, also one sound in each second."""
    kinds = builder.pick(SHAPES, min(n, len(SHAPES)))
    colours = builder.pick(tuple(COLOURS), len(kinds))
    # A shape that is shown again later carries the same fact twice: a group.
    order = kinds + [builder.rng.choice(kinds) for _ in range(n - len(kinds))]
    builder.rng.shuffle(order)
    colour_of = dict(zip(kinds, colours, strict=True))
    shapes = tuple(Shape(kind, colour_of[kind]) for kind in order)
    sounds = tuple(builder.pick(SOUNDS, n)) if sound else None
    index = builder.add(Clip(shapes, sounds, builder.seed()))
    times = Counter(order)
    questions = [
        _colour_of(
            kind,
            colour_of[kind],
            *(
                Evidence(index, "video", time=(k, k + 1), group=0 if times[kind] > 1 else None)
                for k, shown in enumerate(order)
                if shown == kind
            ),
        )
        for kind in kinds
    ]
    for k, kind in enumerate(order):
        if sounds is not None and times[kind] == 1:
            questions.append(_sounded_with(kind, sounds[k], index, k))
    return questions


def _colour_of(kind: str, colour: str, *evidence: Evidence) -> Question:
    return Question(f"What colour is the {kind}?", f"The {kind} is {colour}.", evidence, (colour,))


def _after_sounds(sounds: list[str], index: int, modality: Modality) -> list[Question]:
    return [
        Question(
            f"What sounded after the {before}?",
            f"After the {before} came the {after}.",
            (
                Evidence(index, modality, time=(k, k + 1)),
                Evidence(index, modality, time=(k + 1, k + 2)),
            ),
            (after,),
        )
        for k, (before, after) in enumerate(pairwise(sounds))
    ]


def _sounded_with(kind: str, sound: str, index: int, second: int) -> Question:
    """What sounded while a shape was shown: the answer rests on the frames and on the sound."""
    time = (float(second), float(second + 1))
    return Question(
        f"What sounded with the {kind}?",
        f"The {kind} came with a {sound}.",
        (Evidence(index, "video", time=time), Evidence(index, "video", time=time, sound=True)),
        (sound,),
    )
