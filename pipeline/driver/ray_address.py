"""Which Ray a run joins, and whether one answers there, before Ray itself waits for minutes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from urllib.parse import urlsplit

from omnitrace_core.errors import ConfigError
from pipeline.config import RayOptions

# What Ray sets for the command of a submitted job.
_SUBMITTED = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_CONNECT_S = 5.0
# Starting Python and importing Ray is part of it.
_ANSWER_S = 60.0
# What Ray says where the head refuses a token, and where it finds none to send.
_NO_TOKEN = ("Unauthenticated", "authentication_token_loader")
_REMEDY = "start one with `ray up cluster.yaml` or `ray start --head`, or set ray.address=null"


def address_to_join(options: RayOptions) -> str | None:
    """The cluster of this run; None starts a local Ray.

    A submitted job belongs to the cluster that it was submitted to: without an address it joins
    that one. A second Ray on its head node would compete with it for the same machine.
    """
    if options.address is None and _SUBMITTED in os.environ:
        return "auto"
    return options.address


def check_answers(address: str) -> None:
    """Ask the Ray at an address for a sign of life: `ray.init` tries a wrong one for minutes.

    Raises:
        ConfigError: the address is not one to join, nothing listens there, what listens is no
            Ray of our version, or it wants another token.
    """
    if "://" in address:
        raise ConfigError(
            f"ray.address={address!r} is not the address of a Ray head, which looks like "
            "10.0.0.1:6379; a run from outside the cluster is submitted: "
            "ray job submit --address http://HEAD:8265 --working-dir . -- "
            "python -m pipeline run CONFIG"
        )
    if address != "auto":
        _check_port(address)
    _check_health(address)


def _check_port(address: str) -> None:
    try:
        parts = urlsplit(f"//{address}")
        if parts.hostname is None or parts.port is None:
            raise ValueError("expected auto or HOST:PORT")
        socket.create_connection((parts.hostname, parts.port), _CONNECT_S).close()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"ray.address={address!r}: no Ray cluster answers ({error}); {_REMEDY}"
        ) from error


def _check_health(address: str) -> None:
    """Ray's own probe, in a process of its own: its client cannot be told to give up."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    said, refused = "", False
    # Refusals come as warnings, which a quiet run switches off.
    loud = {**os.environ, "RAY_BACKEND_LOG_LEVEL": "warning"}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=loud
    ) as child:
        too_late = threading.Timer(_ANSWER_S, child.kill)
        too_late.start()
        assert child.stderr is not None
        for line in child.stderr:
            said = line.strip() or said
            if refused := any(sign in line for sign in _NO_TOKEN):
                child.kill()
                break
        code = child.wait()
        too_late.cancel()
    if refused:
        raise ConfigError(
            f"ray.address={address!r}: the cluster refuses us, for our token is missing or another "
            "one; set RAY_AUTH_MODE=token, and its token in ~/.ray/auth_token (or the file that "
            "RAY_AUTH_TOKEN_PATH names)"
        )
    if code < 0:
        said = f"it did not answer as a Ray head within {_ANSWER_S:g} s; is the port its own?"
    if code:
        raise ConfigError(f"ray.address={address!r}: no Ray cluster answers ({said}); {_REMEDY}")
