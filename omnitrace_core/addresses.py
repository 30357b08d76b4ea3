"""Show addresses of files and media in messages and tables, without secrets and not too long."""

from __future__ import annotations

import os
import re
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
# What may follow `://` with a colon in it, and no secret: `host:port`, and ARNs of S3.
_HOST_AND_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]*\]|[^@:\[\]]*)(?::\d{0,5})?")
_ARN = re.compile(r"arn:aws[a-z-]*:s3[a-z-]*:[a-z0-9-]*:\d*:(?:accesspoint|outpost)")
_CUT = re.compile(r"…(?:@[^@]*)?")  # what `plain_address` leaves
# `user:word@` where no scheme stands before it, or one without slashes.
_BARE_USER = re.compile(
    r"(?!(?:[A-Za-z][A-Za-z0-9+.-]*:)?/*…@[^@]*$)"  # it is cut already
    r"(?P<kept>(?:[A-Za-z][A-Za-z0-9+.-]*:)?/*)[^/@:\s]*:\S+@"
)
_WITHOUT_PORTS = ("s3", "s3a", "gs", "gcs", "hf", "adl", "oss")
# In these the part before the @ is the container, which the address needs.
_CONTAINERS = ("abfs", "abfss", "az", "oci")

# In text of libraries: URLs, `user:word@`, headers and settings whose value is a secret. Each
# expression is bounded, and begins where a word does, because a text may be megabytes of one word.
_URL_IN_TEXT = re.compile(r"(?<![A-Za-z0-9+.-])[A-Za-z0-9][A-Za-z0-9+.-]{1,40}:/{1,3}[^\s'\"<>`]+")
_USER_IN_TEXT = re.compile(
    r"(?<![^\s/@:'\"])[^\s/@:'\"]{1,100}:(?!//)([^\s'\"]{1,200})@(?=[\w.-])([^\s'\"]*)"
)
_KEY_IN_TEXT = re.compile(r"(?s)-----BEGIN [A-Z ]{0,40}-----.*?(?:-----END [A-Z ]{0,40}-----|\Z)")
_SECRET_IN_TEXT = re.compile(
    r"(?i)\b((?:bearer|basic|shared-?key(?:lite)?)\s+|sig['\"]?\s{0,4}=\s{0,4}['\"]?"
    r"|[\w-]{0,40}(?:token(?!s)|secret|passw(?:or)?d|signature|credential|authorization"
    r"|(?:api|access|account|shared|private)[_-]?key)[\w-]{0,40}['\"]?\s{0,4}[=:]\s{0,4}['\"]?"
    r"(?:bearer |basic )?)[^\s,;'\"}&\[(<]{6,}"
)
_MAX_SCRUBBED_CHARS = 100_000
_SECRET_NAME = re.compile(
    r"(?i)token|secret|passw|credential|_key$|_key_id$|api_?key|sas$|connection_?string$"
)
# In strings of connections: `AccountName=x;AccountKey=y`.
_KEY_OF_CONNECTION = re.compile(r"(?i)(?:key|signature|password)=([^;]+)")
_SHORTEST_SECRET = 8


def is_web(uri: str) -> bool:
    """Whether this is a web address (http or https), allowed or not."""
    return uri.lower().startswith(("https://", "http://"))


def media_name(part: Part) -> str:
    """How messages name the media of a part: by its address, or as inline media.

    A list of frames is named by its first one.
    """
    if part.frames:
        first = part.frames[0].uri
        return f"{len(part.frames)} frames ({shown_address(first) if first else 'inline'}, ...)"
    if part.data is not None or not part.uri:
        return f"inline {part.type}"
    return shown_address(part.uri)


