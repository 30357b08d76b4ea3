"""Show addresses of files and media in messages, without secrets and not too long."""

from __future__ import annotations

import re

from omnitrace_core.records import Part

_MAX_SHOWN_CHARS = 200


def is_web(uri: str) -> bool:
    """Whether this is a web address (http or https), allowed or not."""
    return uri.lower().startswith(("https://", "http://"))


def media_name(part: Part) -> str:
    """How messages name the media of a part: by its address, or as inline media."""
    if part.data is not None or not part.uri:
        return f"inline {part.type}"
    return shown_address(part.uri)


def shown_address(uri: str) -> str:
    """A path or URL in the form that messages show: short, and without what may be a secret.

    A web address is cut to scheme, host and path, because a user name before the host may come
    with a password and a query may hold a signature. Other addresses keep their `?` and `#`:
    names of files and objects may contain them.
    """
    if "://" in uri and "http" in uri.partition("://")[0].lower():
        scheme, _, rest = uri.partition("://")
        kept = re.split("[?#]", rest, maxsplit=1)[0]
        authority, slash, path = kept.partition("/")
        host = authority.rpartition("@")[2]
        uri = f"{scheme}://{host}{slash}{path}"
        if kept != rest:
            return f"{_shorten(uri)}?…"
    return _shorten(uri)


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + "…"
