"""Open a media file with PyAV: by the name of its format, from the file that was checked, alone.

FFmpeg neither guesses the format nor opens anything else: it reads a Python file, every protocol is
refused, and so are references of a movie to other files. It stops at the first damage.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from omnitrace_core.errors import MediaCorrupt, MediaMemory
from omnitrace_core.media.progress.media_times import importing

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream

# No protocol may be opened; damage is an error; no files that a movie names; edit lists are left to
# us, because FFmpeg rounds the times of clips that begin between keyframes.
_OPTIONS = {
    "protocol_whitelist": "",
    "err_detect": "explode",
    "enable_drefs": "0",
    "advanced_editlist": "0",
}
_MAX_CAUSE_CHARS = 120


@contextmanager
def open_av(file: BinaryIO, av_format: str, name: str) -> Iterator[InputContainer]:
    """A file opened by FFmpeg's name of its format. name: of the media, for messages.

    Raises: MediaCorrupt: FFmpeg cannot read it; also for FFmpeg's errors inside the block.
    """
    with importing():
        import av

    # FFmpeg would write its own account of broken files to stderr; our errors carry the cause.
    av.logging.set_level(None)
    file.seek(0)
    with (
        av_errors(name),
        av.open(
            file, "r", format=av_format, options=_OPTIONS, metadata_errors="replace"
        ) as container,
    ):
        yield container


def packets_of(container: InputContainer, stream: Stream) -> Iterator[Packet]:
    """The packets of a track, and one without content behind the last.

    If another track appears on the way, as in MPEG-TS, PyAV ends with an IndexError behind that.
    """
    with suppress(IndexError):
        yield from container.demux(stream)


def begin_s(container: InputContainer) -> float:
    """When the first of all tracks begins, in stored time; 0 if none says."""
    starts_s = (
        float(stream.start_time * stream.time_base)
        for stream in container.streams
        if stream.start_time is not None and stream.time_base is not None
    )
    return min(starts_s, default=0.0)


@contextmanager
def av_errors(name: str) -> Iterator[None]:
    """Errors of FFmpeg as ours.

    Raises: MediaCorrupt, MediaMemory.
    """
    with importing():
        import av

    try:
        yield
    except av.error.MemoryError as error:
        raise MediaMemory(f"{name}: does not fit in memory; lower media.max_*") from error
    except av.error.FFmpegError as error:
        cause = str(error.strerror or type(error).__name__)[:_MAX_CAUSE_CHARS]
        raise _cannot_be_decoded(name, cause) from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # The file would have been read before its beginning, as a damaged index says.
        raise _cannot_be_decoded(name, "a place outside of it is named") from error


def _cannot_be_decoded(name: str, cause: str) -> MediaCorrupt:
    return MediaCorrupt(
        f"{name}: damaged, or not what it seems: it cannot be decoded ({cause}); copy it again "
        "from its source, or encode it again"
    )
