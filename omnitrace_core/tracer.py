"""The notebook door: `OmniTracer(model).trace(samples)`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, overload

from omnitrace_core.errors import ConfigError, SampleError
from omnitrace_core.options import (
    AsrOptions,
    CurationOptions,
    DecodeOptions,
    MediaOptions,
    ModelOptions,
    SpanOptions,
    TraceOptions,
    UnitOptions,
)
from omnitrace_core.positions import Positions
from omnitrace_core.records import (
    Attribution,
    Float32,
    Fold,
    ReadySample,
    Sample,
    Segmentation,
    SourceUnit,
    TokenTrace,
)
from omnitrace_core.samples.parse import parse_any, with_default_id
from omnitrace_core.tracing.batch_tracer import BatchTracer

if TYPE_CHECKING:
    from omnitrace_core.attribution.heatmaps import HeatMap
    from omnitrace_core.backends.base import Backend
    from omnitrace_core.reader import SampleReader
    from omnitrace_core.text.spans import Segmenter
    from omnitrace_core.tracing.streaming import StreamedToken

AnyInput = Sample | Mapping[str, object]


@dataclass(frozen=True, slots=True)
class TraceResult:
    """One traced sample.

    token_ids, tokens, logprobs: n_gen entries. folds: by signal, arrays [n_gen, n_units] float32.
    spans: each span of the response with its curated sources.
    """

    sample: Sample
    units: tuple[SourceUnit, ...]
    trace: TokenTrace
    segmentation: Segmentation
    spans: tuple[Attribution, ...]

    @property
    def response(self) -> str:
        """The generated or replayed response."""
        return self.trace.response

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Response token ids, [n_gen]; the end token is not one of them."""
        return self.trace.token_ids

    @property
    def tokens(self) -> tuple[str, ...]:
        """The text of each response token, [n_gen]; joined they are the response."""
        return self.trace.tokens

    @property
    def logprobs(self) -> Float32:
        """Log probability of each response token, [n_gen] float32."""
        return self.trace.logprobs

    @property
    def positions(self) -> Positions | None:
        """The rows over prompt positions, if `TraceOptions(store="positions")` kept them."""
        return self.trace.positions

    def heatmaps(self, signal: str | None = None) -> tuple[HeatMap, ...]:
        """What each span weighs in each image and step of a video, by patch.

        signal: by default the first.

        Raises:
            ConfigError: the rows were not kept, or there is no such signal.
        """
        from omnitrace_core.attribution.heatmaps import span_heatmaps

        if self.positions is None:
            raise ConfigError(
                "heat maps need the rows over prompt positions; trace with "
                'TraceOptions(store="positions")'
            )
        rows = self.positions.rows
        name = signal if signal is not None else next(iter(rows))
        if name not in rows:
            raise ConfigError(f"signal {name!r} was not traced; traced: {sorted(rows)}")
        return span_heatmaps(rows[name], self.positions.prompt, self.segmentation)

    @property
    def folds(self) -> Mapping[str, Fold]:
        """Each signal folded into the sample's units."""
        return self.trace.folds


