"""All errors that OmniTrace raises on purpose, in one tree.

    OmniTraceError
    ├── SampleError            this sample failed: recorded as an error row, the run continues
    │   ├── InvalidSample          invalid_sample
    │   │   ├── MissingSampleId    missing_sample_id
    │   │   ├── DuplicateSampleId  duplicate_sample_id
    │   │   └── UnknownPartType    unknown_part_type
    │   ├── InputDamaged           input_damaged
    │   ├── InputUnreadable        input_unreadable
    │   ├── MediaError             media_error
    │   │   ├── MediaMissing       media_missing
    │   │   ├── MediaDenied        media_denied
    │   │   ├── MediaTooLarge      media_too_large
    │   │   ├── MediaEmpty         media_empty
    │   │   ├── MediaCorrupt       media_corrupt
    │   │   ├── MediaTimeout       media_timeout
    │   │   ├── MediaUnavailable   media_unavailable
    │   │   ├── MediaMemory        media_memory
    │   │   └── MediaCrashed       media_crashed
    │   ├── SpeechError            speech_error
    │   │   └── SpeechUnavailable  speech_unavailable
    │   ├── TraceError             trace_error
    │   │   ├── ResponseEmpty      response_empty
    │   │   └── OutOfMemory        out_of_memory
    │   └── Quarantined            quarantined
    ├── DamagedFile            a Parquet file, or a row group of it, cannot be decoded: its reader
    │                          raises or records another error, which names the file
    │   └── UnsupportedFile    it may be intact, but is more than the reader can decode
    ├── InternalError          a bug of ours in another process: recorded with the code internal
    └── FatalError             this process or run cannot continue: re-raised, never recorded
        ├── ConfigError            a setting is wrong (exit code 2, before any work)
        │   └── StoreCredentials   object storage finds no credentials, or refuses them
        ├── InputSchemaError       the input is not samples (exit code 2, before any work)
        ├── UnknownName            a name is not in our tables; the message lists the valid names
        ├── BackendError           the model cannot be loaded or is not what the backend expects
        ├── NodeFault              this machine lacks something that a sample needs (disk, handles)
        │   └── DecoderError           the process that decodes media does not start
        ├── DeviceBroken           the model's device can no longer be used by this process
        ├── StoreUnavailable       object storage did not answer, after all retries
        └── RunError               the pipeline broke a guarantee (rows lost, files that differ)
            ├── LeaseHeld              another driver is working on the run
            └── LeaseLost              another driver took over the run

A sample error carries a stable `code`; tools group error rows by it. A message says what was wrong,
the value found, and the remedy. Values come from samples, so `str(error)`, which Python also prints
in a traceback, is safe for a terminal; `error.message` is the text as it was raised.
"""

from __future__ import annotations

from typing import ClassVar

from omnitrace_core.printable import printable_message


class OmniTraceError(Exception):
    """Base of every error that OmniTrace raises on purpose."""

    @property
    def message(self) -> str:
        """The message as it was raised: it may hold control characters; error rows keep it."""
        return super().__str__()

    def __str__(self) -> str:
        return printable_message(self.message)


class SampleError(OmniTraceError):
    """One sample failed; the pipeline records it as an error row."""

    code: ClassVar[str] = "sample_error"


class InvalidSample(SampleError):
    """The sample's fields do not form a valid input for a model."""

    code = "invalid_sample"


class MissingSampleId(InvalidSample):
    """The sample has no `sample_id`."""

    code = "missing_sample_id"


class DuplicateSampleId(InvalidSample):
    """An earlier row of the same input has this `sample_id`."""

    code = "duplicate_sample_id"


class UnknownPartType(InvalidSample):
    """A part's type is not text, image, audio or video."""

    code = "unknown_part_type"


class InputDamaged(SampleError):
    """The row group of the input that holds the sample cannot be decoded."""

    code = "input_damaged"


class InputUnreadable(SampleError):
    """The row group of the input that holds the sample is more than the reader can decode."""

    code = "input_unreadable"


