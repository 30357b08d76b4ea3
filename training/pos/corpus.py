"""Read UD English Web Treebank (CoNLL-U) into spaCy documents of running text.

EWT stores one sentence per block. A splitter trained on single sentences never sees a boundary, so
consecutive sentences of one EWT document are joined again: sentences of a paragraph with a space,
paragraphs with line breaks. `spacy convert` is not used: it drops SpaceAfter inside multiword
tokens. Here every word is located in the `# text` line, so that `doc.text` is exact.
"""

import lzma
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab


@dataclass(frozen=True, slots=True)
class Sentence:
    """One annotated sentence.

    words: the syntactic words (do + n't), which concatenate to the surface form.
    tags: the UPOS tag of each word, "" if it is unknown.
    """

    text: str
    words: tuple[str, ...]
    tags: tuple[str, ...]
    opens_document: bool
    opens_paragraph: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """A sentence and the whitespace between it and the one before."""

    separator: str
    sentence: Sentence


def read_conllu(path: Path) -> Iterator[Sentence]:
    """Yield the sentences of an xz-compressed CoNLL-U file."""
    with lzma.open(path, "rt", encoding="utf-8") as stream:
        blocks = stream.read().strip().split("\n\n")
    for block in blocks:
        lines = block.split("\n")
        comments = [line for line in lines if line.startswith("#")]
        rows = [line.split("\t") for line in lines if not line.startswith("#")]
        # Ids like "3-4" are surface tokens of several words, ids like "8.1" are empty nodes.
        rows = [row for row in rows if row[0].isdigit()]
        yield Sentence(
            text=next(line for line in comments if line.startswith("# text = "))[9:].strip(),
            words=tuple(row[1] for row in rows),
            tags=tuple(row[3] for row in rows),
            opens_document=any(line.startswith("# newdoc") for line in comments),
            opens_paragraph=any(line.startswith("# newpar") for line in comments),
        )


def as_documents(sentences: Iterable[Sentence]) -> Iterator[list[Sentence]]:
    """Group consecutive sentences into the documents they came from."""
    document: list[Sentence] = []
    for sentence in sentences:
        if sentence.opens_document and document:
            yield document
            document = []
        document.append(sentence)
    if document:
        yield document


def join_plainly(document: list[Sentence], paragraph_break: str) -> list[Piece]:
    """Join a whole document: paragraphs with paragraph_break, sentences with one space."""
    return [
        Piece(paragraph_break if sentence.opens_paragraph else " ", sentence)
        for sentence in document
    ]


def to_doc(vocab: Vocab, pieces: list[Piece]) -> Doc:
    """Build the gold document; its text is the sentences' exact text with the separators between.

    Whitespace beyond a single space becomes a separate token, as in spaCy's tokenizer. It belongs
    to the sentence before it and has no tag.

    Raises:
        ValueError: a word does not occur in its sentence's text.
    """
    text = ""
    words: list[str] = []
    spaces: list[bool] = []
    tags: list[str] = []
    starts: list[bool | int | None] = []
    end = 0
    for i, piece in enumerate(pieces):
        text += (piece.separator if i else "") + piece.sentence.text
        for j, (word, tag) in enumerate(
            zip(piece.sentence.words, piece.sentence.tags, strict=True)
        ):
            position = text.index(word, end)
            gap = text[end:position]
            if gap.startswith(" ") and words:
                spaces[-1], gap = True, gap[1:]
            for form, upos, is_start in ((gap, "", False), (word, tag, j == 0)):
                if form:
                    words.append(form)
                    spaces.append(False)
                    tags.append(upos)
                    starts.append(is_start)
            end = position + len(word)
    return Doc(vocab, words=words, spaces=spaces, pos=tags, sent_starts=starts)


def write_docbin(path: Path, vocab: Vocab, texts: Iterable[list[Piece]]) -> None:
    """Save the gold documents where spaCy's corpus reader finds them."""
    DocBin(docs=(to_doc(vocab, pieces) for pieces in texts)).to_disk(path)
