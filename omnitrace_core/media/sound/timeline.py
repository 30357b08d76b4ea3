"""Put a track's samples where their times say: a gap is silence, and what overlaps is cut."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from omnitrace_core.errors import MediaCorrupt
from omnitrace_core.media.containers.declared import Window
from omnitrace_core.media.sound.waveform import Recorder
from omnitrace_core.records import Float32

# Times are rounded, and those of recordings jitter: a sound goes on unless it is off by more than
# this, which is less than a lost packet. Up to the second number it may still be jitter, unless so
# many blocks in turn are off to the same side.
_JITTER_S = 0.015
_MOST_JITTER_S = 0.1
_N_BLOCKS = 6
# Coarse time bases have ticks of a millisecond or a block of samples.
_FINE_TICK_S = 0.0005
# Less silence, and less overlap, is not noted.
_SHORT_S = 0.1
# Times that go back by more are those of another recording: two files joined.
_MOST_OVERLAP_S = 1.0
# Encoders fill the last frame with silence: up to 2,048 samples (HE-AAC).
PADDING = 2048


@dataclass(slots=True)
class _Block:
    """Samples [n_channels, n]; their time, None if unknown; when their packet ends."""

    channels: Float32
    start_s: float | None
    end_s: float | None


class Timeline:
    """Takes blocks of a track in turn, and gives them to a recorder, from time 0 on.

    rate: samples per second. tick_s: of the track's clock. window: what is shown of the track.
    limit_s: what comes later is of no use, because the track is too long.
    silent_s: how late the track begins. is_too_long: it ends after `limit_s`. is_end_told: the file
    says that the sound ends within a block.
    """

    def __init__(
        self,
        rate: int,
        tick_s: float,
        window: Window,
        limit_s: float,
        recorder: Recorder,
        name: str,
    ) -> None:
        self.rate = rate
        self.recorder = recorder
        self.silent_s = 0.0
        self.is_too_long = False
        self.is_end_told = False
        self._tick_s = tick_s
        self._shown_begin = round((window.begin_s or 0) * rate)
        self._shown_end = math.inf if window.end_s is None else round(window.end_s * rate)
        # Encoders fill the last frame with silence, which is not too long.
        self._limit = round(limit_s * rate) + PADDING
        self._name = name
        self._held: _Block | None = None
        self._waiting: deque[_Block] = deque()
        self._durations_fit = False
        self._has_begun = False
        # The jitter that there was so far.
        self._most_off_s = _JITTER_S
        self._n_gap, self._first_gap_s, self._n_overlap = 0, 0.0, 0

    @property
    def end_s(self) -> float:
        """When the sound ends so far."""
        return self.recorder.n_samples / self.rate

    def add(self, channels: Float32, start_s: float | None, end_s: float | None) -> None:
        """Add samples [n_channels, n] that begin at `start_s`; their packet ends at `end_s`.

        Raises:
            MediaCorrupt: the times go back, as in two files that were joined.
        """
        if self._held is not None:
            self._durations_fit = abs(self._excess_s(self._held)) <= 2 * self._tick_s
            self._waiting.append(self._held)
            self._settle()
        self._held = _Block(channels, start_s, end_s)

    def close(self) -> None:
        """Write the last block: its packet may end before it, where the encoder added silence."""
        block, self._held = self._held, None
        if block is None:
            return
        if self._durations_fit and 2 * self._tick_s < self._excess_s(block) < math.inf:
            self._shown_end = min(self._shown_end, round((block.end_s or 0) * self.rate))
        self._waiting.append(block)
        self._settle(is_end=True)

    def _excess_s(self, block: _Block) -> float:
        """By how much a block is longer than its packet lasts; inf if the times are unknown."""
        if block.start_s is None or block.end_s is None:
            return math.inf
        excess_s: float = block.start_s + block.channels.shape[1] / self.rate - block.end_s
        return excess_s

    def _settle(self, *, is_end: bool = False) -> None:
        """Write the waiting blocks, up to one whose time may be jitter: later blocks will tell."""
        while self._waiting:
            block, at = self._waiting[0], self.recorder.n_samples
            first = at if block.start_s is None else round(block.start_s * self.rate)
            off_s = (first - at) / self.rate
            if abs(off_s) <= self._slack_s():
                first = at
            elif self._has_begun and abs(off_s) <= _MOST_JITTER_S:
                side = math.copysign(1, off_s)
                least_s = min(side * off_s for off_s in self._offsets_s())
                if least_s <= (self._most_off_s if is_end else self._slack_s()):
                    first = at
                elif len(self._waiting) < _N_BLOCKS and not is_end:
                    return
                elif side * off_s - least_s > self._slack_s():
                    first = at + round(side * least_s * self.rate)
            if first == at:
                self._most_off_s = max(self._most_off_s, abs(off_s))
            self._waiting.popleft()
            self._write(block.channels, first)

    def _offsets_s(self) -> Iterator[float]:
        """How late each waiting block is, if all follow what was written without gaps."""
        at = self.recorder.n_samples
        for block in self._waiting:
            if block.start_s is not None:
                yield block.start_s - at / self.rate
            at += block.channels.shape[1]

    def _write(self, channels: Float32, first: int) -> None:
        """Write samples at a place; silence before them, and nothing twice."""
        if first < self._shown_begin:
            # What the encoder put before the sound, or an edit list leaves out.
            channels, first = channels[:, self._shown_begin - first :], self._shown_begin
            if not channels.shape[1]:
                return
        if first > self._shown_end or self.is_too_long:
            return
        if first > self._limit:
            self.is_too_long = True
            return
        self._go_to(first)
        channels = channels[:, max(self.recorder.n_samples - first, 0) :]
        room = self._shown_end - self.recorder.n_samples
        if room < channels.shape[1]:
            self.is_end_told = True
            channels = channels[:, : max(int(room), 0)]
        self._has_begun = True
        if channels.shape[1]:
            self.recorder.add(channels)
        self.is_too_long = self.recorder.n_samples > self._limit

    def _slack_s(self) -> float:
        if self._has_begun:
            return max(_JITTER_S, 1.5 * self._tick_s)
        return 2 * self._tick_s if self._tick_s >= _FINE_TICK_S else 0.0

    def _go_to(self, first: int) -> None:
        """Fill the time up to sample `first`, or count what overlaps."""
        gap = first - self.recorder.n_samples
        if not self._has_begun:
            self.silent_s = first / self.rate
        elif gap > 0:
            self._first_gap_s = self._first_gap_s if self._n_gap else self.end_s
            self._n_gap += gap
        elif -gap > _MOST_OVERLAP_S * self.rate:
            raise MediaCorrupt(
                f"{self._name}: the times of its sound go back by {-gap / self.rate:.3f} s after "
                f"{self.end_s:.3f} s, as in files that were joined; encode it again as one"
            )
        else:
            self._n_overlap -= gap
        self.recorder.add_silence(gap)

    def notes(self) -> list[str]:
        """Notes on silence and overlaps that are not short."""
        notes = []
        if self.silent_s * self.rate - self.recorder.first > PADDING:
            notes.append(f"the sound track begins at {self.silent_s:.2f} s, with silence before")
        if self._n_gap > _SHORT_S * self.rate:
            notes.append(
                f"the sound track has gaps of {self._n_gap / self.rate:.2f} s in all, the first "
                f"at {self._first_gap_s:.2f} s; they are silence"
            )
        if self._n_overlap > _SHORT_S * self.rate:
            notes.append(
                f"{self._n_overlap / self.rate:.2f} s of the sound track overlap with what comes "
                "before, and are left out"
            )
        return notes
