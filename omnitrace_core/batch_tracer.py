"""From ready samples to token traces: batching, generation or replay, folding.

This is what a trace actor runs. One sample's failure is returned in its place, the others go on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from omnitrace_core.caches import can_keep_prompt
from omnitrace_core.curation import candidate_units
from omnitrace_core.detokenize import decode_response
from omnitrace_core.errors import FatalError, OutOfMemory, ResponseEmpty, SampleError, TraceError
from omnitrace_core.folding import SampleFolds
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import ReadySample, Sample, TokenTrace
from omnitrace_core.replay import check_layers, replay
from omnitrace_core.signals import load_signal
from omnitrace_core.streaming import StreamedToken, stream_tokens

if TYPE_CHECKING:
    from omnitrace_core.backends.base import Backend, Encoded, PrefilledPrompt, Prepared
    from omnitrace_core.reader import SampleReader

FinishReason = Literal["stop", "length", "given"]
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TracedBy:
    """Which model explains: the one that generated, or replayed another's response."""

    model: str
    revision: str
    dtype: str
    attention: str
    device: str


@dataclass(frozen=True, slots=True)
class _Response:
    """A response as token ids, before its trace."""

    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    notes: tuple[str, ...] = ()


class BatchTracer:
    """Traces ready samples with one model, in batches under a token budget."""

    def __init__(
        self,
        model: ModelOptions,
        decode: DecodeOptions | None = None,
        trace: TraceOptions | None = None,
        reader: SampleReader | None = None,
    ) -> None:
        """Load the model.

        Raises:
            BackendError: the model cannot be loaded.
            UnknownName: a signal or backend of this name does not exist.
        """
        from omnitrace_core.backends import load_backend

        self.decode = decode or DecodeOptions()
        self.options = trace or TraceOptions()
        self.signals = {name: load_signal(name) for name in self.options.signals}
        self.backend: Backend = load_backend(model, reader)
        if self.options.enabled:
            check_layers(self.backend.decoder)
        self._batch_tokens = model.batch_tokens
        weights = self.backend.model
        self.traced_by = TracedBy(
            model=model.path,
            revision=model.revision or str(getattr(weights.config, "_commit_hash", None) or ""),
            dtype=str(weights.dtype).removeprefix("torch."),
            attention=model.attention,
            device=str(weights.device.type),
        )

    def trace(self, ready: Sequence[ReadySample]) -> list[TokenTrace | SampleError]:
        """Trace each sample; failures of single samples are returned in their place.

        Raises:
            FatalError: the process cannot go on (a broken device, a model that cannot be tapped).
        """
        import torch

        # Whatever mode the caller is in: tensors of inference mode take no gradient.
        with torch.inference_mode(False):
            return self._trace(ready)

    def stream(self, ready: ReadySample, instructions: str = "exclude") -> Iterator[StreamedToken]:
        """Answer (or follow the known response of) one sample, token by token as they come.

        instructions: whether units that instruct can be a token's top unit (`units.instructions`).

        Raises:
            SampleError: the sample cannot be traced.
            FatalError: the process cannot go on.
        """
        import torch

        item = self.backend.encode(ready)
        given = self._given(ready.sample).token_ids if item.given else None
        candidates = candidate_units(ready.units, instructions)
        tokens = stream_tokens(
            self.backend, item, self.signals, self.decode, self.options, candidates, given
        )
        while True:
            try:
                with torch.inference_mode(False):
                    token = next(tokens, None)
            except (MemoryError, torch.OutOfMemoryError) as error:
                raise _as_sample_error(ready, item.n_prompt, error) from error
            if token is None:
                return
            yield token

    def _trace(self, ready: Sequence[ReadySample]) -> list[TokenTrace | SampleError]:
        results: list[TokenTrace | SampleError | None] = [None] * len(ready)
        encoded: list[tuple[int, Encoded]] = []
        for index, sample in enumerate(ready):
            try:
                encoded.append((index, self.backend.encode(sample)))
            except FatalError:
                raise
            except SampleError as error:
                results[index] = error
            except Exception as error:  # noqa: BLE001  (what we did not foresee costs one sample)
                results[index] = _as_sample_error(sample, 0, error)
        for batch in _batches(encoded, self._batch_tokens):
            outcomes = self._trace_guarded([item for _, item in batch])
            for (index, _), outcome in zip(batch, outcomes, strict=True):
                results[index] = outcome
        return [result for result in results if result is not None]

    def _trace_guarded(self, batch: Sequence[Encoded]) -> list[TokenTrace | SampleError]:
        """The row guard of tracing: halve on memory, then sample by sample, then an error."""
        try:
            return list(self._trace_batch(batch))
        except (FatalError, KeyboardInterrupt):
            raise
        except SampleError as error:
            if len(batch) == 1:
                return [error]
        except Exception as error:  # noqa: BLE001  (what we did not foresee costs one sample)
            if len(batch) == 1:
                return [_as_sample_error(batch[0].ready, batch[0].n_prompt, error)]
            log.warning("a batch of %d failed (%s); tracing its halves", len(batch), error)
        _free_memory()
        half = len(batch) // 2
        return [*self._trace_guarded(batch[:half]), *self._trace_guarded(batch[half:])]

    def _trace_batch(self, batch: Sequence[Encoded]) -> list[TokenTrace]:
        """Trace samples that all have a response, or all have none."""
        prepared = self.backend.collate(batch)
        prompt: PrefilledPrompt | None = None
        if batch[0].given:
            responses = [self._given(item.ready.sample) for item in batch]
        else:
            generated = self.backend.generate(prepared, self.decode)
            responses = [self._cut(row) for row in generated.token_ids.tolist()]
            prompt = generated.prompt
        folds = None
        if self.options.enabled:
            folds = self._replay(prepared, prompt, [item.token_ids for item in responses])
        return [
            self._as_trace(item, response, folds[row] if folds else None)
            for row, (item, response) in enumerate(zip(batch, responses, strict=True))
        ]

    def _replay(
        self,
        prepared: Prepared,
        prompt: PrefilledPrompt | None,
        responses: Sequence[Sequence[int]],
    ) -> list[SampleFolds]:
        """Fold every sample's rows, slice by slice as they come."""
        folds = [
            SampleFolds(item, index, len(response), self.options)
            for item, index, response in zip(
                prepared.encoded, prepared.unit_index, responses, strict=True
            )
        ]
        if not any(responses):
            return folds
        prompt = self._replayable(prepared, prompt)
        backend = self.backend
        rows_bytes = self.options.rows_mib * 1024**2
        slices = replay(
            backend.decoder, backend.output_head, prompt, responses, self.signals, rows_bytes
        )
        for part in slices:
            for row, sample in enumerate(folds):
                sample.add(part, row)
        return folds

    def _replayable(self, prepared: Prepared, prompt: PrefilledPrompt | None) -> PrefilledPrompt:
        """The prompt's state as the replay needs it: of the generation if its cache can be used."""
        batch, length = prepared.input_ids.shape
        if prompt is not None and can_keep_prompt(prompt.cache, batch, length - 1):
            return prompt
        return self.backend.prefill(prepared)

    def _cut(self, token_ids: Sequence[int]) -> _Response:
        """A generated row up to its end token, which is not part of the response."""
        for index, token_id in enumerate(token_ids):
            if token_id in self.backend.end_ids:
                return _Response(tuple(token_ids[:index]), "stop")
        return _Response(tuple(token_ids), "length")

    def _given(self, sample: Sample) -> _Response:
        """The token ids of a known response: as given, or the text tokenized canonically."""
        vocabulary = len(self.backend.tokenizer)
        if sample.response_token_ids is not None:
            ids = list(sample.response_token_ids)
            wrong = [token_id for token_id in ids if not 0 <= token_id < vocabulary]
            if wrong:
                raise TraceError(
                    f"sample {sample.sample_id!r}: response_token_ids holds {wrong[0]}, outside "
                    f"the model's vocabulary of {vocabulary}; give ids of this model's tokenizer"
                )
            while ids and ids[-1] in self.backend.end_ids:
                ids.pop()
            if not ids:
                raise ResponseEmpty(
                    f"sample {sample.sample_id!r}: response_token_ids holds nothing but the end "
                    "token; leave it out to have the model answer"
                )
            text, _ = decode_response(self.backend.tokenizer, ids)
            if sample.response is not None and sample.response.strip() != text.strip():
                raise TraceError(
                    f"sample {sample.sample_id!r}: response_token_ids decode to {text[:60]!r}, not "
                    f"to the response {sample.response[:60]!r}; they are of another tokenizer, or "
                    "of another response: correct them or leave them out"
                )
            return _Response(tuple(ids), "given")
        encoded = self.backend.tokenizer(
            sample.response or "", add_special_tokens=False, split_special_tokens=True
        )
        note = "the response was given as text and tokenized canonically"
        return _Response(tuple(encoded["input_ids"]), "given", (note,))

    def _as_trace(
        self, item: Encoded, response: _Response, folds: SampleFolds | None
    ) -> TokenTrace:
        n_gen = len(response.token_ids)
        text, char_spans = decode_response(self.backend.tokenizer, response.token_ids)
        notes = item.ready.notes + item.notes + response.notes
        given = item.ready.sample.response
        if given is not None and given != text:
            notes += ("the traced tokens decode to a slightly other text than the given response",)
        if not response.token_ids:
            notes += ("the model ended at once: there is nothing to trace",)
        return TokenTrace(
            response=text,
            token_ids=response.token_ids,
            tokens=tuple(text[start:end] for start, end in char_spans),
            char_spans=char_spans,
            logprobs=np.zeros(n_gen, np.float32) if folds is None else folds.logprobs(),
            finish_reason=response.finish_reason,
            n_prompt_tokens=item.n_prompt,
            folds={} if folds is None else folds.folds(),
            notes=notes,
            positions=None if folds is None else folds.positions(),
        )


