"""How long the sound of a container lasts, before it is decoded."""

from __future__ import annotations

from typing import BinaryIO

from omnitrace_core.media.containers import adts, iso
from omnitrace_core.media.containers.sniff import ISO, MATROSKA, Kind
from omnitrace_core.media.ffmpeg.av_file import open_av


def sound_end_s(file: BinaryIO, kind: Kind, name: str) -> tuple[float, bool]:
    """When the longest sound track ends on the file's clock, and whether that is exact.

    It is exact where the headers declare the end of the sound itself; then 0 s means no sound.

    Raises: MediaCorrupt: FFmpeg cannot read the file.
    """
    if kind not in (ISO, MATROSKA):
        exact = kind.av_format == "aac"
        return (adts.length(file)[1], True) if exact else (0.0, False)
    with open_av(file, kind.av_format, name) as container:
        if kind is MATROSKA:
            return (container.duration or 0) / 1e6, False
        tracks = [
            (stream.id, ((stream.start_time or 0) + (stream.duration or 0)) * stream.time_base)
            for stream in container.streams.audio
            if stream.time_base is not None
        ]
    end_s = 0.0
    for number, track_s in tracks:
        shown_s = iso.shown(file, number)[0].end_s
        end_s = max(end_s, float(track_s) if shown_s is None else min(float(track_s), shown_s))
    return end_s, True
