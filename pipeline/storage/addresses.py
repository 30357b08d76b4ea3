"""Addresses of folders and files that users give: which are read, and why others are refused.

An address is a path on this machine or a URL of fsspec. Each is read as what it says or refused
with a reason: a typing error must not become a folder in the current directory, nor a mark in a
name another file.
"""

from __future__ import annotations

import os
import re

from omnitrace_core.addresses import plain_address
from omnitrace_core.base_options import is_utf8, text_problem
from omnitrace_core.errors import ConfigError
from omnitrace_core.storage.files import S3_SCHEMES, is_chain, scheme_of

_SHOWN_CHARS = 100
_MAX_NAME_BYTES = 255
_MAX_PATH_BYTES = 4095
_MAX_KEY_BYTES = 1024  # of S3
_BUCKET = re.compile(r"[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,254}|arn:.+")
# `./` before one of these makes it a folder's name.
_SLASH_MISSING = re.compile(
    r"(file|local|memory|s3a?|gs|gcs|az|abfss?|adl|hdfs|webhdfs|https?|s?ftp|hf|github):(?!//)",
    re.I,
)
_HOST_AND_PORT = re.compile(r"arn:.+|[^:]+:\d{1,5}")
_MARKS = ("::", "#", "?")
HIDDEN_MARKS = ("_", ".")
HIDDEN_BY = "a name begins with _ or ."


def absolute_path(path: str) -> str:
    """Normalize a path or URL: local paths become absolute, a slash at the end is removed.

    `~` and `~user` at the start are home folders, as in a shell.

    Raises:
        ConfigError: no file can have this address, or it might be read as another one.
    """
    if problem := address_problem(path):
        raise ConfigError(f"the address {_shown(path)}: {problem}")
    if is_url(path):
        return path.rstrip("/")
    return os.path.abspath(_local(path))


def address_problem(path: str) -> str | None:
    """Why an address cannot be used; None if it can."""
    if problem := text_problem(path):
        return problem
    if is_url(path):
        return _url_problem(path)
    if is_chain(path) or _begins_a_chain(path):
        return (
            "`::` chains file systems, which is not supported; give the address itself, or for a "
            "name that begins so write ./ before it"
        )
    if _SLASH_MISSING.match(path):
        return "looks like a URL without its `//`; for a folder of this name write ./ before it"
    local = _local(path)
    if local.startswith("~"):
        return "no such user's home; for a folder of this name write ./ before it"
    if scheme_of(path) and not local.startswith("/"):
        return "a file:// address must be absolute, such as file:///data"
    return _path_problem(os.path.abspath(local))


def is_url(path: str) -> bool:
    """Whether this is an address on another file system than that of this machine."""
    return scheme_of(path) not in ("", "file")


def is_hidden(name: str) -> bool:
    """Whether a step of a name begins with `_` or `.`; such files are left out unless named."""
    return any(step.startswith(HIDDEN_MARKS) for step in name.split("/"))


def is_on_s3(path: str) -> bool:
    """Whether this is an address on S3, where every character may stand in a name."""
    return scheme_of(path) in S3_SCHEMES


def name_problem(root: str, name: str) -> str | None:
    """Why a file with this name in the folder `root` cannot be read by its address."""
    if not is_utf8(name):
        return "its name is not UTF-8, and published tables hold UTF-8; rename it"
    if is_url(root) and not is_on_s3(root):
        for mark in _MARKS:
            if mark in name:
                return f"its name holds {mark}, which file systems of fsspec read as a mark"
    return None


def _url_problem(url: str) -> str | None:
    scheme, _, rest = url.partition("://")
    place, _, key = rest.partition("/")
    first = place or key.partition("/")[0]
    has_colon = ":" in first and not _HOST_AND_PORT.fullmatch(place)
    if "@" in first or (has_colon and "@" in key):
        return "a path must not hold credentials; set them in the environment"
    if not rest.strip("/"):
        return f"names no place after {scheme}://"
    if url.endswith("//"):
        return "ends with more than one slash"
    if is_on_s3(url):
        if not _BUCKET.fullmatch(place):
            return f"what follows {scheme}:// is not the name of a bucket; give {scheme}://bucket/folder"
        if len(key.encode()) > _MAX_KEY_BYTES:
            return f"a key of {len(key.encode()):,} bytes; S3 has at most {_MAX_KEY_BYTES:,}"
    elif "::" in url:
        return "`::` chains file systems, which is not supported; give the address itself"
    return None


def _begins_a_chain(path: str) -> bool:
    """Whether a protocol of fsspec stands before `::`, such as in `zip::/data/x.zip`."""
    protocol, mark, _ = path.partition("::")
    if not mark or not protocol.isascii():
        return False
    from fsspec import available_protocols

    return protocol.lower() in available_protocols()


def _path_problem(path: str) -> str | None:
    if not is_utf8(path):  # the current directory is part of it
        return f"{_shown(path)} is not valid UTF-8; rename it"
    longest = max((os.fsencode(name) for name in path.split("/")), key=len)
    if len(longest) > _MAX_NAME_BYTES:
        return f"a name of {len(longest):,} bytes; a file's name has at most {_MAX_NAME_BYTES}"
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        return f"a path of {len(os.fsencode(path)):,} bytes; at most {_MAX_PATH_BYTES:,} are valid"
    return None


def _local(path: str) -> str:
    return os.path.expanduser(path[len("file://") :] if scheme_of(path) else path)


def _shown(path: str) -> str:
    shown = plain_address(path)
    return repr(shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS]}…")
