"""Every setting of the core, as frozen models; a run's YAML adds the pipeline's own.

Defaults are DESIGN's; where a number comes from the paper its section is named.
"""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    field_validator,
    model_validator,
)

from omnitrace_core.web_access import host_pattern


class Options(BaseModel):
    """Base of all settings: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelOptions(Options):
    """Which model is traced, and how it is loaded."""

    path: str = Field(description="Local directory or hub id of the model, or omnitrace-tiny.")
    backend: str = Field("auto", description="Backend name; auto finds it from the model's config.")
    revision: str | None = Field(None, description="Pinned hub revision (commit); local: unused.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Weights' dtype; auto takes the checkpoint's, float32 on a CPU."
    )
    device: str = Field("auto", description="cpu, cuda, cuda:0; auto takes a GPU if there is one.")
    attention: Literal["sdpa", "flash_attention_2", "eager"] = Field(
        "sdpa", description="Attention used to generate; tracing does not depend on it."
    )
    replicas: int = Field(1, ge=1, description="Model replicas (trace actors).")
    gpus_per_replica: float = Field(0, ge=0, description="GPUs each replica owns; 0 runs on CPU.")
    batch_tokens: int = Field(
        16_384,
        ge=1,
        description="Token budget of one batch: samples x longest prompt and response together.",
    )


class DecodeOptions(Options):
    """How responses are generated."""

    max_new_tokens: int = Field(256, ge=1, description="Most tokens generated (paper: 256).")
    do_sample: bool = Field(False, description="Sample instead of greedy decoding.")
    seed: int = Field(0, ge=0, description="Seed used when sampling; recorded.")
    no_repeat_ngram_size: int = Field(
        0,
        ge=0,
        description="Forbid repeated n-grams; 0 is off (it also forbids quoting the prompt).",
    )
    cache: Literal["dynamic", "static"] = Field(
        "dynamic", description="Key cache of generation: growing, or of full size from the start."
    )


class TraceOptions(Options):
    """Which signals are traced and what is kept."""

    enabled: bool = Field(True, description="False only generates: no signals, no spans.")
    signals: tuple[str, ...] = Field(("attmean",), description="Signals; the first one is curated.")
    projection: Literal["mass", "peak"] = Field(
        "mass", description="Unit of a token: largest mass (paper, Algorithm 1) or largest peak."
    )
    store: Literal["units", "positions", "none"] = Field(
        "units",
        description="What traces/ keeps: masses per unit, or also per prompt position (large).",
    )
    precision: Literal["model", "float32"] = Field(
        "model",
        description="What the replay runs in; float32 costs a half-precision model a second "
        "prefill, and gives the rows of its weights without its rounding (not for streams).",
    )
    rows_mib: int = Field(
        128, ge=1, description="Most MiB of attention rows alive at once in the replay."
    )
    heatmaps: bool = Field(
        False,
        description="Write heatmaps/: the first signal of each span over each image and frame.",
    )

    head_files: dict[str, str] = Field(
        {},
        description="Where the files of heads: signals lie, by name; the pipeline fills it in.",
    )

    @property
    def keeps_positions(self) -> bool:
        """Whether the rows over prompt positions are needed after folding."""
        return self.store == "positions" or self.heatmaps

    @model_validator(mode="after")
    def _some_signal(self) -> TraceOptions:
        if not self.signals:
            raise ValueError("trace.signals is empty; name at least one, for example [attmean]")
        if len(set(self.signals)) != len(self.signals):
            raise ValueError(f"trace.signals names a signal twice: {list(self.signals)}")
        if self.heatmaps and not self.enabled:
            raise ValueError("trace.heatmaps draws what is traced; set trace.enabled=true")
        return self


class UnitOptions(Options):
    """What counts as one source unit."""

    text: Literal["sentence", "part"] = Field("sentence", description="Unit of text parts.")
    image: Literal["whole", "grid"] = Field("whole", description="Unit of images.")
    grid: tuple[PositiveInt, PositiveInt] = Field(
        (3, 3), description="Rows and columns when units.image is grid; no finer than its tokens."
    )
    audio: Literal["bins", "chunks"] = Field(
        "bins", description="Fixed time bins, or the speech chunks that asr.engine finds."
    )
    bin_s: float = Field(1.0, gt=0, description="Seconds per time bin (paper, release: 1 s).")
    instructions: Literal["exclude", "include"] = Field(
        "exclude", description="Whether instruction text may be named as a source."
    )


class SpanOptions(Options):
    """How the response is cut into spans."""

    pipeline: str = Field(
        "builtin",
        description="spaCy pipeline: builtin, a package name such as en_core_web_sm, a path.",
    )
    level: Literal["sentence", "clause"] = Field("sentence", description="Length of a span.")


_PAPER_PRESET: dict[str, Any] = {"pools": "per_modality", "pool_min": 0.0}


class CurationOptions(Options):
    """How token votes become a span's sources (paper, A.1); each piece can be switched off."""

    preset: Literal["default", "paper"] = Field(
        "default", description="paper: pools per modality, no pool threshold, unless set here."
    )
    pools: Literal["joint", "per_modality"] = Field(
        "joint", description="Whether all units compete for a token's vote, or each modality apart."
    )
    pool_min: float = Field(
        0.05, ge=0, le=1, description="Smallest share of the span's unit mass for a pool to count."
    )
    coverage: float = Field(0.85, gt=0, le=1, description="Stop when taken shares reach this.")
    p_min: float = Field(0.07, ge=0, le=1, description="Share below which a unit needs a run.")
    run_min: float = Field(0.10, ge=0, le=1, description="Run that saves a unit below p_min.")
    alpha: float = Field(0.8, ge=0, le=1, description="Weight of share against run in the score.")
    gamma: float = Field(2.0, ge=0, description="Exponent of a token's confidence in its vote.")
    min_confidence: float = Field(
        0.0, ge=0, description="Spans below it are unsupported; calibrate per model and signal."
    )
    pos_weighting: bool = Field(True, description="Weigh votes by part of speech.")
    confidence: bool = Field(True, description="Weigh votes by confidence ** gamma.")
    runs: bool = Field(True, description="Use contiguous runs in score and filter.")

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("preset") == "paper":
            return {**_PAPER_PRESET, **values}
        return values


