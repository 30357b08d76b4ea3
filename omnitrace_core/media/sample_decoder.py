"""Decode the media of whole samples, in this process or in a child process."""

from __future__ import annotations

from collections.abc import Sequence

from omnitrace_core.addresses import media_name
from omnitrace_core.decoded_media import DecodedAudio, DecodedImage, DecodedMedia
from omnitrace_core.errors import MediaMemory, MediaTooLarge, SampleError
from omnitrace_core.media.decode import decode_part
from omnitrace_core.media.isolation.isolated_decoder import IsolatedDecoder
from omnitrace_core.media.progress.media_times import decoding
from omnitrace_core.media.shared_media import SharedMedia
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from omnitrace_core.runtime.node_faults import raise_if_node_fault


class SampleDecoder:
    """Decodes media within the limits of `options`, for the media rules of one model family.

    isolate: whether to decode in a child process if `options.isolate` is None.
    """

    def __init__(self, options: MediaOptions, rules: MediaRules, *, isolate: bool = False) -> None:
        self._options = options
        self._rules = rules
        use_child = isolate if options.isolate is None else options.isolate
        self._isolated = IsolatedDecoder(options, rules) if use_child else None

    def decode_part(self, part: Part) -> DecodedMedia:
        """Fetch and decode one media part.

        Raises:
            SampleError: as `omnitrace_core.media.decode.decode_part`; in a child process also
                MediaTimeout, MediaMemory and MediaCrashed.
            InternalError: the child process met an unexpected exception.
            DecoderError: the child process does not start.
        """
        if self._isolated is not None:
            return self._isolated.decode_part(part)
        with decoding():
            return decode_part(part, self._options, self._rules)

    def decode_parts(
        self, parts: Sequence[Part], shared: SharedMedia | None = None
    ) -> dict[int, DecodedMedia]:
        """The decoded media of one sample's parts, by part index; text parts have no entry.

        shared: of all samples that may share media with this one. A medium that several parts share
        is the same object for all of them.

        Raises:
            MediaTooLarge: together they take more than `media.max_decoded_mib`.
            MediaMemory: a part does not fit in memory.
            SampleError: as `decode_part`; the message names the part by index and address.
            InternalError, DecoderError: as `decode_part`.
            NodeFault: this machine lacks disk space, file handles or the like.
        """
        shared = shared or SharedMedia([parts])
        media = [(index, part) for index, part in enumerate(parts) if part.type != "text"]
        decoded: dict[int, DecodedMedia] = {}
        n_bytes = n_taken = 0
        try:
            for index, part in media:
                n_taken += 1
                decoded[index] = self._take(index, part, shared)
                n_bytes += _n_bytes(decoded[index])
                self._check_size(n_bytes, index, part)
        finally:
            shared.leave(part for _, part in media[n_taken:])
        return decoded

    def _take(self, index: int, part: Part, shared: SharedMedia) -> DecodedMedia:
        try:
            return shared.take(part, self.decode_part)
        except SampleError as error:
            raise_if_node_fault(error)
            raise type(error)(f"part {index}: {error.message}") from error
        except MemoryError as error:
            raise MediaMemory(
                f"part {index}: {media_name(part)}: does not fit in memory; lower media.max_*"
            ) from error

    def _check_size(self, n_bytes: int, index: int, part: Part) -> None:
        """Check the size of a sample's media, of which this part is the last."""
        if n_bytes > self._options.max_decoded_mib << 20:
            raise MediaTooLarge(
                f"part {index}: {media_name(part)}: with it the sample's media take "
                f"{n_bytes / 2**20:,.0f} MiB when decoded, above media.max_decoded_mib="
                f"{self._options.max_decoded_mib:,}; split the sample or raise the limit in "
                "the config"
            )


def _n_bytes(media: DecodedMedia) -> int:
    """Bytes of decoded pixels and sound samples."""
    if isinstance(media, DecodedImage):
        return media.pixels.nbytes
    if isinstance(media, DecodedAudio):
        return media.waveform.nbytes
    return media.frames.nbytes + (_n_bytes(media.sound) if media.sound else 0)
