"""Messages between a process and its decoding child: a pickle and, beside it, the raw arrays.

A message is sent as the number of frames, the length of each, and the frames. The first frame is
the pickle, the others are the array buffers that pickle protocol 5 leaves out of it. So pixels and
waveforms go through the socket from one process's array into the other's, with no copy on disk or
in shared memory that a crash could leave behind.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from omnitrace_core.decoded_media import DecodedMedia
from omnitrace_core.errors import OmniTraceError
from omnitrace_core.media.progress.media_times import MediaTimes
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part

# More than any decoded media has arrays: a larger number means that the bytes are not a message.
_MAX_FRAMES = 1024


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """One part to decode. folder: the working directory, where relative addresses start."""

    folder: str
    part: Part
    options: MediaOptions
    rules: MediaRules
    want_sound: bool


class ReplyKind(Enum):
    """What a reply says, and which field of `Reply` comes with it."""

    READY = "ready"  # the child has started and waits for its first request
    PROGRESS = "progress"  # decoding advanced; more replies follow
    MEDIA = "media"  # the part is decoded: `media`
    ERROR = "error"  # an error of OmniTrace's own, as it was raised: `error`
    OUT_OF_MEMORY = "out_of_memory"  # an allocation failed
    UNEXPECTED = "unexpected"  # any other exception: `traceback`


@dataclass(frozen=True, slots=True)
class Reply:
    """What the child sends; every request gets one reply that is neither READY nor PROGRESS.

    times: of fetching and decoding `media`, as the child measured them.
    """

    kind: ReplyKind
    media: DecodedMedia | None = None
    error: OmniTraceError | None = None
    traceback: str = ""
    times: MediaTimes = field(default_factory=MediaTimes)


def pack(message: DecodeRequest | Reply) -> list[memoryview]:
    """The frames of a message; arrays are not copied. Raises: what pickling it raises."""
    buffers: list[pickle.PickleBuffer] = []
    first = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    return [memoryview(first), *(buffer.raw() for buffer in buffers)]


def send(channel: socket.socket, frames: Sequence[memoryview]) -> None:
    """Send packed frames. Raises: OSError: the other side is gone or takes too long."""
    lengths = [len(frame) for frame in frames]
    channel.sendall(struct.pack(f"<{1 + len(lengths)}Q", len(lengths), *lengths))
    for frame in frames:
        channel.sendall(frame)


def receive(
    channel: socket.socket, max_bytes: int, wait: Callable[[], None] = lambda: None
) -> object:
    """The next message. wait: called before each read; it may raise to give up.

    Raises:
        ConnectionError: the other side is gone, or what it sent is not a message.
        MemoryError: the message is longer than `max_bytes`, or does not fit in memory.
    """
    (n_frames,) = struct.unpack("<Q", _read(channel, 8, wait))
    if not 0 < n_frames <= _MAX_FRAMES:
        raise ConnectionError(f"a message of {n_frames:,} frames")
    lengths = struct.unpack(f"<{n_frames}Q", _read(channel, 8 * n_frames, wait))
    if sum(lengths) > max_bytes:
        raise MemoryError(f"a message of {sum(lengths):,} bytes")
    first, *buffers = [_read(channel, length, wait) for length in lengths]
    return pickle.loads(first, buffers=buffers)


def _read(channel: socket.socket, n_bytes: int, wait: Callable[[], None]) -> memoryview:
    """Exactly `n_bytes`, in newly allocated memory that is writable, as decoded arrays are."""
    # A bytearray would first be filled with zeros.
    block = np.empty(n_bytes, np.uint8).data
    n_read = 0
    while n_read < n_bytes:
        wait()
        n_new = channel.recv_into(block[n_read:])
        if not n_new:
            raise ConnectionError("the other side is gone")
        n_read += n_new
    return block
