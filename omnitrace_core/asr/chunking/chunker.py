"""Join the speech segments of an engine to speech chunks, as the settings of `asr` say."""

from __future__ import annotations

from collections.abc import Sequence

from omnitrace_core.asr.chunking.boundaries import chunk_by_meaning, chunk_by_pauses
from omnitrace_core.asr.chunking.embedding import TextEmbedder, load_embedder
from omnitrace_core.asr.engines.model_folder import check_model
from omnitrace_core.options import AsrOptions
from omnitrace_core.records import SpeechChunk, SpeechSegment
from omnitrace_core.runtime.process_state import preserve_process_state


class SpeechChunker:
    """Joins speech segments to speech chunks by `asr.chunking` and `asr.embedding`."""

    def __init__(self, options: AsrOptions) -> None:
        """Check that `asr.embedding` names a model; it is loaded when it is first needed.

        Raises:
            BackendError: `asr.embedding` is neither a directory nor a pinned hub id.
        """
        if options.embedding is not None:
            check_model("asr.embedding", options.embedding, options.engine)
        self._options = options

    def chunks(self, segments: Sequence[SpeechSegment]) -> tuple[SpeechChunk, ...]:
        """The chunks of one sound in order of time; none if there are no segments.

        Raises:
            BackendError: the embedding model cannot be loaded.
        """
        options = self._options
        if not segments or not self._joins(segments):
            return tuple(SpeechChunk(s.start_s, s.end_s, s.text, s.words) for s in segments)
        texts = [segment.text for segment in segments]
        # A segment without text has no meaning to compare.
        if options.embedding is None or not all(texts):
            return chunk_by_pauses(segments, options.min_chunk_s, options.max_chunk_s)
        embedder = self._embedder(options.embedding)
        with preserve_process_state(options.threads, "transformers"):
            vectors = embedder.embed(texts)
        return chunk_by_meaning(segments, vectors, options.min_chunk_s, options.max_chunk_s)

    def load(self) -> None:
        """Load the embedding model now if it may be needed.

        Raises:
            BackendError: the embedding model cannot be loaded.
        """
        if self._may_join and self._options.embedding is not None:
            self._embedder(self._options.embedding)

    def _embedder(self, model: str) -> TextEmbedder:
        return load_embedder(model, self._options.device, self._options.threads)

    @property
    def _may_join(self) -> bool:
        if self._options.chunking == "auto":
            return self._options.engine != "given"
        return self._options.chunking == "join"

    def _joins(self, segments: Sequence[SpeechSegment]) -> bool:
        has_text = any(segment.text for segment in segments)
        return self._may_join and (has_text or self._options.chunking == "join")
