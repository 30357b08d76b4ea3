# ruff: noqa: RUF001 (the punctuation of other scripts is what this module is about)
"""Reading a text: its words with their parts of speech, and where its sentences begin.

A spaCy pipeline reads the language it was trained on. A text in another language is read by rule:
sentences end at the terminators of any script, and every word weighs the same (tag ANY_WORD), which
the reading's note says. Nothing outside this module sees spaCy.
"""

from __future__ import annotations

import re
import sys
import threading
import unicodedata
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from omnitrace_core.errors import ConfigError

if TYPE_CHECKING:
    from spacy.language import Language as SpacyLanguage

BUILTIN = "builtin"
ANY_WORD = "ANY"  # the tag of every word that was read by rule; curation weighs it 1
SPACE = "SPACE"
PUNCT = "PUNCT"

_BUILTIN_PATH = Path(__file__).resolve().parents[1] / "assets" / "en_ud_small"
_PIECE_CHARS = 100_000  # longer texts are read in pieces: spaCy's memory grows with the text
# Texts are read together up to these bounds; those that were read last are remembered up to that.
_TOGETHER, _TOGETHER_CHARS = 256, 10_000
_KNOWN_CHARS = 1_000_000

# Where the rule ends a sentence: after a free stop at once; after a spaced stop if white space and
# then no small letter follows, or at once before a letter without case ("走吧!我们"). Closing
# quotes, brackets and emphasis marks go with the sentence.
_FREE_STOPS = "。．｡！？؟۔।॥։።။‼⁇⁈⁉"
_SPACED_STOPS = ".!?…"
_CLOSERS = re.escape("\"'”’»›)]}）】》」』*_")
_STOP = re.compile(
    rf"(?:[{_FREE_STOPS}]|[{_SPACED_STOPS}]+)[{_FREE_STOPS}{_SPACED_STOPS}{_CLOSERS}]*"
    r"(?:[ \u00a0\u202f]»(?!\w))?"
)
_NEXT_CHARACTER = re.compile(r"(\s*)[\"'“‘«‹(\[¿¡*_]*(\S)")
# "3. Oktober", "J. Dupont", "z. B.", "Dr. Müller": full stops that end no sentence.
_ABBREVIATION = re.compile(r"(?:^|[\s(])(?:\d{1,2}|[^\W\d_]|Dr|Prof|Mme|Mlle|Mr|Sra?|St)\.$")
_WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")

# Function words that tell English from its neighbours in Latin script. Words that English shares
# with one of them ("in", "is", "was", "die", "me", "no", "till") tell nothing and are left out.
_FUNCTION_WORDS = {
    "English": "the of and to that it for with are this be by from not have you which they",
    "French": "le les des une est dans pour que qui avec sur pas au du et ils elle",
    "German": "der das und ist nicht ein eine mit auf für von zu dem sich auch",
    "Spanish": "el los las una es y en por para del como se su",
    "Italian": "il di che è non sono della nel gli",
    "Portuguese": "os um uma não na da dos mais",
    "Dutch": "de het een niet zijn voor ook",
    "Scandinavian": "och att som på är inte av ett jag ikke",
    "Indonesian": "yang dan untuk dengan ini itu dari",
    "Polish": "nie się jest że",
    "Turkish": "ve bir bu için",
}
_LANGUAGE_OF = {
    word: language for language, words in _FUNCTION_WORDS.items() for word in words.split()
}
# Capitalised behind a full stop, these words open a sentence (at 3,306 of 3,321 places in UD-EWT).
# Statistical splitters miss them behind letters and numbers: "The answer is A. The clock ..."
_OPENER = re.compile(
    r"(?<!e\.g)(?<!i\.e)(?<!\bcf)(?<!\bvs)\.[\"'”’)\]*_]*\s+(?=[\"'“‘(\[*_]*"
    r"(?:The|This|That|These|Those|There|It|He|She|They|We|You|So|Then|Thus|Therefore|However|But"
    r"|And|Both|Because|Since|If|When|While)\b)"
)
_FEWEST_WORDS = 8  # below this a text tells too little about its language


