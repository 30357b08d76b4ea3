"""Decode images."""

from __future__ import annotations

from omnitrace_core.addresses import media_name
from omnitrace_core.decoded_media import DecodedImage
from omnitrace_core.media.fetching.fetch import read_media, sha256_of
from omnitrace_core.media.pictures.picture import read_picture
from omnitrace_core.media.sizes import check_decoded, image_size
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part


def decode_image(part: Part, options: MediaOptions, rules: MediaRules) -> DecodedImage:
    """Fetch and decode an image part.

    Raises:
        InvalidSample: min_pixels above max_pixels, or neither uri nor data.
        MediaTooLarge: above `media.max_image_pixels`, by the header, before decoding; or above
            `media.max_decoded_mib` at the requested size.
        MediaCorrupt: not an image, or a truncated one.
        MediaError: fetching failed (see `read_media`), or the aspect ratio is not accepted.
    """
    name = media_name(part)
    content = read_media(part, options)

    def size_of(width: int, height: int) -> tuple[int, int]:
        size = image_size(width, height, part.options, options, rules, name)
        check_decoded(size[0] * size[1] * 3, part.options, options, name)
        return size

    picture = read_picture(content, size_of, options, name)
    return DecodedImage(
        picture.pixels, picture.width, picture.height, sha256_of(content), picture.notes
    )
