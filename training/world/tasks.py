"""The tasks of the planted world: which parts a sample has, and which questions it asks.

Questions are shuffled against the order of their evidence, so that knowing the order explains
nothing. `level` is the number of items in a sample, as far as a task can have that many; training
raises it step by step, and the out-of-range split goes above it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from training.world import parts
from training.world.lexicon import COLOURS, LETTERS, PLACES, SOUNDS
from training.world.parts import SampleBuilder
from training.world.samples import Question, WorldSample

# Adds the parts of a task and returns the questions that they allow; takes the level.
Maker = Callable[[SampleBuilder, int], list[Question]]


def text_where(builder: SampleBuilder, level: int) -> list[Question]:
    """Where things are."""
    return [parts.where(fact) for fact in parts.facts(builder, level)]


def text_who(builder: SampleBuilder, level: int) -> list[Question]:
    """Who brought things."""
    return [parts.who(fact) for fact in parts.facts(builder, level)]


def text_summary(builder: SampleBuilder, level: int) -> list[Question]:
    """What some people did, in the order of the prompt."""
    return [parts.summary(fact) for fact in parts.facts(builder, level)]


def text_both(builder: SampleBuilder, level: int) -> list[Question]:
    """Where two things are, in one sentence: evidence of two units."""
    facts = parts.facts(builder, max(level, 2))
    builder.rng.shuffle(facts)
    pairs = zip(facts[::2], facts[1::2], strict=False)
    return [parts.where_both(first, second) for first, second in pairs]


def text_count(builder: SampleBuilder, level: int) -> list[Question]:
    """How many things are in a place: evidence of two units and more."""
    here, there = builder.pick(PLACES, 2)
    places = [here, here] + [builder.rng.choice((here, there)) for _ in range(level - 2)]
    builder.rng.shuffle(places)
    facts = parts.facts(builder, level, places)
    return [parts.count_in(place, facts) for place in sorted({here, there} & set(places))]


def text_compare(builder: SampleBuilder, level: int) -> list[Question]:
    """Whether two things are in one place."""
    here, there = builder.pick(PLACES, 2)
    places = [builder.rng.choice((here, there)) for _ in range(level)]
    facts = parts.facts(builder, level, places)
    builder.rng.shuffle(facts)
    pairs = zip(facts[::2], facts[1::2], strict=False)
    return [parts.same_place(first, second) for first, second in pairs]


def image_lookup(builder: SampleBuilder, level: int) -> list[Question]:
    """The colours of shapes, one to a picture."""
    return parts.pictures(builder, level)


def image_whose(builder: SampleBuilder, level: int) -> list[Question]:
    """Whose picture shows a shape."""
    return parts.whose_picture(builder, level)


def image_regions(builder: SampleBuilder, level: int) -> list[Question]:
    """The colours of shapes that share one picture."""
    return parts.regions(builder, min(2 + level // 4, 4))


def image_count(builder: SampleBuilder, level: int) -> list[Question]:
    """How many pictures show a shape."""
    return parts.count_shapes(builder, min(max(level, 2), len(COLOURS)))


def conflict(builder: SampleBuilder, level: int) -> list[Question]:
    """A caption against its picture, beside other pictures."""
    return parts.conflict(builder, level - 1)


def audio_after(builder: SampleBuilder, level: int) -> list[Question]:
    """What sounded right after another sound. With fewer than five, order explains too much."""
    return parts.recording(builder, min(max(level, 5), len(SOUNDS) - 1))


def video_lookup(builder: SampleBuilder, level: int) -> list[Question]:
    """The colours of shapes that are shown in turn."""
    return parts.clip(builder, max(level, 3), sound=False)


def video_sound(builder: SampleBuilder, level: int) -> list[Question]:
    """The colours of shapes in a clip, and what sounded with them."""
    return parts.clip(builder, max(level, 3), sound=True)


def mixed(builder: SampleBuilder, level: int) -> list[Question]:
    """Text, pictures, a recording and a clip in one sample, in any order."""
    makers: list[Callable[[], list[Question]]] = [
        lambda: [parts.where(fact) for fact in parts.facts(builder, max(level - 1, 2))],
        lambda: parts.pictures(builder, 2),
        lambda: parts.recording(builder, max(level - 2, 4)),
        lambda: parts.clip(builder, 2, sound=False),
    ]
    builder.rng.shuffle(makers)
    chosen = makers[: builder.rng.randint(2, 4)]
    per_maker = [maker() for maker in chosen]
    return [builder.rng.choice(questions) for questions in per_maker]


TASKS: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (
        *(text_where, text_who, text_summary, text_both, text_count, text_compare),
        *(image_lookup, image_whose, image_regions, image_count, conflict),
        *(audio_after, video_lookup, video_sound, mixed),
    )
}
# Multiple-choice tasks, by the task whose questions they ask.
CHOICES: dict[str, Maker] = {
    "text_choice": text_where,
    "image_choice": image_lookup,
    "audio_choice": audio_after,
}
TASK_NAMES = (*TASKS, *CHOICES)
_POOLS = (PLACES, tuple(COLOURS), SOUNDS)


def make_sample(task: str, level: int, seed: str) -> WorldSample:
    """A sample of a task; the same arguments give the same sample.

    Raises:
        KeyError: no such task.
        ValueError: the world has fewer words than the level needs.
    """
    builder = SampleBuilder(Random(f"{task}/{level}/{seed}"))
    questions = {**TASKS, **CHOICES}[task](builder, level)
    values = [value for question in questions for value in question.values]
    builder.rng.shuffle(questions)
    questions = questions[: builder.rng.randint(1, min(3, len(questions)))]
    sample_id = f"{task}-{level}-{seed}"
    if task in CHOICES:
        return _as_choice(builder, sample_id, task, questions[0], values)
    prompt = " ".join(question.text for question in questions)
    return WorldSample(sample_id, task, tuple(builder.parts), prompt, tuple(questions))


def _as_choice(
    builder: SampleBuilder, sample_id: str, task: str, question: Question, values: Sequence[str]
) -> WorldSample:
    """The question as multiple choice: four options, one of which stands in the right answer.

    values: answers to all questions that the sample allows. Wrong options come from these first, so
    that the right option is not the only one that occurs in the sample.
    """
    (right,) = question.values
    pool = next(words for words in _POOLS if right in words)
    wrong = [word for word in dict.fromkeys(values) if word != right]
    builder.rng.shuffle(wrong)
    rest = [word for word in pool if word not in {right, *wrong}]
    wrong += builder.rng.sample(rest, max(0, len(LETTERS) - 1 - len(wrong)))
    options = [right, *wrong[: len(LETTERS) - 1]]
    builder.rng.shuffle(options)
    lines = [f"{key}. {word}" for key, word in zip(LETTERS, options, strict=True)]
    prompt = "\n".join([question.text, *lines])
    return WorldSample(sample_id, task, tuple(builder.parts), prompt, (question,), tuple(options))
