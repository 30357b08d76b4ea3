"""The world's tasks: which parts a sample has, and what is asked of it in which order.

The order of the asks is shuffled against the order of their evidence, so that knowing the order
explains nothing. `level` counts the items of a sample, as far as a task can have that many; the
training raises it, the out-of-range split goes above it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from training.world import sources
from training.world.lexicon import COLOURS, LETTERS, PLACES, SOUNDS
from training.world.records import Ask, WorldSample
from training.world.sources import Scene

# What a task puts into the scene, and what may be asked then.
Maker = Callable[[Scene, int], list[Ask]]


def text_where(scene: Scene, level: int) -> list[Ask]:
    """Where things are."""
    return [sources.where(fact) for fact in sources.facts(scene, level)]


def text_who(scene: Scene, level: int) -> list[Ask]:
    """Who brought things."""
    return [sources.who(fact) for fact in sources.facts(scene, level)]


def text_summary(scene: Scene, level: int) -> list[Ask]:
    """What some people did, in the order in which they are asked for."""
    return [sources.tell(fact) for fact in sources.facts(scene, level)]


def text_both(scene: Scene, level: int) -> list[Ask]:
    """Where two things are, in one sentence: two-unit evidence."""
    made = sources.facts(scene, max(level, 2))
    scene.rng.shuffle(made)
    pairs = zip(made[::2], made[1::2], strict=False)
    return [sources.where_both(first, second) for first, second in pairs]


def text_count(scene: Scene, level: int) -> list[Ask]:
    """How many things are in a place: two-unit evidence and more."""
    here, there = scene.pick(PLACES, 2)
    places = [here, here] + [scene.rng.choice((here, there)) for _ in range(level - 2)]
    scene.rng.shuffle(places)
    made = sources.facts(scene, level, places)
    return [sources.count_in(place, made) for place in sorted({here, there} & set(places))]


def text_compare(scene: Scene, level: int) -> list[Ask]:
    """Whether two things are in one place."""
    here, there = scene.pick(PLACES, 2)
    places = [scene.rng.choice((here, there)) for _ in range(level)]
    made = sources.facts(scene, level, places)
    scene.rng.shuffle(made)
    pairs = zip(made[::2], made[1::2], strict=False)
    return [sources.same_place(first, second) for first, second in pairs]


def image_lookup(scene: Scene, level: int) -> list[Ask]:
    """The colours of shapes, one to a picture."""
    return sources.pictures(scene, level)


def image_whose(scene: Scene, level: int) -> list[Ask]:
    """Whose picture shows a shape."""
    return sources.whose_picture(scene, level)


def image_regions(scene: Scene, level: int) -> list[Ask]:
    """The colours of shapes that share one picture."""
    return sources.regions(scene, min(2 + level // 4, 4))


def image_count(scene: Scene, level: int) -> list[Ask]:
    """How many pictures show a shape."""
    return sources.count_shapes(scene, min(max(level, 2), len(COLOURS)))


def conflict(scene: Scene, level: int) -> list[Ask]:
    """A caption against its picture, beside other pictures."""
    return sources.conflict(scene, level - 1)


def audio_after(scene: Scene, level: int) -> list[Ask]:
    """What sounded right after another sound. Of fewer than five, order explains too much."""
    return sources.recording(scene, min(max(level, 5), len(SOUNDS) - 1))


def video_lookup(scene: Scene, level: int) -> list[Ask]:
    """The colours of shapes that are shown in turn."""
    return sources.clip(scene, max(level, 3), sound=False)


def video_sound(scene: Scene, level: int) -> list[Ask]:
    """What was heard with what was seen."""
    return sources.clip(scene, max(level, 3), sound=True)


def mixed(scene: Scene, level: int) -> list[Ask]:
    """Text, pictures, a recording and a clip in one sample, in any order."""
    makers: list[Callable[[], list[Ask]]] = [
        lambda: [sources.where(fact) for fact in sources.facts(scene, max(level - 1, 2))],
        lambda: sources.pictures(scene, 2),
        lambda: sources.recording(scene, max(level - 2, 4)),
        lambda: sources.clip(scene, 2, sound=False),
    ]
    scene.rng.shuffle(makers)
    chosen = makers[: scene.rng.randint(2, 4)]
    asks = [scene.rng.choice(made) for made in [maker() for maker in chosen]]
    return asks


TASKS: dict[str, Maker] = {
    maker.__name__: maker
    for maker in (
        *(text_where, text_who, text_summary, text_both, text_count, text_compare),
        *(image_lookup, image_whose, image_regions, image_count, conflict),
        *(audio_after, video_lookup, video_sound, mixed),
    )
}
# Asked with options; what is asked is what their task asks.
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
        ValueError: the world has not so many words as the level asks for.
    """
    scene = Scene(Random(f"{task}/{level}/{seed}"))
    asks = {**TASKS, **CHOICES}[task](scene, level)
    told = [value for ask in asks for value in ask.values]
    scene.rng.shuffle(asks)
    asks = asks[: scene.rng.randint(1, min(3, len(asks)))]
    sample_id = f"{task}-{level}-{seed}"
    if task in CHOICES:
        return _as_choice(scene, sample_id, task, asks[0], told)
    question = " ".join(ask.question for ask in asks)
    return WorldSample(sample_id, task, tuple(scene.parts), question, tuple(asks))


def _as_choice(
    scene: Scene, sample_id: str, task: str, ask: Ask, told: Sequence[str]
) -> WorldSample:
    """The same question with four options: the answer is one of them, said as ever.

    told: what the sample tells, in answer to any question. Wrong options are of these first, so
    that the right one is not the only one that can be found in the sample.
    """
    (value,) = ask.values
    pool = next(words for words in _POOLS if value in words)
    wrong = [word for word in dict.fromkeys(told) if word != value]
    scene.rng.shuffle(wrong)
    rest = [word for word in pool if word not in {value, *wrong}]
    wrong += scene.rng.sample(rest, max(0, len(LETTERS) - 1 - len(wrong)))
    options = [value, *wrong[: len(LETTERS) - 1]]
    scene.rng.shuffle(options)
    lines = [f"{key}. {word}" for key, word in zip(LETTERS, options, strict=True)]
    question = "\n".join([ask.question, *lines])
    return WorldSample(sample_id, task, tuple(scene.parts), question, (ask,), tuple(options))