class OmniTracer:
    """Traces single samples and small lists, without Ray.

    ```python
    tracer = OmniTracer("path-or-hub-id", signals=("attmean", "attraw"))
    result = tracer.trace({"messages": [{"role": "user", "content": "..."}], "sample_id": "a"})
    ```
    """

    def __init__(
        self,
        model: str | ModelOptions | None = None,
        signals: Sequence[str] = ("attmean",),
        *,
        model_name: str | None = None,
        method: str | None = None,
        revision: str | None = None,
        decode: DecodeOptions | None = None,
        trace: TraceOptions | None = None,
        units: UnitOptions | None = None,
        spans: SpanOptions | None = None,
        curation: CurationOptions | None = None,
        media: MediaOptions | None = None,
        asr: AsrOptions | None = None,
    ) -> None:
        """Remember the settings; the model loads at first use.

        model: local directory, hub id or `ModelOptions`. model_name, method: the published
        release's spelling of model (`qwen`) and of a single signal. trace: overrides `signals`.

        Raises:
            ConfigError: no model is named, or it is named twice.
        """
        self.model_options = _model_options(model, model_name, revision)
        chosen = (method,) if method is not None else tuple(signals)
        self.trace_options = trace or TraceOptions(signals=chosen)
        self.decode = decode or DecodeOptions()
        self.units = units or UnitOptions()
        self.spans = spans or SpanOptions()
        self.curation = curation or CurationOptions()
        self.media = media or MediaOptions()
        self.asr = asr or AsrOptions()

    @property
    def backend(self) -> Backend:
        """The loaded backend; `.model` is the transformers model, `.prepare(...)` its inputs."""
        return self._tracer.backend

    def load(self) -> OmniTracer:
        """Load the model and the language pipeline now; otherwise the first trace does.

        Raises:
            BackendError: the model cannot be loaded.
            ConfigError: the language pipeline cannot be loaded.
            UnknownName: a backend or signal of this name does not exist.
        """
        _ = self._tracer, self._segmenter
        return self

    @overload
    def trace(self, samples: AnyInput) -> TraceResult: ...
    @overload
    def trace(self, samples: Sequence[AnyInput]) -> list[TraceResult]: ...
    def trace(self, samples: AnyInput | Sequence[AnyInput]) -> TraceResult | list[TraceResult]:
        """Trace one sample (one result) or a list (a list), in any accepted input form.

        A sample with a response is replayed, one without is answered first. Relative media paths
        resolve against the working directory.

        Raises:
            SampleError: the first sample that could not be traced; see `trace_each`.
            FatalError: the model cannot be loaded or run.
        """
        if isinstance(samples, Sample | Mapping):
            return self.trace([samples])[0]
        results: list[TraceResult] = []
        for outcome in self.trace_each(samples):
            if isinstance(outcome, SampleError):
                raise outcome
            results.append(outcome)
        return results

    def trace_each(self, samples: Sequence[AnyInput]) -> list[TraceResult | SampleError]:
        """Like `trace`, with the failures of single samples in their place."""
        outcomes: list[TraceResult | SampleError | None] = []
        ready: list[ReadySample] = []
        for number, sample in enumerate(samples, start=1):
            try:
                if not isinstance(sample, Sample):
                    sample = with_default_id(sample, f"sample-{number}")
                ready.append(self._reader.read(parse_any(sample)))
                outcomes.append(None)
            except SampleError as error:
                outcomes.append(error)
        traced = zip(ready, self._tracer.trace(ready), strict=True)
        finished = (
            trace if isinstance(trace, SampleError) else self._finish(item, trace)
            for item, trace in traced
        )
        return [next(finished) if outcome is None else outcome for outcome in outcomes]

    def stream(self, sample: AnyInput) -> Iterator[StreamedToken]:
        """Answer one sample and yield each token, with its top source unit, as it is generated.

        The same tokens and numbers as `trace` of this sample alone (when sampling, who shares a
        batch changes what is drawn). A sample with a response is followed token by token. The
        stream ends at the end token or after `decode.max_new_tokens`.

        Raises:
            SampleError: the sample cannot be read or traced.
            FatalError: the model cannot be loaded or run.
        """
        if not isinstance(sample, Sample | Mapping):
            raise ConfigError(f"stream takes one sample, not a {type(sample).__name__}")
        if not isinstance(sample, Sample):
            sample = parse_any(with_default_id(sample, "sample-1"))
        yield from self._tracer.stream(self._reader.read(sample), self.units.instructions)

    def _finish(self, ready: ReadySample, trace: TokenTrace) -> TraceResult:
        from omnitrace_core.attribution.curation import curate

        segmentation = self._segmenter.segment(trace.response, trace.char_spans)
        spans: tuple[Attribution, ...] = ()
        if self.trace_options.enabled:
            spans = curate(
                trace.folds[self.trace_options.signals[0]],
                ready.units,
                segmentation,
                self.curation,
                self.trace_options.projection,
                self.units.instructions,
            )
        return TraceResult(ready.sample, ready.units, trace, segmentation, spans)

    @cached_property
    def _reader(self) -> SampleReader:
        from omnitrace_core.backends import media_rules
        from omnitrace_core.reader import ReadingOptions, SampleReader

        rules = media_rules(self.model_options)
        return SampleReader(ReadingOptions(rules, self.media, self.units, self.asr, self.spans))

    @cached_property
    def _tracer(self) -> BatchTracer:
        return BatchTracer(self.model_options, self.decode, self.trace_options, self._reader)

    @cached_property
    def _segmenter(self) -> Segmenter:
        from omnitrace_core.text.spans import Segmenter

        return Segmenter(self.spans)


def _model_options(
    model: str | ModelOptions | None, model_name: str | None, revision: str | None
) -> ModelOptions:
    from omnitrace_core.backends import HUB_IDS

    if (model is None) == (model_name is None):
        raise ConfigError("OmniTracer needs either model or model_name, and not both")
    if isinstance(model, ModelOptions):
        return model
    name = model if model is not None else HUB_IDS.get(model_name or "", model_name)
    return ModelOptions(path=str(name), revision=revision)
