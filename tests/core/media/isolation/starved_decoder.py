"""The real decoder in a child whose process runs out of file handles or threads."""

from __future__ import annotations

import os
import resource
from dataclasses import replace

from omnitrace_core.decoded_media import DecodedMedia
from omnitrace_core.media.decode import decode_part
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part


def decode(
    part: Part, options: MediaOptions, rules: MediaRules, *, want_sound: bool
) -> DecodedMedia:
    """Decode a part while the child can open as many files as the part's text says.

    Once without a limit before, so that libraries are loaded if the text begins with `warm`.
    """
    when, _, n_free = part.text.partition(" ")
    plain = replace(part, text="")
    if when == "warm":
        decode_part(plain, options, rules, want_sound=want_sound)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    n_open = len(os.listdir("/proc/self/fd")) - 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (n_open + int(n_free), hard))
    try:
        return decode_part(plain, options, rules, want_sound=want_sound)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
