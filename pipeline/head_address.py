"""The form of a Ray head's address, as `ray.address` gives it: HOST:PORT, or auto."""

from __future__ import annotations

import re

AUTO = "auto"
# An IPv6 address stands in brackets. No leading zero, and no more digits than a port has.
_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%\w+)?)\]|([A-Za-z0-9._-]+)):([1-9][0-9]{0,4})")
_MAX_PORT = 65_535


def checked_address(address: str) -> str:
    """The address itself. Raises: ValueError: it has the wrong form."""
    if address != AUTO:
        host_and_port(address)
    return address


def host_and_port(address: str) -> tuple[str, int]:
    """Host (an IPv6 address without its brackets) and port. Raises: ValueError."""
    if "://" in address:
        raise ValueError(
            "not the address of a Ray head, which looks like 10.0.0.1:6379; a run from outside "
            "the cluster is submitted: ray job submit --address http://HEAD:8265 --working-dir . "
            "-- python -m pipeline run CONFIG"
        )
    match = _HOST_PORT.fullmatch(address)
    if match is None or int(match[3]) > _MAX_PORT:
        raise ValueError(
            f"expected {AUTO} or HOST:PORT with a port from 1 to {_MAX_PORT:,}, such as "
            "10.0.0.1:6379; null starts a local Ray"
        )
    return match[1] or match[2], int(match[3])
