"""A decoder that misbehaves on request; tests pass its dotted name to `IsolatedDecoder`.

The part's text or bytes say what it does, so that one child gets good and bad parts.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from omnitrace_core.decoded_media import DecodedImage, DecodedMedia
from omnitrace_core.errors import DecoderError, MediaEmpty
from omnitrace_core.media.fetching.fetch import media_path
from omnitrace_core.media.progress.heartbeat import report_progress
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part

MIB = 1 << 20
_kept: list[bytearray] = []


def decode(
    part: Part, options: MediaOptions, rules: MediaRules, *, want_sound: bool
) -> DecodedMedia:
    """Carry out the part's text: an order and its argument."""
    text = (part.data or b"").decode() or part.text
    order, _, argument = text.partition(" ")
    if order == "abort":
        print("first line\nfree(): \x1b[31minvalid pointer", file=sys.stderr, flush=True)
        os.abort()
    if order == "exit":
        os._exit(int(argument))
    if order == "kill":
        os.kill(os.getpid(), getattr(signal, argument))
    if order == "sleep":
        time.sleep(float(argument))
    if order == "work":
        for _ in range(int(argument)):
            time.sleep(0.6)
            report_progress()
    if order == "grow":
        # Slowly: on a busy machine the parent measures late.
        while True:
            _kept.append(bytearray(os.urandom(1) * MIB))
            time.sleep(0.005)
    if order == "keep":
        _kept.append(bytearray(b"x" * (int(argument) * MIB)))
    if order == "reserve":
        np.empty(int(argument) * MIB, np.uint8)
    if order == "raise":
        raise KeyError(argument)
    if order == "refuse":
        raise MediaEmpty(f"{argument}: nothing in it")
    if order == "break":
        raise DecoderError(argument)
    if order == "noise":
        for stream in (1, 2):
            os.write(stream, os.urandom(int(argument)))
    if order == "once" and not Path(argument).exists():
        Path(argument).write_text("seen")
        os.abort()
    if order == "fetch":
        with media_path(Part("video", data=bytes(MIB)), options) as path:
            assert path.stat().st_size == MIB
            os.abort()
    if order == "offspring":
        child = subprocess.Popen(["sleep", "600"])
        if argument:
            Path(argument).write_text(str(child.pid))
        os.abort()
    shape = (int(argument) * MIB // 3, 1, 3) if order == "large" else (1, 1, 3)
    facts = {"pid": os.getpid(), "folder": os.getcwd()}
    return DecodedImage(np.zeros(shape, np.uint8), 1, 1, str(facts.get(order, "")), (text,))
