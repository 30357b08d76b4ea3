"""Start a local Ray; a start that fails on a busy machine is tried again with more patience."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import ray
from ray._private import services

from omnitrace_core.errors import RunError
from pipeline.cluster.ray_processes import end_processes, ray_processes_of

# Ray's own patience with its node is 30 s, fixed in its code.
PATIENCE_S = (30.0, 90.0, 180.0)
_PAUSE_S = 5.0
# How long `ray.init` waits for its control process to say which port it has.
_PORT_WAIT_VARIABLE = "RAY_gcs_server_port_wait_time_s"

log = logging.getLogger(__name__)


def start_local(init: Callable[[], object], sleep: Callable[[float], None] = time.sleep) -> None:
    """Call `init`, which starts a local Ray, until it succeeds, at most once per `PATIENCE_S`.

    Before the next try, what the last one left running is ended.

    Raises:
        RunError: Ray did not start.
    """
    for number, patience_s in enumerate(PATIENCE_S, start=1):
        try:
            with _waiting(patience_s):
                init()
            return
        # Ray raises a plain Exception if its node does not come up.
        except Exception as error:
            _end_leftovers()
            if number == len(PATIENCE_S) or not _may_pass(error):
                raise RunError(
                    f"the local Ray of this run did not start, at try {number} of "
                    f"{len(PATIENCE_S)}: {error}; is the machine too busy or out of memory, or is "
                    "its temporary folder (RAY_TMPDIR) unusable? Run again, or start Ray with "
                    "`ray start --head` and set ray.address=auto"
                ) from error
            log.warning(
                "the local Ray did not start (%s); trying again, %d of %d, with up to %g s for it",
                error,
                number + 1,
                len(PATIENCE_S),
                PATIENCE_S[number],
            )
            sleep(_PAUSE_S)


def _may_pass(error: Exception) -> bool:
    """Whether another try may succeed: not with settings or a folder that Ray refuses."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    return not isinstance(error, ValueError | OSError)


def _end_leftovers() -> None:
    """End what a failed start left running; Ray itself ends it only with this process."""
    ray.shutdown()
    if left := end_processes(ray_processes_of(os.getpid())):
        log.warning("processes of the failed start are still there: %s", left)


@contextmanager
def _waiting(patience_s: float) -> Iterator[None]:
    """Make `ray.init` wait this long for its control process and for its node."""
    before = os.environ.get(_PORT_WAIT_VARIABLE)
    if before is None:
        os.environ[_PORT_WAIT_VARIABLE] = f"{patience_s:.0f}"
    get_node = services.get_node

    def get_node_patiently(gcs_address: str, node_id: str) -> dict[str, object]:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                found: dict[str, object] = get_node(gcs_address, node_id)
                return found
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.2)

    services.get_node = get_node_patiently
    try:
        yield
    finally:
        services.get_node = get_node
        if before is None:
            os.environ.pop(_PORT_WAIT_VARIABLE, None)
