"""Show addresses of files and media in messages and tables, without secrets and not too long."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omnitrace_core.records import Part

_MAX_SHOWN_CHARS = 200
_MAX_VALUE_CHARS = 1000
# What begins like a URL. `https:/host` is what path functions make of `https://host`; a single
# letter is a drive.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_LINKS = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.-]*(?:://|::|$))")
_QUERY = re.compile(r"[?#]")
_PORT = re.compile(r"[^@:]*:\d{0,5}")
# `user:word@` where no scheme stands before it, or one without slashes.
_BARE_USER = re.compile(r"(?P<kept>(?:[A-Za-z][A-Za-z0-9+.-]*:)?/*)[^/@:\s]*:[^@\s]+@")
# In these the part before the @ is the container, which the address needs.
_CONTAINERS = ("abfs", "abfss", "az", "oci")

# In text of libraries: URLs, `user:word@`, headers and settings whose value is a secret. Each
# expression is bounded, and begins where a word does, because a text may be megabytes of one word.
_URL_IN_TEXT = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,40}:/{1,3}[^\s'\"<>`]+")
_USER_IN_TEXT = re.compile(r"(?<![^\s/@:'\"])[^\s/@:'\"]{1,100}:[^\s/@'\"]{1,200}@(?=[\w.-])")
_SECRET_IN_TEXT = re.compile(
    r"(?i)\b((?:bearer|basic)\s+|[\w-]{0,40}(?:token(?!s)|secret|passw(?:or)?d|signature|credential"
    r"|authorization|api[_-]?key|access[_-]?key)[\w-]{0,40}['\"]?\s{0,4}[=:]\s{0,4}['\"]?"
    r"(?:bearer |basic )?)[^\s,;'\"}&\[(<]{6,}"
)
_MAX_SCRUBBED_CHARS = 100_000
_SECRET_NAME = re.compile(r"(?i)token|secret|passw|credential|_key$|_key_id$|api_?key|sas$")
_SHORTEST_SECRET = 8


def is_web(uri: str) -> bool:
    """Whether this is a web address (http or https), allowed or not."""
    return uri.lower().startswith(("https://", "http://"))


def media_name(part: Part) -> str:
    """How messages name the media of a part: by its address, or as inline media."""
    if part.data is not None or not part.uri:
        return f"inline {part.type}"
    return shown_address(part.uri)


def plain_address(uri: str) -> str:
    """An address as the published tables hold it: without query, fragment and user part.

    This holds for every scheme and for each link of a chain; `user:word@` is also cut where no
    scheme stands. A path without a scheme keeps its `?` and `#`, which names of files may contain;
    so may names of objects, whose addresses are cut all the same, because a query may be a
    signature.
    """
    if "://" in uri or _SCHEME.match(uri):
        uri = _QUERY.split(uri, maxsplit=1)[0]
    return "::".join(map(_without_user, _LINKS.split(uri)))


def shown_address(uri: str) -> str:
    """A path or URL as messages show it: its `plain_address`, shortened; `?…` where it was cut."""
    plain = plain_address(uri)
    was_cut = ("://" in uri or _SCHEME.match(uri)) and _QUERY.search(uri) is not None
    shown = _shorten(plain.encode("utf-8", "backslashreplace").decode())
    return f"{shown}?…" if was_cut else shown


def _without_user(link: str) -> str:
    scheme, separator, rest = link.partition("://")
    if not separator:
        bare = _BARE_USER.match(link)
        return f"{bare['kept']}…@{link[bare.end() :]}" if bare else link
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        user, _, host = authority.rpartition("@")
        if scheme.lower() in _CONTAINERS and ":" not in user:
            return link
        return f"{scheme}://{host}{slash}{path}"
    # A word after a colon may hold slashes, as the secret keys of S3 do.
    is_word = ":" in authority and not authority.startswith("arn:") and not _is_port(authority)
    if is_word and "@" in path:
        return f"{scheme}://{path.rpartition('@')[2]}"
    return link


def _is_port(authority: str) -> bool:
    return _PORT.fullmatch(authority) is not None


def scrub(text: str) -> str:
    """Text of a library without what may be a secret.

    URLs become their `plain_address`; values of headers and settings that are called token,
    secret, signature and so on, and the values of this process's variables of such names, become
    `…`.
    """
    if len(text) > _MAX_SCRUBBED_CHARS:
        text = text[:_MAX_SCRUBBED_CHARS] + "…"
    for secret in _secrets_of_environment():
        text = text.replace(secret, "…")
    text = _URL_IN_TEXT.sub(lambda found: _plain_in_text(found[0]), text)
    text = _USER_IN_TEXT.sub("…@", text)
    return _SECRET_IN_TEXT.sub(r"\1…", text)


def shown_text(text: str) -> str:
    """A value that may be an address or may hold some, for messages; the end of a long one is cut.

    Only then is it scrubbed: what is left of an address that was cut at its start would not look
    like one.
    """
    text = text if len(text) <= _MAX_VALUE_CHARS else text[:_MAX_VALUE_CHARS] + "…"
    is_address = "://" in text and not any(character.isspace() for character in text)
    return shown_address(text) if is_address else scrub(text)


def _plain_in_text(url: str) -> str:
    kept = url.rstrip(".,;:)]}")
    plain = plain_address(kept)
    mark = "?…" if _QUERY.search(kept) else ""
    return f"{plain}{mark}{url[len(kept) :]}"


def _secrets_of_environment() -> Iterator[str]:
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and _SECRET_NAME.search(name) and "/" not in value[:1]:
            yield value


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + "…"
