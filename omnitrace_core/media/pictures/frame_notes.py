"""Collect what is noted of a video's frames, so that a note of many frames is one note."""

from __future__ import annotations

from collections.abc import Iterable

from omnitrace_core.options import MediaOptions


class FrameNotes:
    """Notes on a video whose frames are pictures of their own."""

    def __init__(self, options: MediaOptions) -> None:
        self._video: list[str] = []
        if options.video_reader != "pyav":
            self.add(f"read with Pillow, not with media.video_reader={options.video_reader}")
        self._frames: dict[str, list[int]] = {}

    def add(self, note: str) -> None:
        """A note on the whole video."""
        self._video.append(note)

    def add_of_frame(self, index: int, notes: Iterable[str]) -> None:
        """Notes on one frame."""
        for note in notes:
            self._frames.setdefault(note, []).append(index)

    def texts(self) -> tuple[str, ...]:
        """All notes: those on the video, then one for each that some frames have."""
        of_frames = (
            f"frame {indices[0]}: {note}"
            if len(indices) == 1
            else f"{len(indices)} frames (first {indices[0]}): {note}"
            for note, indices in self._frames.items()
        )
        return (*self._video, *of_frames)