def _batches(
    encoded: Sequence[tuple[int, Encoded]], budget: int
) -> Iterator[list[tuple[int, Encoded]]]:
    """Batches of like samples (given or not, sound inside videos or not), by falling length.

    A batch's cost is its longest prompt times its samples; a sample above the budget goes alone.
    """
    groups: dict[tuple[bool, bool], list[tuple[int, Encoded]]] = {}
    for entry in encoded:
        item = entry[1]
        groups.setdefault((item.given, item.sound_in_video is True), []).append(entry)
    for key in sorted(groups):
        batch: list[tuple[int, Encoded]] = []
        for entry in sorted(groups[key], key=lambda entry: -entry[1].n_prompt):
            if batch and batch[0][1].n_prompt * (len(batch) + 1) > budget:
                yield batch
                batch = []
            batch.append(entry)
        yield batch


def _as_sample_error(ready: ReadySample, n_prompt: int, error: Exception) -> SampleError:
    """An unforeseen failure of one sample as its error; a broken device is fatal instead."""
    import torch

    where = f"sample {ready.sample.sample_id!r} ({n_prompt} prompt tokens)"
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return OutOfMemory(f"{where} does not fit the device even alone; shorten it")
    if "CUDA error" in str(error):
        raise FatalError(f"{where}: the device is broken ({error})") from error
    log.exception("%s failed", where)
    return TraceError(f"{where}: {type(error).__name__}: {error}")


def _free_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
