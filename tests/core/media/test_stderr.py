"""Libraries write nothing of bad files to stderr: our errors say what is wrong with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.media.bad_media import bad_media
from tests.core.media.false_headers import converted, noise, put
from tests.core.media_files import audio_bytes

DECODE = """
import contextlib
import sys
from omnitrace_core.errors import MediaError
from omnitrace_core.media import decode_part
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part

for path in sys.argv[1:]:
    for kind in ("audio", "video"):
        with contextlib.suppress(MediaError):
            decode_part(Part(kind, uri=path), MediaOptions(), MediaRules())
print("done")
"""


@pytest.mark.slow
def test_nothing_is_written_to_stderr(tmp_path: Path) -> None:
    """In a process of its own, because libraries write past Python."""
    for folder in ("inside", "outside", "damaged"):
        (tmp_path / folder).mkdir()
    cases = bad_media(tmp_path / "inside", tmp_path / "outside")
    paths = [case.uri for case in cases if case.kind in ("audio", "video")]
    wav = audio_bytes(noise(2.0), 44_100)
    for name in ("a.mp3", "a.m4a", "a.mkv", "a.flac", "a.ogg", "a.opus", "a.aac", "a.ts", "a.flv"):
        data = converted(wav, "a.wav", name)
        for share in (0.3, 0.6):
            at = int(len(data) * share)
            for how, content in (("bent", put(data, at, b"\x5a" * 300)), ("cut", data[:at])):
                paths.append(str(tmp_path / "damaged" / f"{how}-{share}-{name}"))
                Path(paths[-1]).write_bytes(content)
    command = [sys.executable, "-c", DECODE, *paths]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")
