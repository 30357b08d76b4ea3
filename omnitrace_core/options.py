"""All settings of the core, as frozen models; a run's YAML adds those of the pipeline.

Descriptions say "paper" where a default comes from the OmniTrace paper.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from omnitrace_core.access.stores import store_prefix
from omnitrace_core.access.web import host_pattern
from omnitrace_core.addresses import shown_address
from omnitrace_core.base_options import Device, Gpus
from omnitrace_core.base_options import Options as Options

DAY_S = 86_400
_PIXELS = 10**10  # of a square of 100,000 by 100,000
_MIB = 2**20  # MiB in a TiB
_GridSide = Annotated[int, Field(ge=1, le=256)]


class ModelOptions(Options):
    """Which model is traced, and how it is loaded."""

    path: str = Field(description="Local directory or hub id of the model, or omnitrace-tiny.")
    backend: str = Field("auto", description="Backend name; auto finds it by the model's config.")
    revision: str | None = Field(None, description="Pinned hub commit; unused for local models.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Dtype of the weights; auto: the checkpoint's on a GPU, float32 on a CPU.",
    )
    device: Device = Field(
        "auto", description="cpu, cuda, cuda:0; auto uses a GPU if there is one."
    )
    attention: Literal["sdpa", "flash_attention_2", "eager"] = Field(
        "sdpa", description="Attention used in generation; traces do not depend on it."
    )
    replicas: int = Field(1, ge=1, le=100_000, description="Model replicas (trace actors).")
    gpus_per_replica: Gpus = Field(0, description="GPUs of each replica; 0 runs on the CPU.")
    batch_tokens: int = Field(
        16_384,
        ge=1,
        le=10**9,
        description="Token budget of one batch: samples x (longest prompt + longest response).",
    )


class DecodeOptions(Options):
    """How responses are generated."""

    max_new_tokens: int = Field(
        256, ge=1, le=10**6, description="Largest number of generated tokens (paper: 256)."
    )
    do_sample: bool = Field(False, description="Sample instead of greedy decoding.")
    seed: int = Field(
        0, ge=0, le=2**63 - 1, description="Seed for sampling; recorded in the output."
    )
    no_repeat_ngram_size: int = Field(
        0,
        ge=0,
        le=10**6,
        description="Length of n-grams that may not repeat response or prompt; 0 is off.",
    )
    cache: Literal["dynamic", "static"] = Field(
        "dynamic",
        description="Key-value cache of generation: growing, or allocated at full size first.",
    )


class TraceOptions(Options):
    """Which signals are traced and what is stored."""

    enabled: bool = Field(True, description="False: only generate, without signals and spans.")
    signals: tuple[str, ...] = Field(
        ("attmean",), description="Names of signals; curation uses the first one."
    )
    projection: Literal["mass", "peak"] = Field(
        "mass",
        description="How a token's unit is chosen: largest mass (paper, Algorithm 1) or peak.",
    )
    store: Literal["units", "positions", "none"] = Field(
        "units",
        description="Content of traces/: masses per unit, or also per prompt position (large).",
    )
    precision: Literal["model", "float32"] = Field(
        "model",
        description="Precision of the replay. float32 costs a half-precision model a second "
        "prefill and gives attention rows free of its rounding (not for streams).",
    )
    rows_mib: int = Field(
        128,
        ge=1,
        le=_MIB,
        description="Largest memory of attention rows held at once in the replay, in MiB.",
    )
    heatmaps: bool = Field(
        False,
        description="Write heatmaps/: for each span, the first signal over each image and frame.",
    )

    head_files: dict[str, str] = Field(
        {},
        description="Paths of the files of heads: signals, by name; the pipeline sets it.",
    )

    @property
    def keeps_positions(self) -> bool:
        """Whether the rows over prompt positions are kept after folding."""
        return self.store == "positions" or self.heatmaps

    @model_validator(mode="after")
    def _some_signal(self) -> TraceOptions:
        if not self.signals:
            raise ValueError("trace.signals is empty; name at least one, for example [attmean]")
        if len(set(self.signals)) != len(self.signals):
            raise ValueError(f"trace.signals names a signal twice: {list(self.signals)}")
        if self.heatmaps and not self.enabled:
            raise ValueError("trace.heatmaps needs traces; set trace.enabled=true")
        return self


class UnitOptions(Options):
    """What counts as one source unit."""

    text: Literal["sentence", "part"] = Field("sentence", description="Unit of text parts.")
    image: Literal["whole", "grid"] = Field("whole", description="Unit of images.")
    grid: tuple[_GridSide, _GridSide] = Field(
        (3, 3),
        description="Rows and columns of units.image=grid; cells are larger than image tokens.",
    )
    audio: Literal["bins", "chunks"] = Field(
        "bins",
        description="Fixed time bins, or the speech chunks found by asr.engine with time bins in "
        "the gaps between them.",
    )
    bin_s: float = Field(
        1.0, ge=0.001, le=DAY_S, description="Seconds per time bin (paper and its release: 1 s)."
    )
    instructions: Literal["exclude", "include"] = Field(
        "exclude", description="Whether instruction text can be a source."
    )


class SpanOptions(Options):
    """How the response is cut into spans."""

    pipeline: str = Field(
        "builtin",
        description="spaCy pipeline: builtin, a package such as en_core_web_sm, or a path.",
    )
    level: Literal["sentence", "clause"] = Field("sentence", description="What one span covers.")


_PAPER_PRESET: dict[str, Any] = {"pools": "per_modality", "pool_min": 0.0}


class CurationOptions(Options):
    """How token votes become a span's sources (paper, A.1); each step can be switched off."""

    preset: Literal["default", "paper"] = Field(
        "default",
        description="paper: pools per modality and no pool threshold, unless they are set here.",
    )
    pools: Literal["joint", "per_modality"] = Field(
        "joint",
        description="joint: units of all modalities compete for a token's vote; "
        "per_modality: only units of one modality compete.",
    )
    pool_min: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Pools with a smaller share of the span's unit mass are ignored.",
    )
    coverage: float = Field(
        0.85, gt=0, le=1, description="Stop when the selected shares sum to this."
    )
    p_min: float = Field(
        0.07, ge=0, le=1, description="A unit with a smaller share needs a run of votes."
    )
    run_min: float = Field(
        0.10, ge=0, le=1, description="Run of votes that keeps a unit below p_min."
    )
    alpha: float = Field(0.8, ge=0, le=1, description="Weight of share versus run in the score.")
    gamma: float = Field(
        2.0, ge=0, le=1000, description="Exponent of a token's confidence in its vote."
    )
    min_confidence: float = Field(
        0.0,
        ge=0,
        le=10**9,
        description="Spans below it are marked unsupported; calibrate it per model and signal.",
    )
    pos_weighting: bool = Field(True, description="Weight votes by part of speech.")
    confidence: bool = Field(True, description="Weight votes by confidence ** gamma.")
    runs: bool = Field(
        True, description="Use contiguous runs of votes in the score and the filter."
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("preset") == "paper":
            return {**_PAPER_PRESET, **values}
        return values


class MediaOptions(Options):
    """Limits on media, and a run's defaults for sampling frames."""

    roots: tuple[str, ...] = Field(
        (), description="Folders that local media must lie in; empty allows every local path."
    )
    allow: tuple[str, ...] | None = Field(
        None,
        description="Addresses in stores below which media may be read, such as "
        "s3://bucket/folder/; [] allows none. null: the bucket or container that the input lies "
        "on, and what `omnitrace ingest --media-root` wrote into its shards.",
    )
    web_hosts: tuple[str, ...] = Field(
        (),
        description="Hosts that https media may come from: names, or *.example.com for all hosts "
        "below example.com; empty allows none. http is never read.",
    )
    web_timeout_s: float = Field(
        120.0,
        gt=0,
        le=DAY_S,
        description="Time limit in seconds for one web file, redirects and download together.",
    )
    max_bytes: int = Field(2 * 1024**3, ge=1, le=2**50, description="Largest media file in bytes.")
    max_image_pixels: int = Field(
        178_956_970,
        ge=1,
        le=_PIXELS,
        description="Largest image and largest video frame, in pixels.",
    )
    max_audio_s: float = Field(
        3_600.0, gt=0, le=365 * DAY_S, description="Longest audio in seconds."
    )
    max_video_s: float = Field(
        3_600.0, gt=0, le=365 * DAY_S, description="Longest video in seconds."
    )
    max_frames: int = Field(
        768, ge=2, le=10**6, description="Largest number of sampled frames of one video."
    )
    max_decoded_mib: int = Field(
        512,
        ge=1,
        le=_MIB,
        description="Largest size in MiB of all decoded media of one sample, at the size that the "
        "model gets: 3 bytes per pixel of images and frames, 4 per audio sample. Options of parts, "
        "such as min_pixels, cannot exceed it.",
    )
    image_max_pixels: int | None = Field(
        None,
        ge=784,
        le=_PIXELS,
        description="Larger images are scaled down to this; None: the model's limit.",
    )
    video_fps: float = Field(
        2.0, ge=0.001, le=1000, description="Sampled frames per second (paper: 2)."
    )
    video_total_pixels: int = Field(
        4_200_000,
        ge=1,
        le=10**6 * _PIXELS,
        description="Pixel budget of all sampled frames of a video (paper).",
    )
    max_heard_s: float | None = Field(
        None,
        gt=0,
        le=365 * DAY_S,
        description="Sounds are heard for this many seconds at most, counted from audio_start, and "
        "those of videos from the first frame; a note says so. None: to the end (the feature "
        "extractor of Qwen2.5-Omni hears 300 s).",
    )
    video_sound: bool = Field(True, description="Use the sound tracks of videos.")
    video_reader: Literal["pyav", "decord"] = Field(
        "pyav",
        description="Library that decodes frames of video files. decord is a second opinion: it is "
        "slower, and refuses more. Pillow reads animations and lists of frames (noted for decord).",
    )
    isolate: bool | None = Field(
        None,
        description="Decode in a supervised child process; None: yes in runs, no in OmniTracer.",
    )
    decode_timeout_s: float = Field(
        600.0,
        gt=0,
        le=DAY_S,
        description="Longest time in seconds without progress (a frame, a block of a download) "
        "before the decoding process is killed; needs isolate.",
    )
    decode_memory_mib: int = Field(
        4096,
        ge=256,
        le=_MIB,
        description="Memory limit of the decoding process in MiB; needs isolate (and Linux).",
    )

    @field_validator("allow")
    @classmethod
    def _prefixes(cls, entries: tuple[str, ...] | None) -> tuple[str, ...] | None:
        """As `_in_normal_form`."""
        if entries is None:
            return None
        return tuple(sorted({_named_prefix(entry) for entry in entries}))

    @field_validator("web_hosts")
    @classmethod
    def _in_normal_form(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        """Make the run's fingerprint independent of spelling and order."""
        return tuple(sorted({host_pattern(host) for host in hosts}))


def _named_prefix(entry: str) -> str:
    try:
        return store_prefix(entry)
    except ValueError as error:
        raise ValueError(f"{shown_address(entry)!r}: {error}") from None


# The settings of `asr` that name models.
SPEECH_MODELS = ("model", "vad_model", "punc_model", "embedding")


class AsrOptions(Options):
    """The speech engine of units.audio = chunks, and how its sentences are joined to chunks.

    A model is a local directory, or a hub id with its pinned commit: name@<40 digits>.
    """

    engine: str = Field(
        "vad",
        description="given (segments in the sample), vad (speech intervals, no words), paraformer, "
        "whisper or scribe.",
    )
    model: str | None = Field(
        None,
        description="Model of paraformer or whisper; for scribe the name of its model (scribe_v2).",
    )
    vad_model: str | None = Field(
        None, description="paraformer: FunASR model that finds speech; null uses silero-vad."
    )
    punc_model: str | None = Field(
        None, description="paraformer: FunASR model that adds punctuation; null adds none."
    )
    language: str | None = Field(
        None,
        description="whisper, scribe: spoken language, such as en; null detects it. paraformer: "
        "only null, because the model determines it.",
    )
    device: Device = Field(
        "cpu",
        description="paraformer, whisper, embedding: cpu, cuda, cuda:0; auto uses a GPU if any.",
    )
    threads: int = Field(1, ge=1, le=1024, description="Torch threads of a local engine.")
    batch_s: float = Field(
        60.0,
        gt=0,
        le=DAY_S,
        description="Largest batch of a local engine, in seconds of padded speech.",
    )
    chunking: Literal["auto", "join", "none"] = Field(
        "auto",
        description="Whether segments are joined to chunks. auto: if they have text and are not "
        "given; none: each segment is a chunk.",
    )
    embedding: str | None = Field(
        None,
        description="Sentence embedding model that decides where chunks end (paper: bge-m3); null "
        "uses pauses and punctuation.",
    )
    min_chunk_s: float = Field(
        5.0, ge=0, le=DAY_S, description="Shorter chunks are extended (paper: 5 s)."
    )
    max_chunk_s: float = Field(
        60.0, gt=0, le=DAY_S, description="Longest speech chunk (paper: 60 s)."
    )
    base_url: str | None = Field(
        None, description="scribe: address of another server; null uses that of ElevenLabs."
    )
    timeout_s: float = Field(
        240.0, gt=0, le=DAY_S, description="scribe: longest wait for one response."
    )
    retries: int = Field(
        3, ge=0, le=10, description="scribe: further tries when the service is busy or fails."
    )

    @field_validator("base_url")
    @classmethod
    def _safe_address(cls, address: str | None) -> str | None:
        if address is None:
            return None
        parts = urlsplit(address)
        if "@" in parts.netloc:
            raise ValueError("an address must not contain credentials; set ELEVENLABS_API_KEY")
        if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError(
                "the API key is sent only by https or to this machine; use an https:// address"
            )
        return address