class MediaOptions(Options):
    """Limits on media, and run-wide defaults of the sampling rules."""

    roots: tuple[str, ...] = Field(
        (), description="Folders local media may lie in; empty allows any local path."
    )
    web_hosts: tuple[str, ...] = Field(
        (),
        description="Hosts that https media may come from: names, or *.example.com for all below "
        "example.com; empty allows none. http is never read.",
    )
    web_timeout_s: float = Field(
        120.0,
        gt=0,
        le=86_400,
        description="Most seconds for one web file, redirects and download together.",
    )
    max_bytes: int = Field(2 * 1024**3, ge=1, description="Largest media file in bytes.")
    max_image_pixels: int = Field(
        178_956_970, ge=1, description="Largest image, and largest video frame, in pixels."
    )
    max_audio_s: float = Field(3_600.0, gt=0, description="Longest audio in seconds.")
    max_video_s: float = Field(3_600.0, gt=0, description="Longest video in seconds.")
    max_frames: int = Field(768, ge=2, description="Most sampled frames of one video.")
    max_decoded_mib: int = Field(
        512,
        ge=1,
        description="Most MiB of one sample's decoded media together, as the model sees them: 3 "
        "bytes per pixel of images and frames, 4 per sample of sound. Options of parts, such as "
        "min_pixels, cannot exceed it.",
    )
    image_max_pixels: int | None = Field(
        None, ge=784, description="Images are scaled down to this; None takes the model's rule."
    )
    video_fps: float = Field(2.0, gt=0, description="Sampled frames per second (paper: 2).")
    video_total_pixels: int = Field(
        4_200_000, ge=1, description="Pixel budget of all sampled frames of a video (paper)."
    )
    video_sound: bool = Field(True, description="Use the sound track of videos that have one.")
    isolate: bool | None = Field(
        None,
        description="Decode in a supervised child process; None: runs do, OmniTracer does not.",
    )
    decode_timeout_s: float = Field(
        600.0,
        gt=0,
        description="Seconds that fetching or decoding may go without progress (a frame, a block "
        "of a download) before its process is killed; needs isolate.",
    )
    decode_memory_mib: int = Field(
        4096,
        ge=256,
        description="MiB that the decoding process may hold; needs isolate (and Linux).",
    )

    @field_validator("web_hosts")
    @classmethod
    def _in_normal_form(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        """Spelling and order change neither what is allowed nor the run's fingerprint."""
        return tuple(sorted({host_pattern(host) for host in hosts}))


# The settings of `asr` that name models.
SPEECH_MODELS = ("model", "vad_model", "punc_model", "embedding")


class AsrOptions(Options):
    """The speech engine behind units.audio = chunks, and how its sentences are joined to chunks.

    A model is a local directory, or a hub id with its pinned commit: name@<40 digits>.
    """

    engine: str = Field(
        "vad",
        description="given (segments in the sample), vad (speech intervals, no words), paraformer, "
        "whisper, scribe.",
    )
    model: str | None = Field(
        None, description="Model of paraformer and whisper; scribe: its model's name (scribe_v2)."
    )
    vad_model: str | None = Field(
        None, description="paraformer: FunASR model that finds speech; null takes silero-vad."
    )
    punc_model: str | None = Field(
        None, description="paraformer: FunASR model that punctuates; null leaves words bare."
    )
    language: str | None = Field(
        None,
        description="whisper, scribe: language spoken, such as en; null detects it. paraformer: "
        "null alone, its model says which.",
    )
    device: str = Field(
        "cpu", description="paraformer, whisper, embedding: cpu, cuda, cuda:0; auto takes a GPU."
    )
    threads: int = Field(1, ge=1, description="Torch threads of a local engine.")
    batch_s: float = Field(
        60.0, gt=0, description="Most seconds of padded speech in one batch of a local engine."
    )
    chunking: Literal["auto", "join", "none"] = Field(
        "auto",
        description="Join segments to chunks; auto: those with text, except given ones; none: "
        "segments are chunks.",
    )
    embedding: str | None = Field(
        None,
        description="Sentence embedding model that says where chunks part (paper: bge-m3); null "
        "goes by pauses and punctuation.",
    )
    min_chunk_s: float = Field(5.0, ge=0, description="A chunk this short goes on (paper: 5 s).")
    max_chunk_s: float = Field(60.0, gt=0, description="Longest speech chunk (paper: 60 s).")
    base_url: str | None = Field(
        None, description="scribe: another server's address; null takes ElevenLabs' own."
    )
    timeout_s: float = Field(240.0, gt=0, description="scribe: longest wait for one answer.")
    retries: int = Field(
        3, ge=0, le=10, description="scribe: further tries when it is busy or out of order."
    )

    @field_validator("base_url")
    @classmethod
    def _safe_address(cls, address: str | None) -> str | None:
        if address is None:
            return None
        parts = urlsplit(address)
        if "@" in parts.netloc:
            raise ValueError("credentials do not belong in an address; set ELEVENLABS_API_KEY")
        if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError("only https, or this machine itself, may be sent the API key")
        return address
