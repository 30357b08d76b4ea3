"""A decoder whose process measures by a clock that only this module moves.

Only a decoding child imports it. By this clock its import took 777 s.
"""

from __future__ import annotations

import numpy as np

from omnitrace_core.decoded_media import DecodedImage, DecodedMedia
from omnitrace_core.media.progress.media_times import fetching, importing, set_clock
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part

_now_s = [0.0]


def decode(
    part: Part, options: MediaOptions, rules: MediaRules, *, want_sound: bool
) -> DecodedMedia:
    """Take 2 s to decode, 30 s to fetch and 400 s to import."""
    _now_s[0] += 2
    with fetching():
        _now_s[0] += 30
    with importing():
        _now_s[0] += 400
    return DecodedImage(np.zeros((28, 28, 3), np.uint8), 28, 28, "")


set_clock(lambda: _now_s[0])
_now_s[0] += 777
