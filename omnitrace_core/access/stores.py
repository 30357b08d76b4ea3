"""Rules for reading media from stores: which addresses are valid, and which `media.allow` covers.

Nothing here uses the network or fsspec; `media/fetching/gate.py` decides by these rules.

An address is one link, or a chain of links that `::` separates: wrappers (an archive, a cache), and
last the store that holds the object.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Spellings of one kind of store.
_SAME_SCHEME = {"s3a": "s3", "gcs": "gs", "az": "abfs", "abfss": "abfs", "ssh": "sftp"}
# The first part of their addresses names a bucket or container; host and account come from the
# environment, or are part of the entry.
_BUCKETS = frozenset({"s3", "gs", "abfs", "adl", "hf", "memory", "oci", "oss", "github"})
# The first part of their addresses names a server.
_SERVERS = frozenset({"hdfs", "ftp", "sftp", "smb", "webhdfs"})
_ARCHIVES = frozenset({"zip", "tar"})
_CACHES = frozenset({"simplecache", "filecache", "blockcache"})
STORES = _BUCKETS | _SERVERS
_OBJECT_STORES = frozenset({"s3", "gs", "abfs", "hf", "memory", "oci", "oss"})
_LISTABLE = STORES | _ARCHIVES | _CACHES
# On the hub these may stand before namespace and name.
_HUB_TYPES = frozenset({"models", "datasets", "spaces", "kernels", "buckets"})
_NO_AUTHORITY = frozenset({"memory", "hdfs"})  # memory:///a, hdfs:///a

_MAX_CHARS = 4096  # keys of object stores have at most 1,024 bytes
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_AUTHORITY = {
    "s3": re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*|arn:[A-Za-z0-9:._-]+"),
    "abfs": re.compile(rf"[$]?{_NAME}(@{_NAME})?"),
    "oci": re.compile(rf"{_NAME}(@{_NAME})?"),
    "github": re.compile(rf"{_NAME}:{_NAME}@{_NAME}"),
    **dict.fromkeys(_SERVERS, re.compile(rf"{_NAME}(:[0-9]+)?")),
}
_PLAIN_AUTHORITY = re.compile(_NAME)
# What a file system takes for more than the name: S3 and Google drop the version and would read
# another one. In other stores each ? and # may be a parameter.
_PARAMETERS = {
    "s3": re.compile(r"\?versionId="),
    "gs": re.compile(r"\?generation=|#\d+$"),
    **dict.fromkeys(("memory", *_ARCHIVES), re.compile(r"(?!)")),
}
_ANY_PARAMETER = re.compile(r"[?#]")


@dataclass(frozen=True, slots=True)
class Link:
    """A link of an address, or of an entry of `media.allow`.

    scheme: in lower case, one spelling per kind of store. authority: bucket, container or server;
    empty for archives and caches. segments: of the path below it.
    """

    scheme: str
    authority: str
    segments: tuple[str, ...]

    def covers(self, other: Link) -> bool:
        """Whether the other link lies at this one or below it; segments are compared as a whole."""
        n_segments = len(self.segments)
        return (self.scheme, self.authority) == (
            other.scheme,
            other.authority,
        ) and self.segments == other.segments[:n_segments]

    def __str__(self) -> str:
        if self.scheme in _CACHES:
            return self.scheme
        path = "/".join(self.segments)
        if self.scheme in _ARCHIVES:
            return f"{self.scheme}://{path}"
        return f"{self.scheme}://{self.authority}/{path}"


def parse_store_address(address: str) -> tuple[Link, ...]:
    """The links of an object's address.

    Raises:
        ValueError: it is not valid, or of a kind that is never read; the message holds nothing of
            the address that `shown_address` hides.
    """
    links = _links(address)
    if any(not link.segments for link in links if link.scheme not in _CACHES):
        raise ValueError("it names no object; give scheme://bucket/name")
    return links


def store_prefix(text: str) -> str:
    """An entry of `media.allow` in normal form; it ends with `/`.

    Raises:
        ValueError: it cannot be an entry.
    """
    if _ANY_PARAMETER.search(text):
        raise ValueError(
            "an entry must not hold ? or #, after which a signature may stand; give the folder "
            "above, and set credentials in the environment"
        )
    first = text.partition("://")[0].lower()
    if first in ("http", "https"):
        raise ValueError("web addresses are not listed here; add the host to media.web_hosts")
    if first == "file" or "://" not in text:
        raise ValueError(
            "this is a local path, and not the address of a store; local folders are listed in "
            "media.roots"
        )
    # An entry may end with a slash, or not; each link of a chain too.
    links = _links("::".join(_without_slash(link) for link in text.split("::")))
    return "::".join(map(_as_prefix, links))


def is_covered(links: tuple[Link, ...], entries: Iterable[str]) -> bool:
    """Whether an entry (in normal form) has as many links, each of which covers its link."""
    return any(
        len(entry) == len(links) and all(a.covers(b) for a, b in zip(entry, links, strict=True))
        for entry in (_links("::".join(map(_without_slash, text.split("::")))) for text in entries)
    )


def store_of(address: str) -> str | None:
    """The entry for all of the store that an address lies on: its bucket, container or server.

    On the Hugging Face hub: the repository, with its revision. None for local paths, web addresses,
    chains, and what does not begin with the valid name of a store; the path below it does not
    matter.
    """
    scheme, separator, rest = address.partition("://")
    scheme = _SAME_SCHEME.get(scheme.lower(), scheme.lower())
    if not separator or scheme not in STORES:
        return None
    authority, *segments = rest.rstrip("/").split("/")
    n_segments = _n_store_segments(scheme, authority, segments)
    if len(segments) < n_segments:
        return None
    try:
        (link,) = _links("/".join((f"{scheme}://{authority}", *segments[:n_segments])))
    except ValueError:
        return None
    return _as_prefix(link)


def is_object_store(entry: str) -> bool:
    """Whether an entry (in normal form) is one link, and lies in a bucket or a repository.

    Such an entry names no server, and no cache or archive: requests go where those of the input go.
    """
    return entry.partition("://")[0] in _OBJECT_STORES and store_of(entry) is not None


def _n_store_segments(scheme: str, authority: str, segments: Sequence[str]) -> int:
    """How many segments belong to the name of the store, besides the authority."""
    if scheme == "hf":
        n_name = 2 if authority in _HUB_TYPES else 1
        # Revisions with slashes: refs/pr/3, refs/convert/parquet.
        has_refs = len(segments) >= n_name and segments[n_name - 1].endswith("@refs")
        return n_name + 2 if has_refs else n_name
    if authority.endswith(":accesspoint"):  # arn:...:accesspoint/name
        return 1
    return 3 if authority.endswith(":outpost") else 0


def _as_prefix(link: Link) -> str:
    text = str(link)
    return text if link.scheme in _CACHES or text.endswith("/") else f"{text}/"


def _without_slash(link: str) -> str:
    """An entry's link without the slash at its end, which an address must not have."""
    scheme, separator, rest = link.partition("://")
    return f"{scheme}://{rest.removesuffix('/')}" if separator else link


