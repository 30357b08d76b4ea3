"""A decoder for the child process of decoding, which notes each call in a file."""

from __future__ import annotations

import os

from omnitrace_core.decoded_media import DecodedMedia
from omnitrace_core.media import decode_part
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part

LOG = "OMNITRACE_TEST_DECODED"  # environment variable with the file's path
DECODER = "tests.stages.logged_decoder:decode"


def decode(
    part: Part, options: MediaOptions, rules: MediaRules, *, want_sound: bool
) -> DecodedMedia:
    """As `decode_part`; adds a line to the log."""
    with open(os.environ[LOG], "a") as log:
        log.write(f"{part.type} {part.uri}\n")
    return decode_part(part, options, rules, want_sound=want_sound)
