"""One decoder process, from its start to its end, as its parent sees it."""

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
from omnitrace_core.media.isolation.wire import Reply, Request, pack, receive, send
from omnitrace_core.options import MediaOptions
from omnitrace_core.printable import printable

# How often a busy child's memory is looked at: what it takes meanwhile comes on top of its limit.
_POLL_S = 0.05
# From a loaded network disk, Python and NumPy may take long to import.
_START_S = 120.0
# How long a child that closed its channel may take to end, and its last output to arrive.
_LINGER_S = 1.0
# What is kept of what decoders print, and what of it goes into a message.
_TAIL_BYTES = 4096
_TAIL_LINES, _TAIL_CHARS = 5, 400
# One decoder per core is the pipeline's rule; more threads would share that core. glibc gives the
# memory of every image back to the kernel unless told to keep some, and clearing it anew takes a
# third of the time of a photo.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
}
# The child runs its parent's code: it has the same import paths (-m would put others first), and
# imports this package from where the parent has it, as a folder of the same name may come first.
_BOOT = (
    "import json, sys; paths = json.loads(sys.argv.pop(1)); sys.path[:] = paths; "
    "sys.path.insert(0, sys.argv.pop(1)); import omnitrace_core; sys.path[:] = paths; "
    "from omnitrace_core.media.isolation.child import main; main(*sys.argv[1:])"
)
_PACKAGE_ROOT = str(Path(__file__).resolve().parents[3])


class DecoderProcess:
    """A child process that decodes one part at a time within the limits of `options`.

    It is spawned, never forked: the parent may hold threads, locks and a GPU. It has a process
    group of its own, which a terminal's Ctrl-C does not reach.
    """

    def __init__(self, decoder: str, options: MediaOptions) -> None:
        """Start it and wait until it is ready.

        decoder: `module:function`, called as `decode_part`.

        Raises:
            DecoderError: it does not start.
        """
        self._timeout_s = options.decode_timeout_s
        self._memory_mib = options.decode_memory_mib
        self._tail = b""
        self.n_done = 0
        self._channel, theirs = socket.socketpair()
        with theirs:
            told = (theirs.fileno(), os.getpid(), self._memory_mib, decoder)
            paths = (json.dumps(sys.path), _PACKAGE_ROOT)
            command = [sys.executable, "-c", _BOOT, *paths, *map(str, told)]
            started: Future[subprocess.Popen[bytes]] = Future()
            keep = (command, theirs.fileno(), started)
            # The kernel's parent-death signal comes when the *thread* that started a child ends,
            # and ours may be started from any: this thread lives as long as the child does.
            self._keeper = threading.Thread(target=self._keep, args=keep, daemon=True)
            self._keeper.start()
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
        """Whether it is still running; one that is not keeps its id until it is stopped."""
        try:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return ended is None

    @property
    def memory_mib(self) -> float:
        """MiB of it that are resident, from /proc; 0 where the system has none."""
        try:
            with open(f"/proc/{self.pid}/statm", "rb") as file:
                pages = int(file.read().split()[1])
        except (OSError, IndexError):
            return 0.0
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

    def ask(self, request: Request, name: str) -> Reply:
        """Send a request and wait for its reply. name: what messages call its media.

        After any exception the process is of no more use, and has to be stopped.

        Raises:
            MediaTimeout: no reply and no sign of progress for `media.decode_timeout_s`.
            MediaMemory: it took more than `media.decode_memory_mib`.
            MediaCrashed: it died.
        """
        self._tail = b""
        try:
            # A bound on sending alone; what is received is watched by `wait`.
            self._channel.settimeout(self._timeout_s)
            send(self._channel, pack(request))
            reply = self._receive(name)
            while isinstance(reply, Reply) and reply.working:
                reply = self._receive(name)
        except TimeoutError as error:
            raise self._overdue(name) from error
        except MemoryError as error:
            raise self._overrun(name, f"came to {error}") from error
        except OSError as error:
            raise MediaCrashed(
                f"{name}: the process that decoded it died ({self._end()}); "
                "encode the file again, or leave it out"
            ) from error
        if not isinstance(reply, Reply):
            raise MediaCrashed(f"{name}: its decoder wrote over our messages; encode it again")
        if reply.full:
            raise self._overrun(name, "asked for more memory than there is")
        self.n_done += 1
        return reply

    def _receive(self, name: str) -> object:
        """The next reply, which has `media.decode_timeout_s` to come."""
        deadline = time.monotonic() + self._timeout_s
        return receive(self._channel, self._memory_mib << 20, self._watch(name, deadline))

    def stop(self) -> None:
        """Kill it, whatever it is doing, and let go of all it had. Can be called twice."""
        if self._process.returncode is None:
            # The group first: its id is not given to others before its leader is waited for.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self._release()

    def _release(self) -> None:
        self._channel.close()
        # The garbage collector may have us called in that very thread.
        if self._keeper is not threading.current_thread():
            self._keeper.join(_LINGER_S)

    def _keep(
        self, command: Sequence[str], descriptor: int, started: Future[subprocess.Popen[bytes]]
    ) -> None:
        """Start the child, and read what its libraries print, so that it never waits for us."""
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
                self._tail = (self._tail + block)[-_TAIL_BYTES:]

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _START_S
        failed = "the process for decoding media does not start"
        try:
            receive(self._channel, 1 << 20, self._watch("the decoder", deadline))
        except OSError as error:
            raise DecoderError(f"{failed} ({self._end()})") from error
        except MediaMemory as error:
            self.stop()
            raise DecoderError(f"{failed}: {error}") from error
        except MediaTimeout as error:
            self.stop()
            raise DecoderError(f"{failed} within {_START_S:g} s; is the machine loaded?") from error
        except BaseException:
            self.stop()
            raise

    def _watch(self, name: str, deadline: float) -> Callable[[], None]:
        """A function that returns when there is something to read, and raises if it must not."""

        def wait() -> None:
            while not self._poller.poll(_POLL_S * 1000):
                used = self.memory_mib
                if used > self._memory_mib:
                    raise self._overrun(name, f"took {used:,.0f} MiB")
                if time.monotonic() > deadline:
                    raise self._overdue(name)

        return wait

    def _overdue(self, name: str) -> MediaTimeout:
        return MediaTimeout(
            f"{name}: decoding it made no progress for media.decode_timeout_s="
            f"{self._timeout_s:g}, its process was killed; raise the limit in the config, or "
            "encode the file again"
        )

    def _overrun(self, name: str, how: str) -> MediaMemory:
        return MediaMemory(
            f"{name}: decoding it {how}, above media.decode_memory_mib={self._memory_mib:,}, its "
            "process was killed; raise the limit in the config or downscale the file"
        )

    def _end(self) -> str:
        """How it ended, and the last lines that it printed."""
        patience = time.monotonic() + _LINGER_S
        while self.alive and time.monotonic() < patience:
            time.sleep(0.01)
        how = "its channel closed" if self.alive else ""
        self.stop()
        how = how or _told_by(self._process.returncode)
        text = self._tail.decode(errors="replace")
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        said = " | ".join(lines[-_TAIL_LINES:])[-_TAIL_CHARS:]
        return f"{how}: {printable(said)}" if said else how


def _told_by(code: int) -> str:
    """A return code of subprocess in words."""
    if code < 0:
        with contextlib.suppress(ValueError):
            return signal.Signals(-code).name
    return f"exit status {code}"
