"""Measure the accuracy and speed of the English pipeline, on EWT and on hand-split prose."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spacy.language import Language
from spacy.training import Example

from .corpus import Sentence, join_plainly, to_doc

N_TIMED_PASSES = 5
CONTEXT_CHARS = 30
ESCAPED_BREAKS = re.compile(r"(?:\\n)*$")


@dataclass(frozen=True, slots=True)
class TreebankScores:
    """Scores on whole EWT documents of raw text.

    A sentence counts as found if both its ends are right. Tags are scored where spaCy's tokens and
    EWT's words coincide.
    """

    upos_accuracy: float
    sentence_precision: float
    sentence_recall: float
    sentence_f1: float


@dataclass(frozen=True, slots=True)
class ProseScores:
    """Sentence starts inside paragraphs (the start of a paragraph is known and not counted).

    mistakes: "false: left | right" or "missed: left | right", with the text around it.
    """

    n_paragraphs: int
    n_boundaries: int
    n_false: int
    n_missed: int
    mistakes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A text and the character offsets at which its sentences start."""

    text: str
    starts: frozenset[int]


def score_treebank(
    nlp: Language, documents: list[list[Sentence]], paragraph_break: str
) -> TreebankScores:
    """Score raw documents whose paragraphs are joined with paragraph_break."""
    golds = [to_doc(nlp.vocab, join_plainly(document, paragraph_break)) for document in documents]
    scores = nlp.evaluate([Example(nlp.make_doc(gold.text), gold) for gold in golds])
    return TreebankScores(
        upos_accuracy=round(scores["pos_acc"], 4),
        sentence_precision=round(scores["sents_p"], 4),
        sentence_recall=round(scores["sents_r"], 4),
        sentence_f1=round(scores["sents_f"], 4),
    )


def read_prose(path: Path) -> Iterator[Paragraph]:
    r"""Yield hand-split paragraphs.

    One sentence per line, an empty line between paragraphs. Sentences are joined with a space, or
    with the line breaks that are written as `\n` at the end of the line.
    """
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        text = ""
        starts = set()
        for line in block.split("\n"):
            sentence = ESCAPED_BREAKS.sub("", line)
            starts.add(len(text))
            text += sentence + (line[len(sentence) :].replace("\\n", "\n") or " ")
        yield Paragraph(text.rstrip(), frozenset(starts))


def score_prose(nlp: Language, path: Path) -> ProseScores:
    """Compare the pipeline's sentence starts with those of a hand-split file."""
    paragraphs = list(read_prose(path))
    false, missed = [], []
    for paragraph in paragraphs:
        found = {sentence.start_char for sentence in nlp(paragraph.text).sents}
        false += [context(paragraph.text, i) for i in sorted(found - paragraph.starts)]
        missed += [context(paragraph.text, i) for i in sorted(paragraph.starts - found)]
    return ProseScores(
        n_paragraphs=len(paragraphs),
        n_boundaries=sum(len(paragraph.starts) - 1 for paragraph in paragraphs),
        n_false=len(false),
        n_missed=len(missed),
        mistakes=tuple(f"false: {at}" for at in false) + tuple(f"missed: {at}" for at in missed),
    )


def context(text: str, offset: int) -> str:
    """The text around a boundary, with `|` at the boundary."""
    return (
        f"{text[max(0, offset - CONTEXT_CHARS) : offset]}|{text[offset : offset + CONTEXT_CHARS]}"
    )


def words_per_second(nlp: Language, documents: list[list[Sentence]]) -> int:
    """Speed of the whole pipeline and tokenizer on raw documents: the fastest of several passes."""
    texts = [to_doc(nlp.vocab, join_plainly(document, "\n\n")).text for document in documents]
    n_words = sum(not token.is_space for doc in nlp.pipe(texts) for token in doc)
    walls_s = []
    for _ in range(N_TIMED_PASSES):
        started_s = time.perf_counter()
        for _doc in nlp.pipe(texts):
            pass
        walls_s.append(time.perf_counter() - started_s)
    return round(n_words / min(walls_s))
