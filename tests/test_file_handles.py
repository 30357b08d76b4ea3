from __future__ import annotations

import errno
import os
import select
import socket

import pytest

from tests.file_handles import no_file_handles


def test_no_file_opens_and_a_server_can_still_wait() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        poll = select.poll()
        poll.register(server, select.POLLIN)
        with no_file_handles():
            with pytest.raises(OSError, match="Too many open files") as caught:
                os.open(os.devnull, os.O_RDONLY)
            assert poll.poll(0) == []
    assert caught.value.errno == errno.EMFILE
    os.close(os.open(os.devnull, os.O_RDONLY))
