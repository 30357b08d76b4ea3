"""The one gate for addresses of media: whether and how an address is read.

Samples are written by others, and workers hold credentials and see private networks. So what a
sample names is read only if the run's settings name it, too.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from pathlib import Path

from omnitrace_core.access.stores import Link, is_covered, parse_store_address, store_of
from omnitrace_core.access.web import WebTarget, is_listed, parse_web_address
from omnitrace_core.addresses import is_web, shown_address
from omnitrace_core.errors import MediaDenied
from omnitrace_core.options import MediaOptions

_DATA_URI = re.compile(r"data:", re.IGNORECASE)
_SHOWN_ENTRIES = 5
ALTERNATIVE = "download the file first and give its path or its address in an object store"


class Kind(enum.Enum):
    """Who reads an address that was admitted."""

    LOCAL = "local"
    WEB = "web"
    STORE = "store"


@dataclass(frozen=True, slots=True)
class Admitted:
    """An address that may be read. address: as its reader takes it."""

    kind: Kind
    address: str


def admit(uri: str, options: MediaOptions) -> Admitted:
    """Decide whether media may be read from an address; nothing is opened here.

    | address                            | read if                                               |
    | ---------------------------------- | ----------------------------------------------------- |
    | a path, `file://`                  | the opened file lies in `media.roots`; empty: always  |
    | `https://`                         | its host is in `media.web_hosts`, and each IP address |
    |                                    | of it is public; so for each redirect                 |
    | `http://`                          | never                                                 |
    | `s3://`, `gs://`, `abfs://`,       | an entry of `media.allow` has the same scheme and     |
    | `hf://`, `hdfs://`, ... (a store)  | bucket, container or server, and its path begins with |
    |                                    | the entry's, in whole steps                           |
    | `zip://a::s3://...` (a chain)      | an entry has as many links, each of which covers its  |
    |                                    | link as above                                         |
    | `data:`, other schemes, malformed  | never                                                 |

    A file in `media.roots` is only known when it is open: `check_roots` is called then.

    Raises:
        MediaDenied: it may not be read, or is not an address; the message names the remedy.
    """
    name = shown_address(uri)
    scheme, separator, _ = uri.partition("://")
    if is_web(uri):
        web_target(uri, options, name)
        return Admitted(Kind.WEB, uri)
    if _DATA_URI.match(uri):
        raise MediaDenied(
            f"{name[:60]}: data: addresses are not read from the field uri; give the bytes in the "
            "field data"
        )
    if not separator or scheme.lower() == "file":
        return Admitted(Kind.LOCAL, uri)
    try:
        links = parse_store_address(uri)
    except ValueError as error:
        raise MediaDenied(f"{name}: {error}") from None
    allowed = options.allow or ()
    if not is_covered(links, allowed):
        raise MediaDenied(_not_allowed(name, links, options))
    return Admitted(Kind.STORE, "::".join(map(str, links)))


def _not_allowed(name: str, links: tuple[Link, ...], options: MediaOptions) -> str:
    entry = "::".join(filter(None, (store_of(str(link)) or str(link) for link in links)))
    place = "media.allow"
    if options.allow is None:
        state = "media.allow is not set, and no store is read without it"
        # A run always has a list.
        place += " (in Python: MediaOptions(allow=[...]))"
    else:
        shown = f"{list(options.allow[:_SHOWN_ENTRIES])}"
        if len(options.allow) > _SHOWN_ENTRIES:
            shown += f" and {len(options.allow) - _SHOWN_ENTRIES} more"
        state = f"lies in no entry of media.allow={shown}"
    return (
        f"{name}: {state}; add its folder, or all of {shown_address(entry)}, to {place} if this "
        "run may read it"
    )


def web_target(url: str, options: MediaOptions, name: str) -> WebTarget:
    """The host and path of an https URL whose host is listed.

    Raises:
        MediaDenied: another scheme, an invalid URL, or a host that is not listed.
    """
    try:
        web = parse_web_address(url)
    except ValueError as error:
        raise MediaDenied(f"{name}: {error}; or {ALTERNATIVE}") from error
    listed = options.web_hosts
    if not is_listed(web.host, listed):
        raise MediaDenied(
            f"{name}: {web.host} is not in media.web_hosts={list(listed)}; add it if this run "
            f"may read from it, or {ALTERNATIVE}"
        )
    return web


def check_roots(path: Path, options: MediaOptions, name: str) -> None:
    """Check where a local file lies, after symlinks are resolved.

    Raises:
        MediaDenied: outside `media.roots`.
    """
    roots = [Path(root).resolve() for root in options.roots]
    if roots and not any(path.is_relative_to(root) for root in roots):
        raise MediaDenied(
            f"{name}: lies outside media.roots={list(options.roots)}; "
            "add its folder to media.roots if this run may read it"
        )
