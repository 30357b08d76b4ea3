"""Decoding in a child process, so that a decoder that hangs, crashes or swells costs one sample.

The child is no sandbox: it may read and write what its parent may.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable

from omnitrace_core.errors import InternalError, MediaCrashed, MediaMemory
from omnitrace_core.media.fetching.fetch import media_name
from omnitrace_core.media.isolation.process import DecoderProcess
from omnitrace_core.media.isolation.wire import Reply, Request
from omnitrace_core.media.rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import DecodedMedia, Part

# An idle child that holds more MiB than this, or than half of its limit, is replaced.
_MOST_IDLE_MIB = 1024
DECODER = "omnitrace_core.media.decode:decode_part"


class Supervisor:
    """Decodes parts in a child process that it starts, watches, kills and replaces.

    The child is started with the first part and decodes many. It is replaced after a crash, a
    deadline or too much memory, and when its libraries keep too much of what they were given. A
    part that it dies of after it decoded others is tried once more in a new child: what an earlier
    part left behind must not be blamed on it. Calls from several threads wait for each other.

    Media in `memory://`, which is a process's own, cannot be had.
    """

    def __init__(self, options: MediaOptions, rules: MediaRules, decoder: str = DECODER) -> None:
        """decoder: what the child calls, `module:function` with the signature of `decode_part`."""
        self._options = options
        self._rules = rules
        self._decoder = decoder
        self._child: DecoderProcess | None = None
        self._lock = threading.Lock()
        # Ends the child; also when this object is collected, or the program ends.
        self._end: Callable[[], object] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return None if self._child is None else self._child.pid

    def decode_part(self, part: Part, *, want_sound: bool = True) -> DecodedMedia:
        """As the decoder itself, which is `decode_part` by default, and in the same words.

        Raises:
            SampleError: what the decoder raised.
            MediaTimeout: fetching or decoding made no progress for `media.decode_timeout_s`.
            MediaMemory: it took more than `media.decode_memory_mib`.
            MediaCrashed: its process died.
            InternalError: it raised something that nobody foresaw; the message has the traceback.
            DecoderError: the child does not start.
        """
        request = Request(os.getcwd(), part, self._options, self._rules, want_sound)
        name = media_name(part)
        with self._lock:
            self._replace_worn()
            was_used = self._child is not None and self._child.n_done > 0
            try:
                reply = self._ask(request, name)
            except (MediaCrashed, MediaMemory):
                if not was_used:
                    raise
                reply = self._ask(request, name)
        return _media_of(reply, name)

    def close(self) -> None:
        """End the child. The next part starts another."""
        with self._lock:
            self._stop()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _ask(self, request: Request, name: str) -> Reply:
        if self._child is None:
            self._child = DecoderProcess(self._decoder, self._options)
            self._end = weakref.finalize(self, self._child.stop)
        try:
            return self._child.ask(request, name)
        except BaseException:
            # Dead, or in the middle of something; also when the user interrupts.
            self._stop()
            raise

    def _replace_worn(self) -> None:
        """Do away with a child that died while it was idle, or holds on to too much memory."""
        child = self._child
        most_mib = min(_MOST_IDLE_MIB, self._options.decode_memory_mib / 2)
        if child is not None and (not child.alive or child.memory_mib > most_mib):
            self._stop()

    def _stop(self) -> None:
        if self._end is not None:
            self._end()
        self._child = self._end = None


def _media_of(reply: Reply, name: str) -> DecodedMedia:
    if reply.error is not None:
        raise reply.error
    if reply.media is None:
        raise InternalError(f"{name}: unforeseen error in the decoder's process: {reply.fault}")
    return reply.media
