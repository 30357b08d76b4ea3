"""Parts with facts in them, and what can be asked of each.

Each maker adds parts to a `Scene` and returns the asks they allow, in the order of their evidence;
tasks choose among them and shuffle. All randomness comes from the scene's generator.
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
from training.world.media import quadrant_box
from training.world.records import (
    Ask,
    Clip,
    Evidence,
    Part,
    Picture,
    Recording,
    Shape,
    Text,
)


@dataclass(slots=True)
class Scene:
    """A sample in the making: its parts so far, and words that are taken."""

    rng: Random
    parts: list[Part] = field(default_factory=list)
    taken: set[str] = field(default_factory=set)

    def add(self, part: Part) -> int:
        """Append a part; returns its index."""
        self.parts.append(part)
        return len(self.parts) - 1

    def pick(self, words: tuple[str, ...], n: int) -> list[str]:
        """`n` different words that no other part of the sample uses.

        Raises:
            ValueError: there are not so many.
        """
        free = [word for word in words if word not in self.taken]
        if n > len(free):
            raise ValueError(
                f"a sample of {n} items more than the {len(free)} that are left of {words[0]}, "
                f"{words[1]} and so on; ask for a lower level"
            )
        chosen = self.rng.sample(free, n)
        self.taken.update(chosen)
        return chosen

    def seed(self) -> int:
        """A seed for one part's noise."""
        return self.rng.randrange(2**31)


@dataclass(frozen=True, slots=True)
class Fact:
    """Who brought what where, and the sentence that says so."""

    name: str
    thing: str
    place: str
    evidence: Evidence

    @property
    def sentence(self) -> str:
        """As it stands in the text."""
        return f"{self.name} brought the {self.thing} to the {self.place}."


def facts(scene: Scene, n: int, places: list[str] | None = None) -> list[Fact]:
    """A text part of `n` facts, one sentence each. places: where each thing is, if it matters."""
    names, things = scene.pick(NAMES, n), scene.pick(OBJECTS, n)
    places = places or scene.pick(PLACES, n)
    made: list[Fact] = []
    at, index = 0, len(scene.parts)
    for name, thing, place in zip(names, things, places, strict=True):
        length = len(f"{name} brought the {thing} to the {place}.")
        evidence = Evidence(index, "text", chars=(at, at + length))
        made.append(Fact(name, thing, place, evidence))
        at += length + 1
    scene.add(Text(" ".join(fact.sentence for fact in made)))
    return made


def where(fact: Fact) -> Ask:
    """Where a thing is."""
    answer = f"The {fact.thing} is in the {fact.place}."
    return Ask(f"Where is the {fact.thing}?", answer, (fact.evidence,), (fact.place,))


def who(fact: Fact) -> Ask:
    """Who brought a thing where it is."""
    answer = f"The {fact.thing} came from {fact.name}."
    return Ask(f"Who brought the {fact.thing}?", answer, (fact.evidence,), (fact.name,))


def tell(fact: Fact) -> Ask:
    """A summary's sentence on one person."""
    told = (fact.thing, fact.place)
    return Ask(f"Tell of {fact.name}.", fact.sentence, (fact.evidence,), told)


def where_both(first: Fact, second: Fact) -> Ask:
    """Where two things are, in one sentence: it rests on both."""
    question = f"Where are the {first.thing} and the {second.thing}?"
    answer = (
        f"The {first.thing} is in the {first.place} and the {second.thing} in the {second.place}."
    )
    evidence = (first.evidence, second.evidence)
    return Ask(question, answer, evidence, (first.place, second.place))


def same_place(first: Fact, second: Fact) -> Ask:
    """Whether two things are in one place: the answer rests on both sentences."""
    pair = f"the {first.thing} and the {second.thing}"
    same = first.place == second.place
    value = "together" if same else "apart"
    evidence = (first.evidence, second.evidence)
    answer = f"{pair[0].upper()}{pair[1:]} are {value}."
    return Ask(f"Are {pair} together?", answer, evidence, (value,))


def count_in(place: str, among: list[Fact]) -> Ask:
    """How many things are in a place: the answer rests on every sentence that names it."""
    evidence = tuple(fact.evidence for fact in among if fact.place == place)
    number = NUMBERS[len(evidence)]
    answer = f"In the {place} there are {number} things."
    return Ask(f"How many things are in the {place}?", answer, evidence, (number,))


def pictures(scene: Scene, n: int) -> list[Ask]:
    """`n` pictures of one shape each, no two alike in shape or colour; noise where shapes end."""
    shown = _pictures(scene, [""] * n)
    return [_colour_of(kind, colour, evidence) for _, kind, colour, evidence in shown]


def whose_picture(scene: Scene, n: int) -> list[Ask]:
    """`n` pictures with the name of who brought them, asked for by what they show.

    The answer rests on the picture, and on the line before it.
    """
    names = scene.pick(NAMES, n)
    return [
        Ask(
            f"Who brought the {kind}?",
            f"The {kind} came from {name}.",
            (_line_before(scene, evidence), evidence),
            (name,),
        )
        for name, kind, _, evidence in _pictures(scene, names)
    ]


def _pictures(scene: Scene, names: Sequence[str]) -> list[tuple[str, str, str, Evidence]]:
    """Pictures of one shape each: whose, the shape, its colour, and where they are seen.

    names: of each, who brought it, in a line before it; none for no line. When there are more than
    shapes, the others show noise alone, and are left out of what is returned.
    """
    made = []
    for name, shapes in zip(names, _one_each(scene, len(names)), strict=True):
        if name:
            scene.add(Text(f"The picture from {name}:"))
        index = scene.add(Picture(shapes, scene.seed()))
        made += [(name, shape.kind, shape.colour, Evidence(index, "image")) for shape in shapes]
    return made


