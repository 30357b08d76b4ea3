"""Encodes whose frames do not follow each other evenly, as screen recorders and browsers write.

One video in several containers: each must give the same samples and the same steps.
"""

from __future__ import annotations

from dataclasses import replace

from tests.core.media.barcodes.encode import Encode

# Of 240 frames at 30 per second: all at first and then every seventh; a pause; now and then one.
PATTERNS = {
    "slows-down": tuple(k for k in range(240) if k < 60 or k % 7 == 0),
    "pauses": tuple(k for k in range(240) if k < 60 or k >= 210),
    "uneven": tuple(sorted({k * k // 60 for k in range(120)})),
}
_BASE = Encode("h264", "mp4", n_frames=240, group=30)
_FORMS = {
    "mp4": _BASE,
    "mp4-b": replace(_BASE, n_b=2, is_open=True),
    "mov": replace(_BASE, container="mov"),
    "mkv": replace(_BASE, container="mkv"),
    "flv": replace(_BASE, container="flv"),
    "ts": replace(_BASE, container="ts"),
    "fmp4": replace(_BASE, container="fmp4"),
    "webm": replace(_BASE, codec="vp8", container="webm"),
    "av1": replace(_BASE, codec="svtav1", container="mkv"),
}
IRREGULAR = {
    f"{pattern}-{form}": replace(e, keep=keep)
    for pattern, keep in PATTERNS.items()
    for form, e in _FORMS.items()
    # The others are plain codecs again; one pattern with them is enough.
    if pattern == "slows-down" or form in ("mp4", "mp4-b", "mkv", "flv")
}
