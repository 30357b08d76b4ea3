"""The process that decodes for another one: takes a part, answers with its media, until told off.

It ends with its parent, however that ends: by the end of the channel when idle, by a signal of the
kernel when it is in the middle of a decoder (Linux). Nothing is imported here but what decoding
needs.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from importlib import import_module

from omnitrace_core.errors import OmniTraceError
from omnitrace_core.media.isolation.wire import Reply, Request, pack, receive, send
from omnitrace_core.media.progress import tell_signs
from omnitrace_core.records import DecodedMedia

Decode = Callable[..., DecodedMedia]

# Linux, sys/prctl.h.
_PR_SET_PDEATHSIG = 1
_MOST_REQUEST_BYTES = 1 << 62
# Of a traceback, whose end says most.
_MOST_TRACEBACK = 4_000


def main(descriptor: str, parent: str, memory_mib: str, decoder: str) -> None:
    """Decode for the process `parent` until the channel on `descriptor` ends.

    memory_mib: the limit that the parent watches. decoder: `module:function`, which is called as
    `decode_part`.
    """
    _die_with(int(parent))
    _limit(int(memory_mib))
    module, _, name = decoder.partition(":")
    decode: Decode = getattr(import_module(module), name)
    with socket.socket(fileno=int(descriptor)) as channel, contextlib.suppress(ConnectionError):
        send(channel, pack(Reply()))
        working = pack(Reply(working=True))
        tell_signs(lambda: send(channel, working))
        while True:
            # No name is kept here: the last media would stay in memory beside the next.
            send(channel, _answer(decode, receive(channel, _MOST_REQUEST_BYTES)))


def _answer(decode: Decode, request: object) -> list[memoryview]:
    try:
        if not isinstance(request, Request):
            raise TypeError(f"not a request: {request!r:.200}")
        if request.folder != os.getcwd():
            os.chdir(request.folder)
        media = decode(request.part, request.options, request.rules, want_sound=request.want_sound)
        return pack(Reply(media=media))
    except OmniTraceError as error:
        return pack(Reply(error=error))
    except MemoryError:
        return pack(Reply(full=True))
    except Exception:  # noqa: BLE001  (what we did not foresee is told to the parent)
        return pack(Reply(fault=traceback.format_exc()[-_MOST_TRACEBACK:].strip()))


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it is gone."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # The first to go when the machine is short of memory, before models and whole actors.
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    if os.getppid() != parent:
        sys.exit("the parent is gone")


def _limit(memory_mib: int) -> None:
    """A ceiling well above the limit that the parent watches, and no core dumps of gigabytes.

    RLIMIT_DATA counts what is reserved and writable. It cannot be the limit itself: a library that
    is refused memory aborts as often as it says why, and under 300 MiB a 4K video looks like a
    crash of FFmpeg. The parent sees what is really in use and kills, so the cause is known. The
    ceiling is for what is reserved faster than the parent can see. RLIMIT_AS counts address space
    that no one uses (thread stacks, arenas): 881 MiB for that video, of which 489 were ever
    resident.
    """
    import resource

    ceiling = (2 * memory_mib + 1024) << 20
    for kind, most in ((resource.RLIMIT_DATA, ceiling), (resource.RLIMIT_CORE, 0)):
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        resource.setrlimit(kind, (most, hard))
