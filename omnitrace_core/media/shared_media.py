"""Media that several samples share: fetched and decoded once, errors included."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace

from omnitrace_core.decoded_media import DecodedMedia
from omnitrace_core.errors import InternalError, SampleError
from omnitrace_core.records import Part
from omnitrace_core.runtime.node_faults import raise_if_node_fault


class SharedMedia:
    """The decoded media, and the errors, of parts that occur more than once in some samples.

    Parts share a medium if they have the same type, address or bytes, and media options: whatever
    decoding depends on, with one decoder's settings. Whether a part is evidence and what is said in
    it do not matter. A file that changes meanwhile is the same for all: as it was first read. A
    medium is kept until the last of its parts has taken it, or will not, because its sample failed.
    """

    def __init__(self, samples: Iterable[Sequence[Part]]) -> None:
        """samples: the parts of each."""
        media = (part for parts in samples for part in parts if part.type != "text")
        counts = Counter(map(_outline, media))
        # How often each may still be taken. Outlines are cheap; bytes are compared only if needed.
        self._n_left = {outline: count for outline, count in counts.items() if count > 1}
        self._kept: dict[Hashable, dict[bytes, DecodedMedia | SampleError | InternalError]] = {}

    def take(self, part: Part, decode: Callable[[Part], DecodedMedia]) -> DecodedMedia:
        """The medium of a part, from an earlier part or decoded now.

        Raises: what `decode` raises, or raised for an earlier part with the same medium.
        """
        outline = _outline(part)
        if outline not in self._n_left:
            return decode(part)
        kept = self._kept.setdefault(outline, {})
        digest = _digest(part)
        try:
            if digest not in kept:
                kept[digest] = _decoded(part, decode)
            found = kept[digest]
        finally:
            self._count_down(outline)
        if isinstance(found, SampleError | InternalError):
            # A new error each time, because each is raised from another place.
            raise type(found)(found.message)
        return found

    def leave(self, parts: Iterable[Part]) -> None:
        """Count parts that will not be taken, because their sample has failed before them."""
        for part in parts:
            outline = _outline(part)
            if outline in self._n_left:
                self._count_down(outline)

    def _count_down(self, outline: Hashable) -> None:
        self._n_left[outline] -= 1
        if not self._n_left[outline]:
            del self._n_left[outline]
            self._kept.pop(outline, None)


def _outline(part: Part) -> Hashable:
    """What parts have in common that share a medium, except the bytes of inline media."""
    frames = tuple(replace(frame, data=None) for frame in part.frames)
    sizes = [None if data is None else len(data) for data in _inline(part)]
    return replace(part, data=None, frames=frames, evidence=True, segments=None), *sizes


def _digest(part: Part) -> bytes:
    """Of the bytes of inline media; those of one outline have the same number and lengths."""
    digest = hashlib.sha256()
    for data in _inline(part):
        digest.update(data or b"")
    return digest.digest()


def _inline(part: Part) -> list[bytes | None]:
    return [part.data, *(frame.data for frame in part.frames)]


def _decoded(
    part: Part, decode: Callable[[Part], DecodedMedia]
) -> DecodedMedia | SampleError | InternalError:
    """The decoded medium, or why there is none, without what holds memory (frames of a traceback).

    Raises: NodeFault: the machine is the reason. Other errors of `decode` that are no sample's.
    """
    try:
        return decode(part)
    except (SampleError, InternalError) as error:
        # Now, because the causes of the error are not kept.
        raise_if_node_fault(error)
        return type(error)(error.message)