def _links(text: str) -> tuple[Link, ...]:
    if len(text) > _MAX_CHARS:
        raise ValueError(f"{len(text):,} characters, more than {_MAX_CHARS:,}; shorten the name")
    if _CONTROL.search(text) or "\\" in text or not _is_utf8(text):
        raise ValueError(
            "control characters, backslashes and characters that are not UTF-8 are not read in "
            "addresses of stores; rename the object"
        )
    links = tuple(map(_link, text.split("::")))
    *wrappers, last = links
    if any(link.scheme in STORES for link in wrappers) or last.scheme not in STORES:
        raise ValueError(
            f"a chain of addresses ends with a store, and before it come only "
            f"{', '.join(sorted(_ARCHIVES | _CACHES))}; rename the object, or copy it"
        )
    return links


def _link(text: str) -> Link:
    scheme, separator, rest = text.partition("://")
    scheme = _SAME_SCHEME.get(scheme.lower(), scheme.lower())
    if not _SCHEME.fullmatch(scheme):
        raise ValueError("this is not a valid address; give scheme://bucket/name")
    if scheme not in _LISTABLE:
        raise ValueError(
            "addresses of this kind are never read; copy the media to a folder, or to a store of "
            f"{', '.join(sorted(STORES))}"
        )
    if scheme in _CACHES:
        if rest:
            raise ValueError(f"{scheme} takes no path; write {scheme}::")
        return Link(scheme, "", ())
    if not separator:
        raise ValueError(f"this is not a valid address; write {scheme}://")
    if _PARAMETERS.get(scheme, _ANY_PARAMETER).search(rest):
        raise ValueError(
            f"versions, generations and parameters after ? or # are not read from {scheme}://; "
            "copy that version, and give its name alone"
        )
    authority, path = "", rest
    if scheme not in _ARCHIVES:
        authority, _, path = rest.partition("/")
        _check_authority(scheme, authority)
        if "/" in rest and not path:
            raise ValueError("the name ends with /, as a folder does; give the name of an object")
    segments = tuple(path.split("/")) if path else ()
    if authority.startswith("arn:") and ":" in path:
        # s3fs looks for the last part of the path that reads like the rest of an ARN.
        raise ValueError("names with : are not read from access points; rename the object")
    if any(segment in ("", ".", "..") for segment in segments):
        raise ValueError("empty steps, . and .. are not read in addresses of stores")
    return Link(scheme, authority, segments)


def _check_authority(scheme: str, authority: str) -> None:
    if not authority and scheme in _NO_AUTHORITY:
        return
    if not _AUTHORITY.get(scheme, _PLAIN_AUTHORITY).fullmatch(authority):
        raise ValueError(
            f"what follows {scheme}:// is not the name of a bucket, container or server; users, "
            "passwords and (in object stores) ports are not read from addresses: set them in the "
            "environment"
        )


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
