"""Which errors are the machine's, and that nothing a sample says can pass for one."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.exceptions import EndpointConnectionError

from omnitrace_core.errors import (
    DecoderError,
    MediaCorrupt,
    MediaError,
    MediaMissing,
    NodeFault,
    RunError,
    StoreUnavailable,
)
from omnitrace_core.media.fetching.store_errors import store_errors
from omnitrace_core.records import Part
from omnitrace_core.runtime.node_faults import (
    as_node_fault,
    check_handles,
    is_node_fault,
    raise_if_node_fault,
    temporary_files,
)
from omnitrace_core.storage.s3_retries import with_retries
from tests.file_handles import no_file_handles


class DECORDError(Exception):
    """As decord's own."""


DECORDError.__module__ = "decord._ffi.base"


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number), "/tmp/a")


def _caused(error: Exception, by: Exception) -> Exception:
    try:
        raise error from by
    except type(error) as raised:
        return raised


def _met_while_handling(error: Exception, first: Exception) -> Exception:
    try:
        try:
            raise first
        except type(first):
            raise error  # noqa: B904 - without a cause, on purpose
    except type(error) as raised:
        return raised


MACHINE: dict[str, Exception] = {
    **{
        name: _os_error(getattr(errno, name))
        for name in ("ENOSPC", "EDQUOT", "EROFS", "EMFILE", "ENFILE", "ENOMEM")
    },
    "no temporary folder": FileNotFoundError(
        errno.ENOENT, "No usable temporary directory found in ['/tmp', '/var/tmp']"
    ),
    "extension module": ImportError(
        "libavcodec.so.58: cannot open shared object file: Too many open files"
    ),
    "library": OSError(
        "cannot load library 'libsndfile.so': libsndfile.so: cannot open shared object file: "
        "Too many open files"
    ),
    "decord": DECORDError(
        "[18:26:39] /github/workspace/src/audio/audio_reader.cc:112: ERROR opening: "
        "/proc/self/fd/3, Too many open files"
    ),
    "no decoder": DecoderError("no process for decoding can be started"),
    "cause": _caused(MediaMissing("a.png: no such file"), _os_error(errno.EMFILE)),
    "cause of a cause": _caused(
        StoreUnavailable("no answer"), _caused(ConnectionError("x"), _os_error(errno.EMFILE))
    ),
    "context": _met_while_handling(MediaCorrupt("damaged"), _os_error(errno.ENOSPC)),
}
SAMPLE: dict[str, Exception] = {
    **{
        name: _os_error(getattr(errno, name))
        for name in ("ENOENT", "EACCES", "EIO", "ENAMETOOLONG", "ELOOP", "EISDIR", "ESTALE")
    },
    "memory": MemoryError(),
    "store away": StoreUnavailable("s3://b/a.png: object storage did not answer"),
    # What a sample can say: addresses, and bytes that a decoder quotes.
    "address": MediaMissing("s3://b/[Errno 28] No space left on device: no such object"),
    "address in a store's error": FileNotFoundError("No space left on device"),
    "folder in a store's error": FileNotFoundError("No usable temporary directory found in x"),
    "path": FileNotFoundError(
        errno.ENOENT, "No such file or directory", "No usable temporary directory found in x"
    ),
    "bytes": ValueError("broken PNG file (chunk b'Too many open files')"),
    "decord's path": DECORDError("x: ERROR opening: /a/b, Too many open files, No such file"),
    "full output": _caused(RunError("the output cannot be written"), _os_error(errno.ENOSPC)),
    "threads can be started": RuntimeError("can't start new thread"),
}


@pytest.mark.parametrize("error", MACHINE.values(), ids=MACHINE)
def test_faults_of_the_machine(error: Exception) -> None:
    assert is_node_fault(error)
    assert isinstance(as_node_fault(error), NodeFault)


@pytest.mark.parametrize("error", SAMPLE.values(), ids=SAMPLE)
def test_faults_of_a_sample_or_of_all_machines(error: Exception) -> None:
    assert not is_node_fault(error)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free space there, or set TMPDIR to a folder with space"),
        (errno.EMFILE, "raise the limit of open files (ulimit -n"),
        (errno.EROFS, "check the disk"),
    ],
)
def test_message_says_what_is_missing_and_what_to_do(number: int, remedy: str) -> None:
    fault = as_node_fault(_caused(MediaMissing("no such file"), _os_error(number)))
    assert os.strerror(number) in str(fault)
    assert remedy in str(fault)


