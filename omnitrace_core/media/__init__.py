"""Media of a sample, fetched and decoded within limits into what a model's processor takes."""

from omnitrace_core.media.decode import decode_part, decode_parts
from omnitrace_core.media.isolation.supervisor import Supervisor

__all__ = ["Supervisor", "decode_part", "decode_parts"]