def _line_before(scene: Scene, picture: Evidence) -> Evidence:
    """The text part that stands before a picture, all of it."""
    line = scene.parts[picture.part - 1]
    assert isinstance(line, Text)
    return Evidence(picture.part - 1, "text", chars=(0, len(line.text)))


def _one_each(scene: Scene, n: int) -> list[tuple[Shape, ...]]:
    """What `n` pictures show: a shape of their own as long as there are shapes, else nothing."""
    free = sum(kind not in scene.taken for kind in SHAPES)
    kinds = scene.pick(SHAPES, min(n, free))
    colours = scene.pick(tuple(COLOURS), len(kinds))
    shown: list[tuple[Shape, ...]] = [(Shape(*pair),) for pair in zip(kinds, colours, strict=True)]
    shown += [()] * (n - len(shown))
    scene.rng.shuffle(shown)
    return shown


def regions(scene: Scene, n: int) -> list[Ask]:
    """One picture of `n` shapes, each in a quadrant of its own."""
    kinds, colours = scene.pick(SHAPES, n), scene.pick(tuple(COLOURS), n)
    quadrants = scene.rng.sample(range(4), n)
    shapes = tuple(map(Shape, kinds, colours, quadrants))
    index = scene.add(Picture(shapes, scene.seed()))
    return [
        _colour_of(
            shape.kind,
            shape.colour,
            Evidence(index, "image", box=quadrant_box(quadrant)),
        )
        for shape, quadrant in zip(shapes, quadrants, strict=True)
    ]


def count_shapes(scene: Scene, n: int) -> list[Ask]:
    """`n` pictures, some of the same shape: how many show it rests on all that do."""
    kinds = [scene.rng.choice(SHAPES[:3]) for _ in range(n)]
    scene.taken.update(kinds)
    colours = scene.pick(tuple(COLOURS), n)
    shown = [
        (kind, scene.add(Picture((Shape(kind, colour),), scene.seed())))
        for kind, colour in zip(kinds, colours, strict=True)
    ]
    asks = []
    for kind, count in sorted(Counter(kinds).items()):
        evidence = tuple(Evidence(index, "image") for name, index in shown if name == kind)
        answer = f"The number of pictures with a {kind} is {NUMBERS[count]}."
        question = f"How many pictures show a {kind}?"
        asks.append(Ask(question, answer, evidence, (NUMBERS[count],)))
    return asks


def conflict(scene: Scene, n: int) -> list[Ask]:
    """A caption and its picture say different colours; a rule says which to follow.

    Beside `n` other pictures, all in any order.
    """
    kind, (said, shown) = scene.pick(SHAPES, 1)[0], scene.pick(tuple(COLOURS), 2)
    trusts_text = scene.rng.random() < 0.5
    scene.add(Text(f"Trust the {'caption' if trusts_text else 'picture'}.", instructs=True))
    caption = f" The {kind} is {said}."
    parts: list[Part] = [Text(caption), Picture((Shape(kind, shown),), scene.seed())]
    parts += [Picture(shapes, scene.seed()) for shapes in _one_each(scene, n)]
    order = scene.rng.sample(range(len(parts)), len(parts))
    indexes = {place: scene.add(parts[place]) for place in order}
    if trusts_text:
        evidence = Evidence(indexes[0], "text", chars=(1, len(caption)))
        return [_colour_of(kind, said, evidence)]
    return [_colour_of(kind, shown, Evidence(indexes[1], "image"))]


def recording(scene: Scene, n: int) -> list[Ask]:
    """`n` different sounds, a second each: what sounded right after another rests on both."""
    sounds = scene.pick(SOUNDS, n)
    index = scene.add(Recording(tuple(sounds), scene.seed()))
    return _after_sounds(sounds, index, "audio")


def clip(scene: Scene, n: int, sound: bool) -> list[Ask]:
    """A clip of `n` shapes, a second each; with sound, also a sound in each second."""
    kinds = scene.pick(SHAPES, min(n, len(SHAPES)))
    colours = scene.pick(tuple(COLOURS), len(kinds))
    # A shape that is shown again some seconds later carries the same fact twice: a group.
    order = kinds + [scene.rng.choice(kinds) for _ in range(n - len(kinds))]
    scene.rng.shuffle(order)
    colour_of = dict(zip(kinds, colours, strict=True))
    shapes = tuple(Shape(kind, colour_of[kind]) for kind in order)
    sounds = tuple(scene.pick(SOUNDS, n)) if sound else None
    index = scene.add(Clip(shapes, sounds, scene.seed()))
    times = Counter(order)
    asks = [
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
            asks.append(_sounded_with(kind, sounds[k], index, k))
    return asks


def _colour_of(kind: str, colour: str, *evidence: Evidence) -> Ask:
    return Ask(f"What colour is the {kind}?", f"The {kind} is {colour}.", evidence, (colour,))


def _after_sounds(sounds: list[str], index: int, modality: Modality) -> list[Ask]:
    return [
        Ask(
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


def _sounded_with(kind: str, sound: str, index: int, second: int) -> Ask:
    """What was heard while a shape was seen: the answer rests on the picture and on the sound."""
    time = (float(second), float(second + 1))
    return Ask(
        f"What sounded with the {kind}?",
        f"The {kind} came with a {sound}.",
        (Evidence(index, "video", time=time), Evidence(index, "video", time=time, sound=True)),
        (sound,),
    )