class MediaError(SampleError):
    """An image, audio or video could not be read or decoded."""

    code = "media_error"


class MediaMissing(MediaError):
    """No file or object at this address."""

    code = "media_missing"


class MediaDenied(MediaError):
    """This run may not read the address, or its owner refuses."""

    code = "media_denied"


class MediaTooLarge(MediaError):
    """The media exceeds one of the limits in `media.*`."""

    code = "media_too_large"


class MediaEmpty(MediaError):
    """The media has no bytes, no frames or no samples."""

    code = "media_empty"


class MediaCorrupt(MediaError):
    """The bytes are not a readable file of the part's type."""

    code = "media_corrupt"


class MediaTimeout(MediaError):
    """Fetching or decoding made no progress for too long, or a download took too long."""

    code = "media_timeout"


class MediaUnavailable(MediaError):
    """The object store did not answer, after all retries."""

    code = "media_unavailable"


class MediaMemory(MediaError):
    """Decoding needs more memory than its limit, or than the machine has."""

    code = "media_memory"


class MediaCrashed(MediaError):
    """The process that decoded the media died."""

    code = "media_crashed"


class SpeechError(SampleError):
    """A speech engine failed on this sample's audio."""

    code = "speech_error"


class SpeechUnavailable(SpeechError):
    """The speech service did not answer, after all retries."""

    code = "speech_unavailable"


class TraceError(SampleError):
    """The model could not generate or replay this sample."""

    code = "trace_error"


class ResponseEmpty(TraceError):
    """The response has no token to trace."""

    code = "response_empty"


class OutOfMemory(TraceError):
    """The sample, traced alone, does not fit in the device's memory."""

    code = "out_of_memory"


class Quarantined(SampleError):
    """Processes died repeatedly while they worked on this sample alone."""

    code = "quarantined"


class DamagedFile(OmniTraceError):
    """A Parquet file, or a row group of it, cannot be decoded; the message says why.

    remedy: what its owner can do.
    """

    remedy: ClassVar[str] = "restore the file, or write it again"


class UnsupportedFile(DamagedFile):
    """What cannot be decoded is a limit of the reader (a codec, encryption, 2 GiB in a value)."""

    remedy: ClassVar[str] = (
        "the file may be intact, but is more than the reader can decode: write it again with "
        "smaller values, in another codec or without encryption"
    )


class InternalError(OmniTraceError):
    """An unexpected exception in another process; the message holds its traceback."""

    code: ClassVar[str] = "internal"


class FatalError(OmniTraceError):
    """The process or the run cannot continue."""


class ConfigError(FatalError):
    """A setting is wrong."""


class StoreCredentials(ConfigError, PermissionError):
    """Object storage finds no credentials, or refuses the ones it was given."""


class InputSchemaError(FatalError):
    """The input cannot be read as samples."""


class UnknownName(FatalError):
    """A name is not in our tables; the message lists the valid names."""


class BackendError(FatalError):
    """The model cannot be loaded, or is not what its backend expects."""


class NodeFault(FatalError, OSError):
    """The machine lacks something, for example disk space or file handles; another may have it.

    node: Ray's id of the machine. chunk: key of the chunk in work. Both are empty until a stage
    fills them in.
    """

    node: str = ""
    chunk: str = ""


class DecoderError(NodeFault):
    """The process that decodes media does not start."""


class DeviceBroken(FatalError):
    """The model's device can no longer be used by this process; a new process may succeed."""


class StoreUnavailable(FatalError, OSError):
    """Object storage did not answer, after all retries."""


class RunError(FatalError):
    """The pipeline broke one of its guarantees."""


class LeaseHeld(RunError):
    """Another driver is alive and working on the run."""


class LeaseLost(RunError):
    """Another driver took over the run; this one must not commit."""


def sample_error_codes() -> tuple[str, ...]:
    """All codes of error rows that this package records, sorted."""
    kinds = [kind for kind in globals().values() if isinstance(kind, type)]
    codes = {kind.code for kind in kinds if issubclass(kind, SampleError)}
    return tuple(sorted(codes | {InternalError.code}))
