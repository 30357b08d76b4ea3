"""Fetch and decode the media of samples, within limits, into what a model's processor takes.

`SampleDecoder` decodes the parts of samples, in this process or in a child process; `decode_part`
decodes one part in this process. `SharedMedia` keeps what several samples share.
"""

from omnitrace_core.media.decode import decode_part
from omnitrace_core.media.sample_decoder import SampleDecoder
from omnitrace_core.media.shared_media import SharedMedia

__all__ = ["SampleDecoder", "SharedMedia", "decode_part"]
