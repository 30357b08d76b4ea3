"""Whether and how the segments of an engine are joined to chunks."""

from __future__ import annotations

from collections.abc import Sequence

from omnitrace_core.asr.chunking.boundaries import chunk_by_meaning, chunk_by_pauses
from omnitrace_core.asr.chunking.embedding import TextEmbedder, load_embedder
from omnitrace_core.asr.engines.model_folder import check_model
from omnitrace_core.options import AsrOptions
from omnitrace_core.records import Segment
from omnitrace_core.runtime.process_state import kept_process


class SpeechChunker:
    """Joins segments as `asr.chunking` and `asr.embedding` say."""

    def __init__(self, options: AsrOptions) -> None:
        """Check that the embedding model is there.

        Raises:
            BackendError: it is neither a directory nor a pinned hub id.
        """
        if options.embedding is not None:
            check_model("asr.embedding", options.embedding, options.engine)
        self._options = options

    def chunks(self, segments: Sequence[Segment]) -> tuple[Segment, ...]:
        """Chunks in order of time; no segments give none.

        Raises:
            BackendError: the embedding model cannot be loaded.
        """
        options = self._options
        if not segments or not self._joins(segments):
            return tuple(segments)
        texts = [segment.text for segment in segments]
        # Silence between what has no text says nothing of its meaning.
        if options.embedding is None or not all(texts):
            return chunk_by_pauses(segments, options.min_chunk_s, options.max_chunk_s)
        embedder = self._embedder(options.embedding)
        with kept_process(options.threads, "transformers"):
            vectors = embedder.embed(texts)
        return chunk_by_meaning(segments, vectors, options.min_chunk_s, options.max_chunk_s)

    def load(self) -> None:
        """Load the embedding model, if one may be asked. Raises: BackendError: it cannot be."""
        if self._may_join and self._options.embedding is not None:
            self._embedder(self._options.embedding)

    def _embedder(self, model: str) -> TextEmbedder:
        return load_embedder(model, self._options.device, self._options.threads)

    @property
    def _may_join(self) -> bool:
        if self._options.chunking == "auto":
            return self._options.engine != "given"
        return self._options.chunking == "join"

    def _joins(self, segments: Sequence[Segment]) -> bool:
        has_text = any(segment.text for segment in segments)
        return self._may_join and (has_text or self._options.chunking == "join")
