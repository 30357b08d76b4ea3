"""Media of a sample, fetched and decoded within limits into what a model's processor takes."""

from omnitrace_core.media.decode import decode_part, decode_sample

__all__ = ["decode_part", "decode_sample"]
