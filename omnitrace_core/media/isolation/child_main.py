"""Decode parts for the parent process until the channel closes: the child's entry point.

The child ends when its parent ends, however that happens: idle, because the channel closes; in the
middle of a decoder, by a signal of the kernel (Linux). This module imports only what decoding
needs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from importlib import import_module

from omnitrace_core.decoded_media import DecodedMedia
from omnitrace_core.errors import OmniTraceError
from omnitrace_core.media.isolation.protocol import (
    DecodeRequest,
    Reply,
    ReplyKind,
    pack,
    receive,
    send,
)
from omnitrace_core.media.progress.heartbeat import set_listener
from omnitrace_core.media.progress.media_times import collecting_times, decoding
from omnitrace_core.runtime.node_faults import as_node_fault, node_fault_in

DecodeFunction = Callable[..., DecodedMedia]

# Linux, sys/prctl.h.
_PR_SET_PDEATHSIG = 1
_MAX_REQUEST_BYTES = 1 << 62
# Only the end of a traceback is sent: it says most.
_MAX_TRACEBACK_CHARS = 4_000


def main(descriptor: str, parent_pid: str, memory_mib: str, decoder: str) -> None:
    """Decode for the process `parent_pid` until the channel on `descriptor` closes.

    memory_mib: the memory limit that the parent enforces. decoder: `module:function` of a function
    with the signature of `decode_part`.
    """
    _end_with_parent(int(parent_pid))
    _set_memory_ceiling(int(memory_mib))
    module, _, name = decoder.partition(":")
    decode: DecodeFunction = getattr(import_module(module), name)
    with socket.socket(fileno=int(descriptor)) as channel, contextlib.suppress(ConnectionError):
        send(channel, pack(Reply(ReplyKind.READY)))
        progress = pack(Reply(ReplyKind.PROGRESS))
        set_listener(lambda: send(channel, progress))
        while True:
            # Without a local variable: it would keep the last media in memory beside the next.
            send(channel, _packed_reply(decode, receive(channel, _MAX_REQUEST_BYTES)))


def _packed_reply(decode: DecodeFunction, request: object) -> list[memoryview]:
    try:
        if not isinstance(request, DecodeRequest):
            raise TypeError(f"not a request: {request!r:.200}")
        if request.folder != os.getcwd():
            os.chdir(request.folder)
        part, options, rules = request.part, request.options, request.rules
        with collecting_times() as times, decoding():
            media = decode(part, options, rules, want_sound=request.want_sound)
        return pack(Reply(ReplyKind.MEDIA, media=media, times=times))
    except MemoryError:
        return pack(Reply(ReplyKind.OUT_OF_MEMORY))
    except Exception as error:  # noqa: BLE001  (the parent raises it as an InternalError)
        fault = node_fault_in(error)
        if isinstance(fault, OSError) and fault.errno == errno.ENOMEM:
            # Most likely the ceiling of this process, which `media.decode_memory_mib` sets.
            return pack(Reply(ReplyKind.OUT_OF_MEMORY))
        if fault is not None:
            # Here, because the causes of an error stay behind when it is sent.
            return pack(Reply(ReplyKind.ERROR, error=as_node_fault(fault)))
        if isinstance(error, OmniTraceError):
            return pack(Reply(ReplyKind.ERROR, error=error))
        end = traceback.format_exc()[-_MAX_TRACEBACK_CHARS:].strip()
        return pack(Reply(ReplyKind.UNEXPECTED, traceback=end))


def _end_with_parent(parent_pid: int) -> None:
    """Make the kernel kill this process when the thread that started it ends."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # If the machine runs out of memory, the kernel kills this process before models and actors.
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    if os.getppid() != parent_pid:
        sys.exit("the parent is gone")


def _set_memory_ceiling(memory_mib: int) -> None:
    """Set a ceiling well above the limit that the parent enforces, and forbid core dumps.

    The ceiling is RLIMIT_DATA, which counts private writable memory, used or only reserved. It
    stops what is reserved faster than the parent can see. It cannot be the limit itself: libraries
    that are refused memory often abort without a reason, and under 300 MiB a 4K video looks like a
    crash of FFmpeg. The parent measures the memory in use, so it knows why it kills. RLIMIT_AS
    would count address space that is never used (thread stacks, arenas): 881 MiB for that video,
    of which at most 489 were resident.
    """
    import resource

    ceiling = (2 * memory_mib + 1024) << 20
    for kind, limit in ((resource.RLIMIT_DATA, ceiling), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(kind, (limit, hard))
