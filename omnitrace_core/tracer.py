"""Trace samples in a notebook or script: `OmniTracer(model).trace(samples)`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from omnitrace_core import release
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
from omnitrace_core.records import Attribution, ReadySample, TokenTrace
from omnitrace_core.release import ChunkerConfig
from omnitrace_core.result import TraceResult
from omnitrace_core.samples.sample_input import SampleInput, as_sequence, is_single
from omnitrace_core.tracing.batch_tracer import BatchTracer

if TYPE_CHECKING:
    from omnitrace_core.backends.base import Backend
    from omnitrace_core.reader import SampleReader
    from omnitrace_core.text.spans import Segmenter
    from omnitrace_core.tracing.streaming import StreamedToken


class OmniTracer:
    """Traces single samples and small lists, without Ray.

    ```python
    tracer = OmniTracer("path-or-hub-id", signals=("attmean", "attraw"))
    result = tracer.trace({"messages": [{"role": "user", "content": "..."}]})
    print(result)
    ```
    """

    def __init__(
        self,
        model: str | ModelOptions | None = None,
        signals: str | Sequence[str] = ("attmean",),
        model_path: str | None = None,
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
        """Keep the settings; the model loads at first use.

        model: local directory, hub id, `omnitrace-tiny`, or `ModelOptions`. signals: names; the
        first one chooses the sources. trace: overrides `signals`.
        model_name, method, model_path: the published release's spelling of the model (`qwen`), of a
        single signal, and of where the model's files are. They may also be passed by position, in
        this order.

        Raises:
            ConfigError: no model is named, or it is named twice, or it has no backend.
        """
        self.model_options = _model_options(model, model_name, model_path, revision)
        names = method if method is not None else signals
        self.trace_options = trace or TraceOptions(
            signals=(release.signal_name(names),) if isinstance(names, str) else tuple(names)
        )
        self.decode = decode or DecodeOptions()
        self.units = units or UnitOptions()
        self.spans = spans or SpanOptions()
        self.curation = curation or CurationOptions()
        self.media = media or MediaOptions()
        self.asr = asr or AsrOptions()
        self._readers: dict[tuple[UnitOptions, AsrOptions], SampleReader] = {}

    @property
    def backend(self) -> Backend:
        """The loaded backend.

        `.model` is the transformers model; `.prepare(samples)` makes its inputs from what `trace`
        takes.
        """
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
    def trace(self, samples: SampleInput) -> TraceResult: ...
    @overload
    def trace(self, samples: Sequence[SampleInput]) -> list[TraceResult]: ...
    @overload
    def trace(self, *, modality: str, **arguments: Any) -> TraceResult: ...
    def trace(
        self,
        samples: SampleInput | Sequence[SampleInput] | None = None,
        *,
        modality: str | None = None,
        **arguments: Any,
    ) -> TraceResult | list[TraceResult]:
        """Trace one sample (returns one result) or several (a list), in any accepted input form.

        The response of a sample is replayed; where there is none, the model generates it first.
        Relative media paths start at the working directory.
        modality, arguments: the published release's call. `trace(modality="audio", ...)` is
        `trace_audio(...)`; `video` and `image_text` likewise.

        Raises:
            SampleError: the first sample that could not be traced; see `trace_each`.
            ConfigError: there is no such modality, or samples are passed with it.
            FatalError: the model cannot be loaded or run.
        """
        if modality is None and arguments and isinstance(samples, str):
            samples, modality = None, samples  # the release also takes the modality by position
        if modality is not None:
            return self._trace_modality(modality, samples, arguments)
        if arguments:
            raise TypeError(f"trace() got an unexpected keyword argument {next(iter(arguments))!r}")
        results: list[TraceResult] = []
        for outcome in self._trace_each(as_sequence(samples), self._reader()):
            if isinstance(outcome, SampleError):
                raise outcome
            results.append(outcome)
        return results[0] if is_single(samples) else results

    def trace_each(
        self, samples: SampleInput | Sequence[SampleInput]
    ) -> list[TraceResult | SampleError]:
        """Like `trace` of several samples, with the error of a failed sample in its place.

        One sample counts as a list of one.

        Raises:
            InvalidSample: this is neither a sample nor a sequence of samples.
            FatalError: the model cannot be loaded or run.
        """
        return self._trace_each(as_sequence(samples), self._reader())

    def stream(self, sample: SampleInput) -> Iterator[StreamedToken]:
        """Generate the response of one sample and yield each token with its top source unit.

        Tokens and numbers equal those of `trace` of this sample alone. (With `decode.do_sample` the
        samples of a batch share one random generator, so a token also depends on the batch.) A
        sample with a response is followed token by token. The stream ends at the end token or after
        `decode.max_new_tokens`.

        Raises:
            ConfigError: this is not one sample.
            SampleError: the sample cannot be read or traced.
            FatalError: the model cannot be loaded or run.
        """
        if not is_single(sample):
            raise ConfigError(f"stream takes one sample, not a {type(sample).__name__}")
        ready = self._reader().read_input(sample)
        yield from self._tracer.stream(ready, self.units.instructions)

    def trace_image_text(
        self, prompt: str, content: Sequence[object], generation_config: None = None
    ) -> TraceResult:
        """Trace texts and images, called as in the published release.

        prompt: an instruction, which is not a source. content: `{"type": "text", "text": ...}` and
        `{"type": "image", "image": ...}` in reading order.

        Raises:
            ConfigError: `generation_config` is set; see `DecodeOptions`.
            SampleError, FatalError: see `trace`.
        """
        release.refuse_generation_config(generation_config)
        return self.trace(release.image_text_sample(prompt, content))

    def trace_audio(
        self,
        prompt: str,
        audio: object,
        audio_chunk_mode: str = "time_bins",
        bin_size: float = 1.0,
        asr_model: str = "scribe_v2",
        semantic_chunks: Sequence[object] | None = None,
        chunker_config: ChunkerConfig | None = None,
        generation_config: None = None,
    ) -> TraceResult:
        """Trace a sound, called as in the published release.

        prompt: an instruction, which is not a source. audio: address or bytes of a file.
        audio_chunk_mode: `time_bins` of `bin_size` seconds, or `semantic`: chunks of speech.
        semantic_chunks: used as they are if given, each with start and end in seconds and its text
        (mappings, `SpeechSegment`, or the release's own objects).
        asr_model: the engine that finds the speech if `semantic_chunks` is not given: `paraformer`,
        `whisper`, `scribe_v2`, or an engine of `list_asr_engines()`; `no_asr` cuts the sound into
        bins of `bin_size` seconds.
        chunker_config: how speech is found and joined. Settings that it leaves at None, and model
        addresses, come from the tracer's `AsrOptions`.

        Raises:
            ConfigError: an argument is invalid or cannot be honoured.
            UnknownName: no speech engine is named `asr_model`.
            BackendError: a model, a package or a key that the engine needs is missing.
            SampleError, FatalError: see `trace`.
        """
        release.refuse_generation_config(generation_config)
        call = release.audio_call(
            prompt,
            audio,
            audio_chunk_mode=audio_chunk_mode,
            bin_size=bin_size,
            asr_model=asr_model,
            semantic_chunks=semantic_chunks,
            chunker_config=chunker_config,
            units=self.units,
            asr=self.asr,
        )
        return self._trace_one(call.sample, self._reader(call.units, call.asr))

    def trace_video(
        self,
        prompt: str,
        video: object,
        video_fps: float | None = None,
        video_max_pixels: int | None = None,
        generation_config: None = None,
    ) -> TraceResult:
        """Trace a video, called as in the published release.

        prompt: an instruction, which is not a source. video: address or bytes of a file. video_fps:
        sampled frames per second; the bins of the sound are then as long as a step of the frames.
        video_max_pixels: of all sampled frames together. None: the defaults of `MediaOptions`.

        Raises:
            ConfigError: an argument is invalid or cannot be honoured.
            SampleError, FatalError: see `trace`.
        """
        release.refuse_generation_config(generation_config)
        frames_per_step = self._reader().options.rules.frame_factor
        units = release.video_units(self.units, video_fps, frames_per_step)
        sample = release.video_sample(prompt, video, video_fps, video_max_pixels)
        return self._trace_one(sample, self._reader(units))

    def get_backend_info(self) -> dict[str, object]:
        """What the published release's method of this name returns; loads the model.

        Raises:
            FatalError: the model cannot be loaded.
        """
        backend = self.backend
        config: Any = backend.model.config
        return {
            "model_name": self.model_options.path,
            "method": self.trace_options.signals[0],
            "model_type": backend.name,
            "special_token_count": len(set(backend.tokenizer.all_special_ids)),
            "audio_token_id": getattr(config, "audio_token_id", -1),
            "vision_token_id": getattr(config, "video_token_id", -1),
            "image_token_id": getattr(config, "image_token_id", -1),
        }

    def _trace_modality(
        self, modality: str, samples: object, arguments: Mapping[str, Any]
    ) -> TraceResult:
        if samples is not None:
            raise ConfigError(
                "trace takes either samples or modality with its arguments, not both; to trace "
                "samples of any modality, leave modality out"
            )
        result: TraceResult = getattr(self, release.method_of_modality(modality))(**arguments)
        return result

    def _trace_one(self, sample: SampleInput, reader: SampleReader) -> TraceResult:
        (outcome,) = self._trace_each([sample], reader)
        if isinstance(outcome, SampleError):
            raise outcome
        return outcome

    def _trace_each(
        self, samples: Sequence[SampleInput], reader: SampleReader
    ) -> list[TraceResult | SampleError]:
        read = reader.read_inputs(samples)
        ready = [item for item in read if isinstance(item, ReadySample)]
        traced = zip(ready, self._tracer.trace(ready), strict=True)
        finished = (
            trace if isinstance(trace, SampleError) else self._finish(item, trace)
            for item, trace in traced
        )
        return [item if isinstance(item, SampleError) else next(finished) for item in read]

    def _finish(self, ready: ReadySample, trace: TokenTrace) -> TraceResult:
        """Cut the response into spans and choose their sources."""
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

    def _reader(
        self, units: UnitOptions | None = None, asr: AsrOptions | None = None
    ) -> SampleReader:
        """The reader with these settings, kept with its speech engine; None: the tracer's own."""
        from omnitrace_core.backends import media_rules
        from omnitrace_core.reader import ReadingOptions, SampleReader

        key = (units or self.units, asr or self.asr)
        if key not in self._readers:
            rules = media_rules(self.model_options)
            options = ReadingOptions(rules, self.media, *key, self.spans)
            self._readers[key] = SampleReader(options)
        return self._readers[key]

    @cached_property
    def _tracer(self) -> BatchTracer:
        return BatchTracer(self.model_options, self.decode, self.trace_options, self._reader())

    @cached_property
    def _segmenter(self) -> Segmenter:
        from omnitrace_core.text.spans import Segmenter

        return Segmenter(self.spans)


def _model_options(
    model: str | ModelOptions | None,
    model_name: str | None,
    model_path: str | None,
    revision: str | None,
) -> ModelOptions:
    if model_name is None and model_path is not None and release.is_model_name(model):
        model, model_name = None, str(model)  # the release takes the model's name by position
    if model is not None and (model_name is not None or model_path is not None):
        raise ConfigError("OmniTracer needs either model or model_name (or model_path), not both")
    if isinstance(model, ModelOptions):
        return model
    name = model if model is not None else model_name
    if model_path is not None:
        name = model_path
    elif name is None:
        raise ConfigError("OmniTracer needs either model or model_name; neither was given")
    elif not Path(name).is_dir():
        name = release.model_path(str(name))
    return ModelOptions(path=str(name), revision=revision)