def _raised_again(error: Exception) -> None:
    try:
        raise error
    except (MediaMissing, OSError) as met:
        raise_if_node_fault(met)


def test_causes_form_no_circle() -> None:
    """Code that follows the causes of an error must come to an end."""
    fault = as_node_fault(_os_error(errno.EMFILE))
    for error in (fault, _caused(MediaMissing("no such file"), fault), _os_error(errno.EMFILE)):
        with pytest.raises(NodeFault) as caught:
            _raised_again(error)
        cause: BaseException | None = caught.value
        for _ in range(5):
            cause = cause and cause.__cause__
        assert cause is None


def test_store_is_not_away_because_this_process_has_no_handles() -> None:
    async def request() -> None:
        raise _caused(EndpointConnectionError(endpoint_url="https://s3"), _os_error(errno.EMFILE))

    with pytest.raises(NodeFault, match="Too many open files"):
        asyncio.run(with_retries(request, "s3://bucket/key"))


def test_temporary_files_are_the_machines_whatever_goes_wrong() -> None:
    match = r"a temporary file in .* cannot be written: .*Input/output"
    with pytest.raises(NodeFault, match=match), temporary_files():
        raise _os_error(errno.EIO)
    with pytest.raises(StoreUnavailable), temporary_files():
        raise StoreUnavailable("no answer")


NOT_LOADED = "cannot open shared object file: Too many open files"
NO_FOLDER = "No usable temporary directory found in ['/tmp']"
FROM_A_STORE: dict[str, tuple[Exception, bool]] = {
    "key": (OSError(f"no object s3://b/{NOT_LOADED}"), False),
    "key, by a cause": (_caused(ValueError("x"), OSError(f"s3://b/{NOT_LOADED}")), False),
    "key and number": (OSError(errno.EIO, f"no object b/{NOT_LOADED}"), False),
    "key as the reason": (FileNotFoundError(errno.ENOENT, NO_FOLDER), False),
    "handles": (_os_error(errno.EMFILE), True),
    "handles, by a cause": (_caused(ConnectionError("x"), _os_error(errno.EMFILE)), True),
    "package": (ImportError(f"lib.so: {NOT_LOADED}"), True),
}


@pytest.mark.parametrize(("error", "is_machine"), FROM_A_STORE.values(), ids=FROM_A_STORE)
def test_a_key_in_a_stores_error_is_no_fault_of_the_machine(
    error: Exception, is_machine: bool
) -> None:
    with (
        pytest.raises(MediaError) as caught,
        store_errors(Part("image", uri="s3://b/a.png")),
    ):
        raise error
    assert is_node_fault(caught.value) is is_machine


def test_a_key_in_an_error_of_s3_is_no_fault_of_the_machine() -> None:
    async def request() -> None:
        raise OSError(f"s3://b/{NOT_LOADED}")

    with pytest.raises(OSError, match="s3://b") as caught:
        asyncio.run(with_retries(request, "s3://b/x"))
    assert not is_node_fault(caught.value)


def test_store_without_a_temporary_folder_blames_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a client that caches: `tempfile` finds no folder while it reads."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    with pytest.raises(MediaMissing) as caught, store_errors(Part("image", uri="s3://b/a.png")):
        tempfile.mkdtemp()
    assert is_node_fault(caught.value)


def _without_handles(check: Callable[[], None]) -> None:
    """Call `check` while this process can open no file."""
    with no_file_handles():
        check()


def test_resolver_hides_missing_handles_and_the_check_finds_them() -> None:
    check_handles()

    def check() -> None:
        with pytest.raises(NodeFault, match="Too many open files"):
            check_handles()

    _without_handles(check)


NO_THREADS = """
import os, resource
from omnitrace_core.runtime.node_faults import is_node_fault
error = RuntimeError("can't start new thread")
assert not is_node_fault(error)
os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
assert is_node_fault(error)
assert not is_node_fault(type("Mine", (RuntimeError,), {})("can't start new thread"))
"""


@pytest.mark.skipif(os.getuid() != 0, reason="the limit of threads holds for other users than root")
def test_threads_that_cannot_be_started_are_the_machines() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_THREADS],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 0, done.stderr


def test_node_faults_say_so_when_sent_to_another_process() -> None:
    import pickle

    fault = as_node_fault(_os_error(errno.ENOSPC))
    fault.node, fault.chunk = "n1", "c1"
    sent = pickle.loads(pickle.dumps(fault))
    assert isinstance(sent, NodeFault)
    assert (sent.node, sent.chunk, str(sent)) == ("n1", "c1", str(fault))
