"""Start one decoding child process, exchange messages with it, and end it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from omnitrace_core.errors import DecoderError, MediaCrashed, MediaMemory, MediaTimeout
from omnitrace_core.media.isolation.protocol import (
    DecodeRequest,
    Reply,
    ReplyKind,
    pack,
    receive,
    send,
)
from omnitrace_core.options import MediaOptions
from omnitrace_core.printable import printable

# How often a busy child's memory is measured; memory that is allocated between two measurements
# can exceed the limit.
_POLL_S = 0.05
# From a slow network disk, importing Python and NumPy may take long.
_START_TIMEOUT_S = 120.0
# How long a child that closed its channel may take to end, and its last output to arrive.
_END_TIMEOUT_S = 1.0
# How much of the decoders' output is kept, and how much of that goes into a message.
_MAX_OUTPUT_BYTES = 4096
_MAX_SHOWN_LINES, _MAX_SHOWN_CHARS = 5, 400
# The pipeline runs one decoder per core, and more threads would share that core. glibc returns the
# memory of every image to the kernel unless these thresholds are set, and getting it back, filled
# with zeros, takes a third of the time of a photo.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}
# The child must run its parent's code. It gets the parent's import paths (`python -m` would put the
# working directory first), and it imports this package from the folder that the parent has it from,
# because another folder of the same name may come first on those paths.
_BOOTSTRAP = (
    "import json, sys; paths = json.loads(sys.argv.pop(1)); sys.path[:] = paths; "
    "sys.path.insert(0, sys.argv.pop(1)); import omnitrace_core; sys.path[:] = paths; "
    "from omnitrace_core.media.isolation.child_main import main; main(*sys.argv[1:])"
)
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[3])


class DecoderProcess:
    """A child process that decodes one part at a time within the limits of `options`.

    It is a new interpreter, not a fork: the parent may hold threads, locks and a GPU. It leads its
    own process group, so a terminal's Ctrl-C does not reach it.
    """

    def __init__(self, decoder: str, options: MediaOptions) -> None:
        """Start the child and wait until it is ready.

        decoder: `module:function` of a function with the signature of `decode_part`.

        Raises:
            DecoderError: it does not start.
        """
        self._timeout_s = options.decode_timeout_s
        self._memory_mib = options.decode_memory_mib
        self._output_end = b""
        self.n_replies = 0
        self._channel, child_channel = socket.socketpair()
        with child_channel:
            descriptor = child_channel.fileno()
            arguments = map(str, (descriptor, os.getpid(), self._memory_mib, decoder))
            paths = (json.dumps(sys.path), _PACKAGE_ROOT)
            command = [sys.executable, "-c", _BOOTSTRAP, *paths, *arguments]
            started: Future[subprocess.Popen[bytes]] = Future()
            # The kernel's parent-death signal is sent when the *thread* that started the child
            # ends, and callers' threads may end early. This one lives as long as the child.
            self._thread = threading.Thread(
                target=self._run_child, args=(command, descriptor, started), daemon=True
            )
            self._thread.start()
            try:
                self._process = started.result()
            except OSError as error:
                self._release()
                raise DecoderError(f"no process for decoding can be started: {error}") from error
        self._poller = select.poll()
        self._poller.register(self._channel, select.POLLIN)
        self._await_ready()

    @property
    def pid(self) -> int:
        """Process id, and id of its process group."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the child is running. One that ended keeps its id until `stop`."""
        try:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return ended is None

    @property
    def memory_mib(self) -> float:
        """Resident memory in MiB, from /proc; 0 on systems without /proc."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                n_pages = int(file.read().split()[1])
        except (OSError, IndexError):
            return 0.0
        return n_pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    def decode(self, request: DecodeRequest, name: str) -> Reply:
        """Send a request and wait for its final reply. name: the media's name in messages.

        After any exception the process is unusable and must be stopped.

        Raises:
            MediaTimeout: no reply and no progress for `media.decode_timeout_s`.
            MediaMemory: it took more than `media.decode_memory_mib`.
            MediaCrashed: it died.
        """
        self._output_end = b""
        try:
            # Limits the sending only; `_wait_function` limits the waiting for replies.
            self._channel.settimeout(self._timeout_s)
            send(self._channel, pack(request))
            reply = self._receive(name)
            while isinstance(reply, Reply) and reply.kind is ReplyKind.PROGRESS:
                reply = self._receive(name)
        except TimeoutError as error:
            raise self._timeout_error(name) from error
        except MemoryError as error:
            raise self._memory_error(name, f"produced {error}") from error
        except OSError as error:
            raise MediaCrashed(
                f"{name}: the process that decoded it died ({self._describe_end()}); "
                "encode the file again, or leave it out"
            ) from error
        if not isinstance(reply, Reply):
            raise MediaCrashed(
                f"{name}: the process that decoded it sent an invalid reply; encode the file again"
            )
        if reply.kind is ReplyKind.OUT_OF_MEMORY:
            raise self._memory_error(name, "ran out of memory")
        self.n_replies += 1
        return reply

    def _receive(self, name: str) -> object:
        """The next reply, which must arrive within `media.decode_timeout_s`."""
        deadline = time.monotonic() + self._timeout_s
        return receive(self._channel, self._memory_mib << 20, self._wait_function(name, deadline))

    def stop(self) -> None:
        """Kill the child, whatever it is doing, and free its resources. Can be called twice."""
        if self._process.returncode is None:
            # Kill the group before waiting: its id can be reused once its leader is waited for.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self._release()

    def _release(self) -> None:
        self._channel.close()
        # The garbage collector may call this in that thread itself.
        if self._thread is not threading.current_thread():
            self._thread.join(_END_TIMEOUT_S)

    def _run_child(
        self, command: Sequence[str], descriptor: int, started: Future[subprocess.Popen[bytes]]
    ) -> None:
        """Start the child and read its output until it ends, so that no full pipe blocks it."""
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(descriptor,),
                start_new_session=True,
                env={**os.environ, **_ENVIRONMENT},
            )
        except OSError as error:
            started.set_exception(error)
            return
        assert process.stdout is not None
        with process.stdout as output:
            started.set_result(process)
            while block := os.read(output.fileno(), 1 << 16):
                self._output_end = (self._output_end + block)[-_MAX_OUTPUT_BYTES:]

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        problem = "the process for decoding media does not start"
        try:
            receive(self._channel, 1 << 20, self._wait_function("the decoder", deadline))
        except OSError as error:
            raise DecoderError(f"{problem} ({self._describe_end()})") from error
        except MediaMemory as error:
            self.stop()
            raise DecoderError(f"{problem}: {error}") from error
        except MediaTimeout as error:
            self.stop()
            raise DecoderError(
                f"{problem} within {_START_TIMEOUT_S:g} s; is the machine overloaded?"
            ) from error
        except BaseException:
            self.stop()
            raise

    def _wait_function(self, name: str, deadline: float) -> Callable[[], None]:
        """A function that waits for input and raises at the deadline or above the memory limit."""

        def wait() -> None:
            while not self._poller.poll(_POLL_S * 1000):
                used_mib = self.memory_mib
                if used_mib > self._memory_mib:
                    raise self._memory_error(name, f"took {used_mib:,.0f} MiB")
                if time.monotonic() > deadline:
                    raise self._timeout_error(name)

        return wait

    def _timeout_error(self, name: str) -> MediaTimeout:
        return MediaTimeout(
            f"{name}: fetching or decoding it made no progress for media.decode_timeout_s="
            f"{self._timeout_s:g}, so its process was killed; raise the limit in the config, or "
            "encode the file again"
        )

    def _memory_error(self, name: str, problem: str) -> MediaMemory:
        return MediaMemory(
            f"{name}: decoding it {problem}, with media.decode_memory_mib={self._memory_mib:,}, so "
            "its process was killed; raise the limit in the config or downscale the file"
        )

    def _describe_end(self) -> str:
        """How the child ended, and the last lines that it printed; stops it."""
        deadline = time.monotonic() + _END_TIMEOUT_S
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.01)
        cause = "its channel closed" if self.alive else ""
        self.stop()
        cause = cause or _describe_exit(self._process.returncode)
        text = self._output_end.decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        shown = " | ".join(lines[-_MAX_SHOWN_LINES:])[-_MAX_SHOWN_CHARS:]
        return f"{cause}: {printable(shown)}" if shown else cause


def _describe_exit(code: int) -> str:
    """A return code of `subprocess` as text: the signal's name, or the exit status."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit status {code}"
