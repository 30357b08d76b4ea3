"""Every error OmniTrace raises on purpose, in one tree.

    OmniTraceError
    ├── SampleError            this sample's fault: recorded as an error row, the others go on
    │   ├── InvalidSample          invalid_sample
    │   │   ├── MissingSampleId    missing_sample_id
    │   │   ├── DuplicateSampleId  duplicate_sample_id
    │   │   └── UnknownPartType    unknown_part_type
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
    ├── InternalError          a fault of ours in another process: recorded, under the code internal
    └── FatalError             this process or run cannot go on: re-raised, never recorded
        ├── ConfigError            a setting is wrong (exit code 2, before any work)
        │   └── StoreCredentials   object storage knows no credentials, or refuses them
        ├── InputSchemaError       the input is not samples (exit code 2, before any work)
        ├── UnknownName            a name is in none of our tables; the message lists the valid ones
        ├── BackendError           the model cannot be loaded or is not what the backend expects
        ├── DecoderError           the process that decodes media does not start
        ├── DeviceBroken           the model's device will not work again in this process
        ├── StoreUnavailable       object storage does not answer, however often it was asked
        └── RunError               the pipeline broke a promise (rows lost, parts that disagree)
            ├── LeaseHeld              another driver is at work on the run
            └── LeaseLost              another driver took the run over

A sample error carries a stable `code`; tools group error rows by it. Messages say what was wrong,
the value met, and the remedy.
"""

from __future__ import annotations

from typing import ClassVar


class OmniTraceError(Exception):
    """Base of every error raised by OmniTrace on purpose."""


class SampleError(OmniTraceError):
    """A fault of one sample; the pipeline records it as an error row."""

    code: ClassVar[str] = "sample_error"


class InvalidSample(SampleError):
    """The sample's fields do not describe something a model can be asked."""

    code = "invalid_sample"


class MissingSampleId(InvalidSample):
    """The sample has no `sample_id`."""

    code = "missing_sample_id"


class DuplicateSampleId(InvalidSample):
    """An earlier row of the same input has this `sample_id`."""

    code = "duplicate_sample_id"


class UnknownPartType(InvalidSample):
    """A content part is of a type no model input exists for."""

    code = "unknown_part_type"


class MediaError(SampleError):
    """An image, audio or video could not be turned into model input."""

    code = "media_error"


class MediaMissing(MediaError):
    """No file or object at this address."""

    code = "media_missing"


class MediaDenied(MediaError):
    """The address is not one this run may read."""

    code = "media_denied"


class MediaTooLarge(MediaError):
    """The media is above one of the limits in `media.*`."""

    code = "media_too_large"


class MediaEmpty(MediaError):
    """The media has no bytes, no frames or no samples."""

    code = "media_empty"


class MediaCorrupt(MediaError):
    """The bytes are not a readable file of the claimed kind."""

    code = "media_corrupt"


class MediaTimeout(MediaError):
    """Fetching and decoding took longer than they may."""

    code = "media_timeout"


class MediaUnavailable(MediaError):
    """The object store did not answer, however often it was asked."""

    code = "media_unavailable"


class MediaMemory(MediaError):
    """Decoding takes more memory than it may, or than there is."""

    code = "media_memory"


class MediaCrashed(MediaError):
    """The process that decoded the media died."""

    code = "media_crashed"


class SpeechError(SampleError):
    """A speech engine failed on this sample's audio."""

    code = "speech_error"


class SpeechUnavailable(SpeechError):
    """The speech service did not answer, however often it was asked."""

    code = "speech_unavailable"


class TraceError(SampleError):
    """The model could not generate or replay this sample."""

    code = "trace_error"


class ResponseEmpty(TraceError):
    """There is no response token to trace."""

    code = "response_empty"


class OutOfMemory(TraceError):
    """The sample alone does not fit the device."""

    code = "out_of_memory"


class Quarantined(SampleError):
    """Processes died, time and again, while they worked on this sample alone."""

    code = "quarantined"


class InternalError(OmniTraceError):
    """Something nobody foresaw, raised in another process; the message holds its traceback."""


class FatalError(OmniTraceError):
    """The process or the run cannot go on."""


class ConfigError(FatalError):
    """A setting is wrong."""


class StoreCredentials(ConfigError, PermissionError):
    """Object storage needs credentials that it was not given, or refuses those it was given."""


class InputSchemaError(FatalError):
    """The input cannot be read as samples."""


class UnknownName(FatalError):
    """A name is in none of our tables."""


class BackendError(FatalError):
    """The model cannot be loaded, or is not what its backend expects."""


class DecoderError(FatalError):
    """The process that decodes media does not start."""


class DeviceBroken(FatalError):
    """The model's device will not work again in this process; another process may be luckier."""


class StoreUnavailable(FatalError, OSError):
    """Object storage did not answer, however often it was asked."""


class RunError(FatalError):
    """The pipeline broke one of its promises."""


class LeaseHeld(RunError):
    """Another driver is at work on the run, and alive."""


class LeaseLost(RunError):
    """Another driver took the run over; this one must not commit."""
