"""Decode in a child process: a hang, a crash or too much memory costs one part.

This does not protect against hostile code: the child has the same rights as its parent.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable

from omnitrace_core.addresses import media_name
from omnitrace_core.decoded_media import DecodedMedia
from omnitrace_core.errors import InternalError, MediaCrashed, MediaMemory
from omnitrace_core.media.isolation.child_process import DecoderProcess
from omnitrace_core.media.isolation.protocol import DecodeRequest, Reply
from omnitrace_core.media.progress.media_times import add_times
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part

# An idle child that holds more MiB than this, or more than half of its limit, is replaced.
_MAX_IDLE_MIB = 1024
_DEFAULT_DECODER = "omnitrace_core.media.decode:decode_part"


class IsolatedDecoder:
    """Decodes parts in a child process, which it starts, watches, kills and replaces.

    The child starts with the first part and decodes many. It is replaced after a crash, after a
    timeout, after it took too much memory, and when its libraries keep too much memory. If a part
    kills a child that has decoded others, that part is tried once more in a new child, because an
    earlier part may be the cause. Calls from several threads run one after the other.

    Media at `memory://` addresses cannot be read: they exist in the parent process only.
    """

    def __init__(
        self, options: MediaOptions, rules: MediaRules, decoder: str = _DEFAULT_DECODER
    ) -> None:
        """decoder: what the child calls, `module:function` with the signature of `decode_part`."""
        self._options = options
        self._rules = rules
        self._decoder = decoder
        self._child: DecoderProcess | None = None
        self._lock = threading.Lock()
        # Stops the child; also runs when this object is collected or the program ends.
        self._stop_child: Callable[[], object] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return None if self._child is None else self._child.pid

    @property
    def memory_mib(self) -> float:
        """Resident memory of the child in MiB, 0 while there is none."""
        return 0.0 if self._child is None else self._child.memory_mib

    def decode_part(self, part: Part, *, want_sound: bool = True) -> DecodedMedia:
        """Call the decoder, `decode_part` by default, in the child.

        Raises:
            SampleError: what the decoder raised.
            MediaTimeout: fetching or decoding made no progress for `media.decode_timeout_s`.
            MediaMemory: it took more than `media.decode_memory_mib`.
            MediaCrashed: its process died.
            InternalError: it raised an unexpected exception; the message holds the traceback.
            DecoderError: the child does not start.
        """
        request = DecodeRequest(os.getcwd(), part, self._options, self._rules, want_sound)
        name = media_name(part)
        with self._lock:
            self._stop_unusable_child()
            was_used = self._child is not None and self._child.n_replies > 0
            try:
                reply = self._send(request, name)
            except (MediaCrashed, MediaMemory):
                if not was_used:
                    raise
                reply = self._send(request, name)
        add_times(reply.times)
        return _media_of(reply, name)

    def close(self) -> None:
        """Stop the child. The next part starts another."""
        with self._lock:
            self._stop()

    def __enter__(self) -> IsolatedDecoder:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _send(self, request: DecodeRequest, name: str) -> Reply:
        if self._child is None:
            self._child = DecoderProcess(self._decoder, self._options)
            self._stop_child = weakref.finalize(self, self._child.stop)
        try:
            return self._child.decode(request, name)
        except BaseException:
            # The child is dead or still busy, for example after the user's Ctrl-C.
            self._stop()
            raise

    def _stop_unusable_child(self) -> None:
        """Stop a child that died while it was idle or that keeps too much memory."""
        child = self._child
        max_mib = min(_MAX_IDLE_MIB, self._options.decode_memory_mib / 2)
        if child is not None and (not child.alive or child.memory_mib > max_mib):
            self._stop()

    def _stop(self) -> None:
        if self._stop_child is not None:
            self._stop_child()
        self._child = self._stop_child = None


def _media_of(reply: Reply, name: str) -> DecodedMedia:
    if reply.error is not None:
        raise reply.error
    if reply.media is None:
        raise InternalError(
            f"{name}: unexpected error in the process that decodes media: {reply.traceback}"
        )
    return reply.media
