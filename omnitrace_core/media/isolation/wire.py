"""Messages between a process and its decoder: a pickle, and the arrays beside it as they lie.

A message is a count of frames, their lengths, and the frames: the first is the pickle, the others
are the buffers that pickle protocol 5 leaves out of it. So pixels and waveforms go from the array
of one process through the socket into the array of the other, and nothing exists outside the two
that could be left behind.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from omnitrace_core.errors import OmniTraceError
from omnitrace_core.media.rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import DecodedMedia, Part

# More frames than any decoded media has arrays; a larger count is no message of ours.
_MOST_FRAMES = 1024


@dataclass(frozen=True, slots=True)
class Request:
    """One part to decode. folder: the working directory that relative addresses start from."""

    folder: str
    part: Part
    options: MediaOptions
    rules: MediaRules
    want_sound: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a request: one of the fields is set. A reply without any says: ready.

    working: nothing yet, but decoding got on, and more replies follow. error: one of ours, as it
    was raised. full: there was not enough memory. fault: the traceback of what nobody foresaw.
    """

    media: DecodedMedia | None = None
    error: OmniTraceError | None = None
    full: bool = False
    working: bool = False
    fault: str = ""


def pack(message: Request | Reply) -> list[memoryview]:
    """The frames of a message; arrays are not copied. Raises: whatever its pickling raises."""
    buffers: list[pickle.PickleBuffer] = []
    first = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    return [memoryview(first), *(buffer.raw() for buffer in buffers)]


def send(channel: socket.socket, frames: Sequence[memoryview]) -> None:
    """Send packed frames. Raises: OSError if the other side is gone or takes too long."""
    lengths = [len(frame) for frame in frames]
    channel.sendall(struct.pack(f"<{1 + len(lengths)}Q", len(lengths), *lengths))
    for frame in frames:
        channel.sendall(frame)


def receive(
    channel: socket.socket, most_bytes: int, wait: Callable[[], None] = lambda: None
) -> object:
    """The next message. wait: called before each read; it may raise to give up.

    Raises:
        ConnectionError: the other side is gone, or what it sent is no message.
        MemoryError: the message is longer than `most_bytes`, or does not fit.
    """
    (n_frames,) = struct.unpack("<Q", _read(channel, 8, wait))
    if not 0 < n_frames <= _MOST_FRAMES:
        raise ConnectionError(f"a message of {n_frames:,} frames")
    lengths = struct.unpack(f"<{n_frames}Q", _read(channel, 8 * n_frames, wait))
    if sum(lengths) > most_bytes:
        raise MemoryError(f"a message of {sum(lengths):,} bytes")
    first, *buffers = [_read(channel, length, wait) for length in lengths]
    return pickle.loads(first, buffers=buffers)


def _read(channel: socket.socket, n_bytes: int, wait: Callable[[], None]) -> memoryview:
    """Exactly `n_bytes` in memory of their own, writable as the arrays of any decoder are."""
    # Not a bytearray, which would be filled with zeros first.
    block = np.empty(n_bytes, np.uint8).data
    n_read = 0
    while n_read < n_bytes:
        wait()
        n_new = channel.recv_into(block[n_read:])
        if not n_new:
            raise ConnectionError("the other side is gone")
        n_read += n_new
    return block
