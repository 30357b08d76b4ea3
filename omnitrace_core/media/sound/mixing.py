"""Mix the channels of a sound to one, and find out whether they cancel each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.errors import MediaCorrupt
from omnitrace_core.records import Float32

# A window is at least this long.
_WINDOW_S = 1.0
# Mean square of what can be heard: 60 dB below full scale.
_AUDIBLE = 1e-6
# Channels that have nothing in common keep a share of 1/n of their energy when n of them are
# averaged; 13 dB below that they cancel each other.
_CANCELLED = 0.05


class Mixer:
    """Averages channels to one, and keeps the time in which they cancel each other."""

    def __init__(self, rate: int, name: str) -> None:
        self._rate = rate
        self._name = name
        self._window = np.zeros(2)  # energy of the channels' mean square, and of their mix
        self._n_window = 0
        self._cancelled = np.zeros(2)
        self._n_cancelled = 0

    def mix(self, channels: Float32) -> Float32:
        """The mean of channels [n_channels, n]: [n].

        Raises:
            MediaCorrupt: some samples are not finite numbers.
        """
        # Infinities of both signs average to a NaN.
        with np.errstate(invalid="ignore", over="ignore"):
            mono: Float32 = channels.mean(axis=0, dtype=np.float32)
        if not np.isfinite(mono).all():
            raise MediaCorrupt(f"{self._name}: the audio has samples that are not finite numbers")
        if len(channels) > 1:
            self._measure(channels, mono)
        return mono

    def _measure(self, channels: Float32, mono: Float32) -> None:
        energy = np.vdot(channels, channels) / len(channels)
        # Times the number of channels: those that have nothing in common keep all of it.
        self._window += (float(energy), float(np.vdot(mono, mono)) * len(channels))
        self._n_window += len(mono)
        if self._n_window >= _WINDOW_S * self._rate:
            self._close_window()

    def _close_window(self) -> None:
        whole, mixed = self._window
        if whole > _AUDIBLE * self._n_window and mixed < _CANCELLED * whole:
            self._cancelled += self._window
            self._n_cancelled += self._n_window
        self._window = np.zeros(2)
        self._n_window = 0

    def notes(self, n_samples: int) -> list[str]:
        """A note if channels cancel each other in some of the `n_samples` samples so far."""
        self._close_window()
        if not self._n_cancelled:
            return []
        lost_db = 10 * np.log10(self._cancelled[0] / max(self._cancelled[1], 1e-12))
        return [
            f"channels in opposite phase cancel each other in {self._n_cancelled / self._rate:.1f} "
            f"of {n_samples / self._rate:.1f} s: mixed to one channel, that sound is "
            f"{min(lost_db, 99):.0f} dB weaker"
        ]


def to_float(samples: NDArray[np.generic], n_channels: int) -> Float32:
    """Samples of a decoder, planar [n_channels, n] or packed [1, n * n_channels], as float32.

    Integers become numbers in [-1, 1).
    """
    if len(samples) != n_channels:
        samples = samples.reshape(-1, n_channels).T
    numbers: Float32 = samples.astype(np.float32, copy=False)
    if samples.dtype == np.uint8:
        numbers -= np.float32(128)
    if np.issubdtype(samples.dtype, np.integer):
        numbers /= np.float32(1 << 8 * samples.itemsize - 1)
    return numbers