@dataclass(frozen=True, slots=True)
class TaggedWord:
    """A word or mark of a text, [start, end), and its part of speech (Universal Dependencies)."""

    start: int
    end: int
    pos: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What a language pipeline makes of a text.

    words: in order, not overlapping; white space is no word.
    sentence_starts: ascending offsets; a sentence runs to the next start.
    note: empty, or why the text was read by rule.
    """

    words: tuple[TaggedWord, ...]
    sentence_starts: tuple[int, ...]
    note: str = ""


class Language:
    """A loaded spaCy pipeline, with the rule that stands in for it on other languages.

    Remembers what it read last: prompts repeat themselves. Can be called from several threads.
    """

    def __init__(self, name: str, nlp: SpacyLanguage) -> None:
        self.name = name
        self.nlp = nlp
        self._known: OrderedDict[str, Reading] = OrderedDict()
        self._known_chars = 0
        self._guard = threading.Lock()

    def read(self, text: str) -> Reading:
        """Words and sentence starts of `text`, of any length and in any language.

        Only an English pipeline is second-guessed: who configures another one knows their data.
        """
        with self._guard:
            if (known := self._known.get(text)) is not None:
                self._known.move_to_end(text)
                return known
        (reading,) = self._read([text])
        self._remember(text, reading)
        return reading

    def read_ahead(self, texts: Iterable[str]) -> None:
        """Read texts together, in less than half the time, so that `read` finds them read.

        Long ones, which gain nothing, are left to `read`, and so is what would not be remembered
        until it is asked for.
        """
        groups: list[list[str]] = [[]]
        budget = _KNOWN_CHARS // 2
        for text in dict.fromkeys(texts):
            with self._guard:
                if text in self._known:
                    self._known.move_to_end(text)
                    continue
            if len(text) > min(budget, _TOGETHER_CHARS):
                continue
            budget -= len(text)
            if sum(map(len, groups[-1])) + len(text) > _TOGETHER_CHARS:
                groups.append([])
            groups[-1].append(text)
        for group in groups:
            for text, reading in zip(group, self._read(group), strict=True):
                self._remember(text, reading)

    def _read(self, texts: Sequence[str]) -> list[Reading]:
        by_rule = {
            text: f"fallback: {reason}; sentences by rule, equal POS weights"
            for text in texts
            if self.nlp.lang == "en" and (reason := why_not_english(text))
        }
        limit = min(self.nlp.max_length, _PIECE_CHARS)
        pieces = (
            (piece, (number, offset))
            for number, text in enumerate(texts)
            if text not in by_rule
            for offset, piece in _pieces(text, limit)
        )
        words: list[list[TaggedWord]] = [[] for _ in texts]
        starts: list[list[int]] = [[] for _ in texts]
        for doc, (number, offset) in self.nlp.pipe(pieces, as_tuples=True, batch_size=_TOGETHER):
            words[number] += [
                TaggedWord(offset + token.idx, offset + token.idx + len(token), token.pos_)
                for token in doc
                if not token.is_space
            ]
            starts[number] += [offset + sentence.start_char for sentence in doc.sents]
        return [
            read_by_rule(text, by_rule[text])
            if text in by_rule
            else Reading(tuple(words[number]), self._starts(text, starts[number]))
            for number, text in enumerate(texts)
        ]

    def _starts(self, text: str, starts: list[int]) -> tuple[int, ...]:
        if self.nlp.lang == "en":
            starts = sorted({*starts, *(match.end() for match in _OPENER.finditer(text))})
        return tuple(starts)

    def _remember(self, text: str, reading: Reading) -> None:
        if len(text) > _TOGETHER_CHARS:
            return
        with self._guard:
            if text in self._known:
                return
            self._known[text] = reading
            self._known_chars += len(text)
            while self._known_chars > _KNOWN_CHARS:
                self._known_chars -= len(self._known.popitem(last=False)[0])


@lru_cache(maxsize=8)
def load_language(pipeline: str) -> Language:
    """Load a spaCy pipeline once per process.

    pipeline: `builtin`, the name of an installed pipeline package, or a path.

    Raises:
        ConfigError: the pipeline cannot be loaded, or sets no parts of speech or sentences.
    """
    import spacy
    from thinc.api import use_ops

    source = _BUILTIN_PATH if pipeline == BUILTIN else pipeline
    try:
        # Reading takes 0.7 of the time with numpy's matrix products (benchmarks/texts.py).
        with use_ops("numpy", use_blis=False):
            nlp = spacy.load(source, exclude=["ner", "lemmatizer"])
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"spans.pipeline={pipeline!r} cannot be loaded ({reason}); use builtin, the path of a "
            "spaCy pipeline, or a pipeline package installed from its own release page (not by "
            "name from a registry, where some of these names are placeholders)"
        ) from error
    probe = nlp("It rains.")
    if not (probe.has_annotation("SENT_START") and all(token.pos_ for token in probe)):
        raise ConfigError(
            f"spans.pipeline={pipeline!r} has components {nlp.pipe_names}, which do not set both "
            "token.pos_ and sentence starts; use builtin or a pipeline with a tagger (or "
            "morphologizer) and a parser (or senter)"
        )
    return Language(pipeline, nlp)


def load_lean_language(pipeline: str) -> Language:
    """As `load_language`, in a process of ours that has no other use for spaCy.

    spaCy's tensor library imports torch wherever it is installed, for models that the builtin
    pipeline is none of: 180 MiB and half the start of every process that reads texts. Without it,
    spaCy pipelines on torch do not work in this process any more. Not for several threads.

    Raises:
        ConfigError: as of `load_language`.
    """
    if pipeline == BUILTIN and "torch" not in sys.modules:
        # None makes `import torch` an ImportError.
        sys.modules["torch"] = cast(ModuleType, None)
        try:
            import thinc.compat  # noqa: F401
        finally:
            del sys.modules["torch"]
    return load_language(pipeline)


def why_not_english(text: str) -> str:
    """The reason to think that `text` is not English, or "" if there is none.

    A small, honest heuristic, not a language identifier: most letters are of another script; or, in
    eight words or more, function words of other languages outnumber the English ones, or there are
    no English function words and many letters with diacritics. When in doubt it is English.
    """
    letters = [letter for letter in text if letter.isalpha()]
    if not letters:
        return ""
    if sum(map(_is_latin, letters)) < 0.5 * len(letters):
        return "most letters are not Latin"
    words = re.findall(r"[^\W\d_]+", text.lower())
    if len(words) < _FEWEST_WORDS:
        return ""
    languages = [_LANGUAGE_OF[word] for word in words if word in _LANGUAGE_OF]
    english = languages.count("English")
    other = len(languages) - english
    accented = sum(letter > "\x7f" for letter in letters)
    if other >= 0.1 * len(words) and other > 2 * english:
        return "function words are not English"
    if english < 0.02 * len(words) and accented >= 0.04 * len(letters):
        return "no English function words, many diacritics"
    return ""


def read_by_rule(text: str, note: str) -> Reading:
    """Read a text of any language: sentences end as at `_STOP`, tags are ANY_WORD or PUNCT."""
    words = tuple(
        TaggedWord(
            match.start(),
            match.end(),
            PUNCT if unicodedata.category(match[0][0])[0] == "P" else ANY_WORD,
        )
        for match in _WORD_OR_MARK.finditer(text)
    )
    starts = [0, *(stop.end() for stop in _STOP.finditer(text) if _ends_sentence(text, stop))]
    return Reading(words, tuple(starts), note)


def _ends_sentence(text: str, stop: re.Match[str]) -> bool:
    following = _NEXT_CHARACTER.match(text, stop.end())
    if following is None:
        return False
    if stop[0][0] in _FREE_STOPS:
        return True
    space, character = following.groups()
    has_case = character.islower() or character.isupper()
    if not space:
        return character.isalpha() and not has_case and stop[0][0] != "…"
    if stop[0] == "." and _ABBREVIATION.search(text, max(0, stop.start() - 6), stop.end()):
        return False
    return not character.islower()


def _is_latin(letter: str) -> bool:
    # Latin blocks up to Extended-B, Extended Additional, and the full-width forms.
    return letter < "\u0250" or "\u1e00" <= letter <= "\u1eff" or "\uff21" <= letter <= "\uff5a"


def _pieces(text: str, limit: int) -> Iterator[tuple[int, str]]:
    """Cut `text` into (offset, piece) of at most `limit` characters, at a line's end if possible,
    else at a space, else anywhere."""
    start = 0
    while start < len(text):
        end = min(start + limit, len(text))
        if end < len(text):
            newline, space = text.rfind("\n", start, end), text.rfind(" ", start, end)
            cut = newline if newline >= 0 else space
            end = cut + 1 if cut >= 0 else end
        yield start, text[start:end]
        start = end
