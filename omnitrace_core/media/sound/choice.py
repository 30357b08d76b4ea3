"""Choose one of the sound tracks of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from omnitrace_core.media.containers.mpeg_ts import Programme, programmes
from omnitrace_core.media.progress.media_times import importing

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer


def programme_of(file: BinaryIO, container: InputContainer, *, of_video: bool) -> Programme | None:
    """Of several programmes in MPEG-TS, that of the pictures, or the first one with sound.

    None if there are no others, or the file does not tell which one that is.
    """
    at = file.tell()
    found = programmes(file)
    # FFmpeg goes on reading from here.
    file.seek(at)
    wanted = container.streams.video[:1] if of_video else container.streams.audio
    ids = {track.id for track in wanted}
    of_these = (programme for programme in found if ids.intersection(programme.tracks))
    return next(of_these, None) if len(found) > 1 else None


def choose_track(
    container: InputContainer, programme: Programme | None, number: int | None
) -> tuple[AudioStream | None, list[str]]:
    """The sound track of a number, else the default one; None without any. And notes.

    programme: only its tracks come into question, unless a number is given.
    """
    with importing():
        from av.stream import Discard, Disposition

    tracks = container.streams.audio
    for stream in container.streams:
        stream.discard = Discard.all
    notes = []
    if number is None:
        own = [k for k, track in enumerate(tracks) if not programme or track.id in programme.tracks]
        if not own:
            return None, []
        number = next((k for k in own if tracks[k].disposition & Disposition.default), own[0])
        if programme:
            notes = [f"of several programmes, the sound is that of number {programme.number}"]
    tracks[number].discard = Discard.default
    if len(tracks) > 1:
        notes = [f"sound track {number} of {len(tracks)} is used (they count from 0)", *notes]
    return tracks[number], notes
