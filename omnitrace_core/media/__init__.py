"""Fetch and decode the media of samples, within limits, into what a model's processor takes.

`MediaDecoder` decodes the parts of samples, in this process or in a child process; `decode_part`
decodes one part in this process.
"""

from omnitrace_core.media.decode import decode_part
from omnitrace_core.media.sample_decoder import MediaDecoder

__all__ = ["MediaDecoder", "decode_part"]
