"""Find the Ray cluster that a run joins, and check quickly that it answers.

`ray.init` itself would wait for minutes at a wrong address.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

from omnitrace_core.errors import ConfigError
from pipeline.config import RayOptions
from pipeline.head_address import AUTO, host_and_port

# Ray sets this variable for the command of a submitted job.
_JOB_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_CONNECT_S = 5.0
# Includes the start of Python and the import of Ray.
_ANSWER_S = 60.0
# Ray prints one of these if the head refuses our token, or if we have none to send.
_TOKEN_ERRORS = ("Unauthenticated", "authentication_token_loader")
_REMEDY = "start one with `ray up cluster.yaml` or `ray start --head`, or set ray.address=null"


def address_to_join(options: RayOptions) -> str | None:
    """The address of the run's cluster; None starts a local Ray.

    A submitted job without an address joins the cluster that it was submitted to: a second Ray on
    the head node would compete for the same machine.
    """
    if options.address is None and _JOB_VARIABLE in os.environ:
        return AUTO
    return options.address


def check_answers(address: str) -> None:
    """Check that a Ray cluster answers at this address.

    Raises:
        ConfigError: nothing listens there, what listens is not a Ray head of our version, or it
            requires another token.
        ValueError: the address has the wrong form, which the config refuses.
    """
    if address != AUTO:
        _check_port(address)
    _check_health(address)


def _check_port(address: str) -> None:
    host_port = host_and_port(address)
    try:
        socket.create_connection(host_port, _CONNECT_S).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host, such as a..b
        raise ConfigError(
            f"ray.address={address!r}: no Ray cluster answers ({error}); {_REMEDY}"
        ) from error


def _check_health(address: str) -> None:
    code, last_line, refused = _run_health_check(address)
    if refused:
        raise ConfigError(
            f"ray.address={address!r}: the cluster refuses our token, which is missing or wrong; "
            "set RAY_AUTH_MODE=token, and put the cluster's token into ~/.ray/auth_token (or into "
            "the file that RAY_AUTH_TOKEN_PATH names)"
        )
    if code < 0:
        last_line = (
            f"it did not answer as a Ray head within {_ANSWER_S:g} s; is this the port of a head?"
        )
    if code:
        raise ConfigError(
            f"ray.address={address!r}: no Ray cluster answers ({last_line}); {_REMEDY}"
        )


def _run_health_check(address: str) -> tuple[int, str, bool]:
    """Run Ray's health check in a child process, since its client has no timeout that we can set.

    Returns its exit code (negative if it was killed), the last line that it printed, and whether
    the cluster refused our token.
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    last_line, refused = "", False
    # Ray reports a refused token as a warning, and a quiet run switches warnings off.
    environment = {**os.environ, "RAY_BACKEND_LOG_LEVEL": "warning"}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as child:
        timer = threading.Timer(_ANSWER_S, child.kill)
        timer.start()
        assert child.stderr is not None
        for line in child.stderr:
            last_line = line.strip() or last_line
            if refused := any(text in line for text in _TOKEN_ERRORS):
                child.kill()
                break
        code = child.wait()
        timer.cancel()
    return code, last_line, refused
