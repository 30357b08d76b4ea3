"""Trace ready samples: encode, group into batches, generate or replay, fold.

A trace actor runs this. If one sample fails, its error is returned in its place and the other
samples are traced.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from omnitrace_core.backends.caches import can_keep_prompt
from omnitrace_core.errors import BackendError, ConfigError, FatalError, SampleError
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.printable import printable_message
from omnitrace_core.records import Message, Part, ReadySample, Sample, SourceUnit, TokenTrace
from omnitrace_core.tracing.batching import TraceInput, batches
from omnitrace_core.tracing.failures import as_sample_error, free_memory, is_broken_device
from omnitrace_core.tracing.folding import SampleFolds
from omnitrace_core.tracing.replay.decoder_replay import check_layers, replay
from omnitrace_core.tracing.replay.widening import widened
from omnitrace_core.tracing.responses import ResponseTokens, generated_response, known_response
from omnitrace_core.tracing.signals import check_head_weights, load_signal
from omnitrace_core.tracing.streaming import StreamedToken, stream_tokens
from omnitrace_core.tracing.token_trace import token_trace
from omnitrace_core.units.cut import candidate_units

if TYPE_CHECKING:
    from omnitrace_core.backends.base import Backend, PrefilledPrompt, PreparedBatch
    from omnitrace_core.reader import SampleReader

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TracedBy:
    """The model whose signals a trace holds; it generated the response, or replayed a known one."""

    model: str
    revision: str
    dtype: str
    attention: str
    device: str


class BatchTracer:
    """Traces ready samples with one model, in batches under a token budget.

    Several threads may use one tracer. They encode and trace at the same time, but only one of them
    at a time runs the model, and only one the tokenizer.
    """

    def __init__(
        self,
        model: ModelOptions,
        decode: DecodeOptions | None = None,
        trace: TraceOptions | None = None,
        reader: SampleReader | None = None,
    ) -> None:
        """Load the model and the signals.

        Raises:
            BackendError: the model cannot be loaded, or a signal does not support it.
            ConfigError: a signal cannot be loaded, or its head weights do not fit the model.
            UnknownName: no signal or backend has this name.
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
            check_head_weights(self.signals, self.backend.decoder.config)
        self._batch_tokens = model.batch_tokens
        # Seconds that all replays took so far, which is what tracing adds to generation.
        self.replay_s = 0.0
        # A replay switches the model to tapped attention, so one thread at a time uses the model.
        self._model_lock = threading.Lock()
        # A tokenizer stores on itself how its next call treats special tokens.
        self._tokenizer_lock = threading.Lock()
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

    def warm_up(self) -> None:
        """Run the model over a prompt of one character, to find out whether the device works.

        Raises:
            BackendError: the model does not run on its device.
        """
        part = Part(type="text", text=".")
        sample = Sample("warm-up", (Message("user", (part,)),), response=".")
        unit = SourceUnit(0, "text_part", "text", 0, text=".", char_start=0, char_end=1)
        try:
            encoded = self.backend.encode(ReadySample(sample, {}, (unit,)))
            prompt = self.backend.prefill(self.backend.collate([encoded]))
            # A GPU computes asynchronously; reading a number waits until it has finished.
            float(prompt.last_embedding.sum())
        except (RuntimeError, MemoryError) as error:
            by = self.traced_by
            raise BackendError(
                f"{by.model} cannot work on {by.device} in {by.dtype} with {by.attention} "
                f"attention: {type(error).__name__}: {error}"
            ) from error

    def trace(self, ready: Sequence[ReadySample]) -> list[TokenTrace | SampleError]:
        """Trace each sample; a failed sample's error is returned in its place.

        Raises:
            FatalError: the process cannot go on (a broken device, a model that cannot be tapped).
        """
        return self.trace_encoded(self.encode(ready))

    def encode(self, ready: Sequence[ReadySample]) -> list[TraceInput | SampleError]:
        """Make each sample's model inputs, on the CPU; a failed sample's error is in its place.

        Raises:
            FatalError: the process cannot go on.
        """
        encoded: list[TraceInput | SampleError] = []
        for index, sample in enumerate(ready):
            try:
                encoded.append(self._encode_one(index, sample))
            except FatalError:
                raise
            except SampleError as error:
                encoded.append(error)
            except Exception as error:  # noqa: BLE001  (an unforeseen error costs one sample)
                encoded.append(as_sample_error(sample, 0, error))
        return encoded

    def trace_encoded(
        self, encoded: Sequence[TraceInput | SampleError]
    ) -> list[TokenTrace | SampleError]:
        """Trace what `encode` returned; its errors are passed through.

        Raises:
            FatalError: the process cannot go on.
        """
        import torch

        # Off even if the caller has it on: tensors made in inference mode take no gradient.
        with self._model_lock, torch.inference_mode(False):
            return self._trace(encoded)

    def stream(self, ready: ReadySample, instructions: str = "exclude") -> Iterator[StreamedToken]:
        """Generate the response of one sample (or follow its known one) token by token.

        instructions: whether an instruction unit can be a token's top unit (`units.instructions`).

        Raises:
            SampleError: the sample cannot be traced.
            ConfigError: `trace.precision` needs a second pass.
            FatalError: the process cannot go on.
        """
        import torch

        if self._widens:
            raise ConfigError(
                "a stream reads the pass that generates, but trace.precision=float32 needs a "
                "second pass; stream with trace.precision=model"
            )
        item = self._encode_one(0, ready)
        known_ids = None if item.response is None else item.response.token_ids
        candidates = candidate_units(ready.units, instructions)
        tokens = stream_tokens(
            self.backend,
            item.encoded,
            self.signals,
            self.decode,
            self.options,
            candidates,
            known_ids,
        )
        while True:
            try:
                with self._model_lock, torch.inference_mode(False):
                    token = next(tokens, None)
            except (MemoryError, RuntimeError) as error:
                raise as_sample_error(ready, item.encoded.n_prompt, error) from error
            if token is None:
                return
            yield token

    def _encode_one(self, index: int, ready: ReadySample) -> TraceInput:
        with self._tokenizer_lock:
            encoded = self.backend.encode(ready)
            response = known_response(ready.sample, self.backend.tokenizer, self.backend.end_ids)
        n_response = self.decode.max_new_tokens if response is None else len(response.token_ids)
        return TraceInput(index, encoded, response, encoded.n_prompt + n_response)

    def _trace(self, encoded: Sequence[TraceInput | SampleError]) -> list[TokenTrace | SampleError]:
        results: dict[int, TokenTrace | SampleError] = {}
        inputs: list[TraceInput] = []
        for index, item in enumerate(encoded):
            if isinstance(item, SampleError):
                results[index] = item
            else:
                inputs.append(replace(item, index=index))
        for batch in batches(inputs, self._batch_tokens):
            for item, result in zip(batch, self._trace_or_halve(batch), strict=True):
                results[item.index] = result
        return [results[index] for index in range(len(encoded))]

    def _trace_or_halve(self, batch: Sequence[TraceInput]) -> list[TokenTrace | SampleError]:
        """Trace a batch; if it fails, trace its halves, down to single samples and their errors."""
        try:
            return list(self._trace_batch(batch))
        except (FatalError, KeyboardInterrupt):
            raise
        except SampleError as error:
            if len(batch) == 1:
                return [error]
        except Exception as error:  # noqa: BLE001  (an unforeseen error costs one sample)
            first = batch[0].encoded
            if len(batch) == 1 or is_broken_device(error):
                return [as_sample_error(first.ready, first.n_prompt, error)]
            cause = printable_message(error)
            log.warning("a batch of %d failed (%s); tracing its halves", len(batch), cause)
        free_memory()
        half = len(batch) // 2
        return [*self._trace_or_halve(batch[:half]), *self._trace_or_halve(batch[half:])]

    def _trace_batch(self, batch: Sequence[TraceInput]) -> list[TokenTrace]:
        """Trace samples that either all have a known response or all have none."""
        prepared = self.backend.collate([item.encoded for item in batch])
        prompt: PrefilledPrompt | None = None
        responses = [item.response for item in batch if item.response is not None]
        if not responses:
            responses, prompt = self._generate(prepared)
        folds = None
        if self.options.enabled:
            folds = self._replay(prepared, prompt, [item.token_ids for item in responses])
        tokenizer = self.backend.tokenizer
        return [
            token_trace(tokenizer, encoded, response, folds[index] if folds else None)
            for index, (encoded, response) in enumerate(
                zip(prepared.encoded, responses, strict=True)
            )
        ]

    def _generate(
        self, prepared: PreparedBatch
    ) -> tuple[list[ResponseTokens], PrefilledPrompt | None]:
        """The generated responses, and the state of the prompt if the replay can start from it."""
        generated = self.backend.generate(prepared, self.decode)
        end_ids = self.backend.end_ids
        responses = [generated_response(ids, end_ids) for ids in generated.token_ids.tolist()]
        n_samples, n_prompt = prepared.input_ids.shape
        reusable = can_keep_prompt(generated.prompt.cache, n_samples, n_prompt - 1)
        return responses, generated.prompt if reusable and not self._widens else None

    def _replay(
        self,
        prepared: PreparedBatch,
        prompt: PrefilledPrompt | None,
        responses: Sequence[Sequence[int]],
    ) -> list[SampleFolds]:
        """Fold every sample's rows, one slice of the responses after the other."""
        folds = [
            SampleFolds(encoded, unit_index, len(response), self.options)
            for encoded, unit_index, response in zip(
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
            for replayed in slices:
                for index, sample_folds in enumerate(folds):
                    sample_folds.add(replayed, index)
                del replayed  # frees its rows before the next slice is computed
        self.replay_s += time.perf_counter() - started
        return folds