def plain_address(uri: str) -> str:
    """An address as the published tables hold it: without query, fragment and user part.

    This holds for every scheme and for each link of a chain; `user:word@` is also cut where no
    scheme stands. A word may hold slashes and `@`, as the secret keys of S3 do: after a colon, all
    up to the last `@` is cut. `…` stands where this may have cut a part of the path, too. A path
    without a scheme keeps its `?` and `#`, which names of files may contain; so may names of
    objects, whose addresses are cut all the same, because a query may be a signature.
    """
    query = ""
    if "://" in uri or _SCHEME.match(uri):
        uri, *rest = _QUERY.split(uri, maxsplit=1)
        query = rest[0] if rest else ""
    *links, last = _LINKS.split(uri)
    # A word may hold ? and #: then the @ stands in what looks like a query.
    return "::".join([*map(_without_user, links), _without_user(last, "@" in query)])


def shown_address(uri: str) -> str:
    """A path or URL as messages show it: its `plain_address`, shortened; `?…` where it was cut."""
    plain = plain_address(uri)
    was_cut = ("://" in uri or _SCHEME.match(uri)) and _QUERY.search(uri) is not None
    shown = _shorten(plain.encode("utf-8", "backslashreplace").decode())
    return f"{shown}?…" if was_cut else shown


def _without_user(link: str, may_go_on: bool = False) -> str:
    """A link without user and word. may_go_on: an `@` follows in what was cut from its end."""
    scheme, separator, rest = link.partition("://")
    if not separator:
        bare = _BARE_USER.match(link)
        return f"{bare['kept']}…@{link[bare.end() :]}" if bare else link
    # Without an authority, some clients take the first step of the path for it.
    start = f"{scheme}://{'/' * (len(rest) - len(rest.lstrip('/')))}"
    rest = rest.lstrip("/")
    authority = rest.partition("/")[0]
    if _CUT.fullmatch(rest) or _ARN.fullmatch(authority):  # it is cut already, or has no user
        return link
    user, at, place = rest.rpartition("@")
    is_container = scheme.lower() in _CONTAINERS and ":" not in authority
    if at and (":" in authority or ("@" in authority and not is_container)):
        return f"{start}{'…@' if '/' in user or start[-3:] == '///' else ''}{place}"
    is_place = _HOST_AND_PORT.fullmatch(authority) or is_container
    if not is_place or (":" in authority and (may_go_on or scheme.lower() in _WITHOUT_PORTS)):
        # A word whose @ is missing: it stands behind a ?, or the text was cut.
        return f"{start}…"
    return link


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
    text = _KEY_IN_TEXT.sub("…", text)
    text = _URL_IN_TEXT.sub(lambda found: _plain_in_text(found[0]), text)
    text = _USER_IN_TEXT.sub(_place_in_text, text)
    return _SECRET_IN_TEXT.sub(r"\1…", text)


def shown_text(text: str) -> str:
    """A value that may be an address or may hold some, for messages; the end of a long one is cut.

    Only then is it scrubbed: what is left of an address that was cut at its start would not look
    like one.
    """
    text = text if len(text) <= _MAX_VALUE_CHARS else text[:_MAX_VALUE_CHARS] + "…"
    is_address = "://" in text and not any(character.isspace() for character in text)
    return shown_address(text) if is_address else scrub(text)


def _place_in_text(found: re.Match[str]) -> str:
    """What follows `user:word@`; nothing if the `@` may stand in a query."""
    return "…" if _QUERY.search(found[1]) else f"…@{found[2]}"


def _plain_in_text(url: str) -> str:
    kept = url.rstrip(".,;:)]}")
    plain = plain_address(kept)
    mark = "?…" if _QUERY.search(kept) else ""
    return f"{plain}{mark}{url[len(kept) :]}"


def _secrets_of_environment() -> list[str]:
    """Values that are secrets by the names of their variables; those that hold others first."""
    found: set[str] = set()
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and not _is_existing_path(value):
            found.update((value, *_KEY_OF_CONNECTION.findall(value)))
    secrets = (secret for secret in found if len(secret) >= _SHORTEST_SECRET)
    return sorted(secrets, key=len, reverse=True)


def _is_existing_path(value: str) -> bool:
    return value.startswith("/") and os.path.exists(value)


def _shorten(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + "…"
