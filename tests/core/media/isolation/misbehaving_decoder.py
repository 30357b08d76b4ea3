"""A decoder that misbehaves, for a supervisor to be told by name.

It takes its orders from the part's text or bytes, so that one child meets good and bad parts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from omnitrace_core.errors import DecoderError, MediaEmpty
from omnitrace_core.media.fetching.fetch import media_path
from omnitrace_core.media.progress import still_working
from omnitrace_core.media.rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import DecodedImage, DecodedMedia, Part

MIB = 1 << 20
_kept: list[bytearray] = []


def decode(
    part: Part, options: MediaOptions, rules: MediaRules, *, want_sound: bool
) -> DecodedMedia:
    """Do what the part's text says: an order, and what it is about."""
    told = (part.data or b"").decode() or part.text
    order, _, about = told.partition(" ")
    if order == "abort":
        print("first line\nfree(): \x1b[31minvalid pointer", file=sys.stderr, flush=True)
        os.abort()
    if order == "exit":
        os._exit(int(about))
    if order == "kill":
        os.kill(os.getpid(), getattr(signal, about))
    if order == "sleep":
        time.sleep(float(about))
    if order == "work":
        for _ in range(int(about)):
            time.sleep(0.6)
            still_working()
    if order == "grow":
        # Slowly: whoever watches on a busy machine comes late.
        while True:
            _kept.append(bytearray(os.urandom(1) * MIB))
            time.sleep(0.005)
    if order == "keep":
        _kept.append(bytearray(b"x" * (int(about) * MIB)))
    if order == "reserve":
        np.empty(int(about) * MIB, np.uint8)
    if order == "raise":
        raise KeyError(about)
    if order == "refuse":
        raise MediaEmpty(f"{about}: nothing in it")
    if order == "break":
        raise DecoderError(about)
    if order == "noise":
        for stream in (1, 2):
            os.write(stream, os.urandom(int(about)))
    if order == "once" and not Path(about).exists():
        Path(about).write_text("seen")
        os.abort()
    if order == "fetch":
        with media_path(Part("video", data=bytes(MIB)), options) as path:
            assert path.stat().st_size == MIB
            os.abort()
    if order == "offspring":
        child = subprocess.Popen(["sleep", "600"])
        if about:
            Path(about).write_text(str(child.pid))
        os.abort()
    shape = (int(about) * MIB // 3, 1, 3) if order == "large" else (1, 1, 3)
    facts = {"pid": os.getpid(), "folder": os.getcwd()}
    return DecodedImage(np.zeros(shape, np.uint8), 1, 1, str(facts.get(order, "")), (told,))
