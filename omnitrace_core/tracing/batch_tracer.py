"""From ready samples to token traces: batching, generation or replay, folding.

This is what a trace actor runs. One sample's failure is returned in its place, the others go on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from omnitrace_core.backends.caches import can_keep_prompt
from omnitrace_core.errors import (
    BackendError,
    ConfigError,
    DeviceBroken,
    FatalError,
    OutOfMemory,
    SampleError,
    TraceError,
)
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import Message, Part, ReadySample, Sample, SourceUnit, TokenTrace
from omnitrace_core.tracing.batching import Item, batches
from omnitrace_core.tracing.detokenize import decode_response
from omnitrace_core.tracing.folding import SampleFolds
from omnitrace_core.tracing.replay import check_layers, replay
from omnitrace_core.tracing.responses import Response, generated_response, known_response
from omnitrace_core.tracing.signals import check_shape, load_signal
from omnitrace_core.tracing.streaming import StreamedToken, stream_tokens
from omnitrace_core.tracing.widening import widened
from omnitrace_core.units.cut import candidate_units

if TYPE_CHECKING:
    from omnitrace_core.backends.base import Backend, Encoded, PrefilledPrompt, Prepared
    from omnitrace_core.reader import SampleReader

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TracedBy:
    """Which model explains: the one that generated, or replayed another's response."""

    model: str
    revision: str
    dtype: str
    attention: str
    device: str


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
        self.signals = {
            name: load_signal(name, self.options.head_files.get(name))
            for name in self.options.signals
        }
        self.backend: Backend = load_backend(model, reader)
        if self.options.enabled:
            check_layers(self.backend.decoder, self.signals)
            check_shape(self.signals, self.backend.decoder.config)
        self._batch_tokens = model.batch_tokens
        # Seconds that replays took so far: what tracing adds to generating.
        self.replay_s = 0.0
        # The model is switched to the tap now and then: one user at a time.
        self._lock = threading.Lock()
        # A tokenizer keeps on itself how its next call is to read special tokens: one user, too.
        self._encoding = threading.Lock()
        weights = self.backend.model
        dtype = str(weights.dtype).removeprefix("torch.")
        self._widens = self.options.precision == "float32" and dtype != "float32"
        self.traced_by = TracedBy(
            model=model.path,
            revision=model.revision or str(getattr(weights.config, "_commit_hash", None) or ""),
            dtype=f"{dtype}, replayed in float32" if self._widens else dtype,
            attention=model.attention,
            device=str(weights.device.type),
        )

    def trace(self, ready: Sequence[ReadySample]) -> list[TokenTrace | SampleError]:
        """Trace each sample; failures of single samples are returned in their place.

        Raises:
            FatalError: the process cannot go on (a broken device, a model that cannot be tapped).
        """
        return self.trace_prepared(self.prepare(ready))

    def warm_up(self) -> None:
        """Run the model over a prompt of one character: whether it and its device work at all.

        Raises:
            BackendError: they do not.
        """
        part = Part(type="text", text=".")
        sample = Sample("warm-up", (Message("user", (part,)),), response=".")
        unit = SourceUnit(0, "text_part", "text", 0, text=".", char_start=0, char_end=1)
        try:
            encoded = self.backend.encode(ReadySample(sample, {}, (unit,)))
            prompt = self.backend.prefill(self.backend.collate([encoded]))
            # Kernels are started, not waited for; reading a number waits for all before it.
            float(prompt.last_embedding.sum())
        except (RuntimeError, MemoryError) as error:
            told = self.traced_by
            raise BackendError(
                f"{told.model} cannot work on {told.device} in {told.dtype} with "
                f"{told.attention} attention: {type(error).__name__}: {error}"
            ) from error

    def prepare(self, ready: Sequence[ReadySample]) -> list[Item | SampleError]:
        """Make each sample's model inputs, on the CPU; other threads may trace, or prepare in turn.

        Raises:
            FatalError: the process cannot go on.
        """
        items: list[Item | SampleError] = []
        for index, sample in enumerate(ready):
            try:
                items.append(self._item(index, sample))
            except FatalError:
                raise
            except SampleError as error:
                items.append(error)
            except Exception as error:  # noqa: BLE001  (what we did not foresee costs one sample)
                items.append(_as_sample_error(sample, 0, error))
        return items

    def trace_prepared(
        self, prepared: Sequence[Item | SampleError]
    ) -> list[TokenTrace | SampleError]:
        """Trace what `prepare` made; its errors stay where they are.

        Raises:
            FatalError: the process cannot go on.
        """
        import torch

        # Whatever mode the caller is in: tensors of inference mode take no gradient.
        with self._lock, torch.inference_mode(False):
            return self._trace(prepared)

    def stream(self, ready: ReadySample, instructions: str = "exclude") -> Iterator[StreamedToken]:
        """Answer (or follow the known response of) one sample, token by token as they come.

        instructions: whether units that instruct can be a token's top unit (`units.instructions`).

        Raises:
            SampleError: the sample cannot be traced.
            ConfigError: the settings ask for a second pass (`trace.precision`).
            FatalError: the process cannot go on.
        """
        import torch

        if self._widens:
            raise ConfigError(
                "a stream reads the pass that generates, and trace.precision=float32 asks for a "
                "second one; stream with trace.precision=model"
            )
        item = self._item(0, ready)
        given = None if item.response is None else item.response.token_ids
        candidates = candidate_units(ready.units, instructions)
        tokens = stream_tokens(
            self.backend, item.encoded, self.signals, self.decode, self.options, candidates, given
        )
        while True:
            try:
                with self._lock, torch.inference_mode(False):
                    token = next(tokens, None)
            except (MemoryError, RuntimeError) as error:
                raise _as_sample_error(ready, item.encoded.n_prompt, error) from error
            if token is None:
                return
            yield token

    def _trace(self, prepared: Sequence[Item | SampleError]) -> list[TokenTrace | SampleError]:
        results: dict[int, TokenTrace | SampleError] = {}
        items: list[Item] = []
        for place, item in enumerate(prepared):
            if isinstance(item, SampleError):
                results[place] = item
            else:
                items.append(replace(item, index=place))
        for batch in batches(items, self._batch_tokens):
            for item, outcome in zip(batch, self._trace_guarded(batch), strict=True):
                results[item.index] = outcome
        return [results[place] for place in range(len(prepared))]

    def _item(self, index: int, ready: ReadySample) -> Item:
        with self._encoding:
            encoded = self.backend.encode(ready)
            response = known_response(ready.sample, self.backend.tokenizer, self.backend.end_ids)
        longest = self.decode.max_new_tokens if response is None else len(response.token_ids)
        return Item(index, encoded, response, encoded.n_prompt + longest)

    def _trace_guarded(self, batch: Sequence[Item]) -> list[TokenTrace | SampleError]:
        """The row guard of tracing: halve on memory, then sample by sample, then an error."""
        try:
            return list(self._trace_batch(batch))
        except (FatalError, KeyboardInterrupt):
            raise
        except SampleError as error:
            if len(batch) == 1:
                return [error]
        except Exception as error:  # noqa: BLE001  (what we did not foresee costs one sample)
            first = batch[0].encoded
            if len(batch) == 1 or _is_broken(error):
                return [_as_sample_error(first.ready, first.n_prompt, error)]
            log.warning("a batch of %d failed (%s); tracing its halves", len(batch), error)
        _free_memory()
        half = len(batch) // 2
        return [*self._trace_guarded(batch[:half]), *self._trace_guarded(batch[half:])]

    def _trace_batch(self, batch: Sequence[Item]) -> list[TokenTrace]:
        """Trace samples that all have a response, or all have none."""
        prepared = self.backend.collate([item.encoded for item in batch])
        prompt: PrefilledPrompt | None = None
        responses = [item.response for item in batch if item.response is not None]
        if not responses:
            generated = self.backend.generate(prepared, self.decode)
            ends = self.backend.end_ids
            responses = [generated_response(row, ends) for row in generated.token_ids.tolist()]
            kept = can_keep_prompt(generated.prompt.cache, *_before_last(prepared))
            if kept and not self._widens:
                prompt = generated.prompt
            del generated  # a cache that cannot be used makes room for the one that will be
        folds = None
        if self.options.enabled:
            folds = self._replay(prepared, prompt, [item.token_ids for item in responses])
        return [
            self._as_trace(item, response, folds[row] if folds else None)
            for row, (item, response) in enumerate(zip(prepared.encoded, responses, strict=True))
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
        started = time.perf_counter()
        backend = self.backend
        rows_bytes = self.options.rows_mib * 1024**2
        with widened(backend.decoder) if self._widens else nullcontext():
            prompt = prompt or backend.prefill(prepared)
            slices = replay(
                backend.decoder, backend.output_head, prompt, responses, self.signals, rows_bytes
            )
            for part in slices:
                for row, sample in enumerate(folds):
                    sample.add(part, row)
                del part  # before the next one is made
        self.replay_s += time.perf_counter() - started
        return folds

    def _as_trace(self, item: Encoded, response: Response, folds: SampleFolds | None) -> TokenTrace:
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


def _as_sample_error(ready: ReadySample, n_prompt: int, error: Exception) -> SampleError:
    """An unforeseen failure of one sample as its error; a broken device is fatal instead."""
    where = f"sample {ready.sample.sample_id!r} ({n_prompt} prompt tokens)"
    if _is_out_of_memory(error):
        return OutOfMemory(f"{where} does not fit the device even alone; shorten it")
    if _is_broken(error):
        raise DeviceBroken(f"{where}: the device is broken ({error})") from error
    log.exception("%s failed", where)
    return TraceError(f"{where}: {type(error).__name__}: {error}")


# What torch and the CUDA libraries say when they get no memory, in whatever class of exception.
_NO_MEMORY = ("out of memory", "ALLOC_FAILED", "can't allocate memory")


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _NO_MEMORY)


def _is_broken(error: Exception) -> bool:
    """Whether the device's context is poisoned: nothing will run on it again."""
    return "CUDA error" in str(error) and not _is_out_of_memory(error)


def _before_last(prepared: Prepared) -> tuple[int, int]:
    """Samples, and prompt positions but the last, of a batch."""
    batch, length = prepared.input_ids.shape
    return batch, length - 1


def _free_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
