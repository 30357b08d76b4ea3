"""Analyse texts with a spaCy pipeline, which no other module uses directly.

A pipeline knows the language that it was trained on. Where the pipeline is English and a text is
not, the text is analysed by rule, and the analysis says so in its note.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, cast

from omnitrace_core.errors import ConfigError
from omnitrace_core.text.analysis import TaggedWord, TextAnalysis, analyse_by_rule
from omnitrace_core.text.english import missed_sentence_starts, reason_not_english

if TYPE_CHECKING:
    from spacy.language import Language as SpacyLanguage

BUILTIN = "builtin"

# Longer texts are cut into pieces: spaCy's memory grows with the text.
_PIECE_CHARS = 100_000
# Most texts, and most characters, that spaCy gets in one batch. Longer texts gain nothing from
# batches, and their analyses are not kept.
_BATCH_TEXTS, _BATCH_CHARS = 256, 10_000
# Most characters of texts whose analyses are kept.
_CACHE_CHARS = 1_000_000


class Language:
    """A loaded spaCy pipeline, and analysis by rule for texts in other languages than English.

    Analyses are cached, as prompts repeat themselves; the least recently used are dropped first.
    Several threads may call it.
    """

    def __init__(self, name: str, nlp: SpacyLanguage, cache_chars: int = _CACHE_CHARS) -> None:
        self.name = name
        self.nlp = nlp
        self._max_cached_chars = cache_chars
        self._cache: OrderedDict[str, TextAnalysis] = OrderedDict()
        self._n_cached_chars = 0
        self._lock = threading.Lock()

    def analyse(self, text: str) -> TextAnalysis:
        """The words and sentence starts of a text of any length, in any language.

        Whether a text is in the pipeline's language is checked for English pipelines only; other
        pipelines were chosen by the user for their data.
        """
        cached = self._cached(text)
        if cached is not None:
            return cached
        (analysis,) = self._analyse([text])
        self._keep(text, analysis)
        return analysis

    def analyse_batch(self, texts: Iterable[str]) -> None:
        """Analyse texts in batches and cache the analyses, for later calls of `analyse`.

        This takes less than half the time of one text after the other. Long texts, which gain
        nothing, are left out, and so are those that would not stay in the cache until they are
        needed.
        """
        batches: list[list[str]] = [[]]
        budget = self._max_cached_chars // 2
        for text in dict.fromkeys(texts):
            if self._cached(text) is not None or len(text) > min(budget, _BATCH_CHARS):
                continue
            budget -= len(text)
            if sum(map(len, batches[-1])) + len(text) > _BATCH_CHARS:
                batches.append([])
            batches[-1].append(text)
        for batch in batches:
            for text, analysis in zip(batch, self._analyse(batch), strict=True):
                self._keep(text, analysis)

    def _analyse(self, texts: Sequence[str]) -> list[TextAnalysis]:
        notes = {
            text: f"fallback: {reason}; sentences by rule, equal POS weights"
            for text in texts
            if self.nlp.lang == "en" and (reason := reason_not_english(text))
        }
        limit = min(self.nlp.max_length, _PIECE_CHARS)
        pieces = (
            (piece, (number, offset))
            for number, text in enumerate(texts)
            if text not in notes
            for offset, piece in _pieces(text, limit)
        )
        words: list[list[TaggedWord]] = [[] for _ in texts]
        starts: list[list[int]] = [[] for _ in texts]
        for doc, (number, offset) in self.nlp.pipe(pieces, as_tuples=True, batch_size=_BATCH_TEXTS):
            words[number] += [
                TaggedWord(offset + token.idx, offset + token.idx + len(token), token.pos_)
                for token in doc
                if not token.is_space
            ]
            starts[number] += [offset + sentence.start_char for sentence in doc.sents]
        return [
            analyse_by_rule(text, notes[text])
            if text in notes
            else TextAnalysis(tuple(words[number]), self._with_openers(text, starts[number]))
            for number, text in enumerate(texts)
        ]

    def _with_openers(self, text: str, starts: list[int]) -> tuple[int, ...]:
        if self.nlp.lang == "en":
            starts = sorted({*starts, *missed_sentence_starts(text)})
        return tuple(starts)

    def _cached(self, text: str) -> TextAnalysis | None:
        with self._lock:
            cached = self._cache.get(text)
            if cached is not None:
                self._cache.move_to_end(text)
            return cached

    def _keep(self, text: str, analysis: TextAnalysis) -> None:
        if len(text) > _BATCH_CHARS:
            return
        with self._lock:
            if text in self._cache:
                return
            self._cache[text] = analysis
            self._n_cached_chars += len(text)
            while self._n_cached_chars > self._max_cached_chars:
                self._n_cached_chars -= len(self._cache.popitem(last=False)[0])


@lru_cache(maxsize=8)
def load_language(pipeline: str) -> Language:
    """Load a spaCy pipeline once per process.

    pipeline: `builtin`, the name of an installed pipeline package, or a path.

    Raises:
        ConfigError: the pipeline cannot be loaded, or sets no parts of speech or sentences.
    """
    import spacy
    from thinc.api import use_ops

    builtin = Path(str(files("omnitrace_core"))) / "assets" / "en_ud_small"
    source = builtin if pipeline == BUILTIN else pipeline
    try:
        # With numpy's matrix products, analysis takes 0.7 of the time (benchmarks/texts.py).
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


def load_language_without_torch(pipeline: str) -> Language:
    """As `load_language`, for a process in which nothing else uses spaCy.

    spaCy's tensor library imports torch if it is installed, which the builtin pipeline does not
    need: this saves 180 MiB and half of the start of every process that analyses texts. spaCy
    pipelines that use torch do not work in this process afterwards. Not safe to call from several
    threads.

    Raises:
        ConfigError: as `load_language`.
    """
    if pipeline == BUILTIN and "torch" not in sys.modules:
        # None makes `import torch` raise ImportError.
        sys.modules["torch"] = cast(ModuleType, None)
        try:
            import thinc.compat  # noqa: F401
        finally:
            del sys.modules["torch"]
    return load_language(pipeline)


def _pieces(text: str, limit: int) -> Iterator[tuple[int, str]]:
    """Cut `text` into pieces of at most `limit` characters, each with its offset.

    Cuts are after a newline if there is one, else after a space, else anywhere.
    """
    start = 0
    while start < len(text):
        end = min(start + limit, len(text))
        if end < len(text):
            newline, space = text.rfind("\n", start, end), text.rfind(" ", start, end)
            cut = newline if newline >= 0 else space
            end = cut + 1 if cut >= 0 else end
        yield start, text[start:end]
        start = end
