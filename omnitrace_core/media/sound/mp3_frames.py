"""Decode MP3 files with FFmpeg's decoder, frame by frame as the walk through the file found them.

No reader stands between: readers believe headers, and stop at the end of the first of several
files that were joined.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, cast

from omnitrace_core.errors import MediaCorrupt
from omnitrace_core.media.containers import mp3
from omnitrace_core.media.ffmpeg.av_file import av_errors
from omnitrace_core.media.progress.media_times import importing
from omnitrace_core.media.sound.mixing import to_float
from omnitrace_core.media.sound.waveform import Recorder

if TYPE_CHECKING:
    from av.audio.codeccontext import AudioCodecContext


def record_pieces(file: BinaryIO, pieces: list[mp3.Piece], recorder: Recorder, name: str) -> None:
    """Give a recorder the sound of all pieces, one after the other.

    Raises:
        MediaCorrupt: frames that cannot be decoded.
    """
    with importing():
        import av

    av.logging.set_level(None)
    with av_errors(name):
        for piece in pieces:
            codec = cast("AudioCodecContext", av.CodecContext.create("mp3float", "r"))
            codec.options = {"err_detect": "explode"}
            _record(file, piece, codec, recorder, name)


def _record(
    file: BinaryIO,
    piece: mp3.Piece,
    codec: AudioCodecContext,
    recorder: Recorder,
    name: str,
) -> None:
    from av.packet import Packet

    n_skip, n_left = piece.n_before, piece.n_samples
    for data in mp3.frame_bytes(file, piece):
        for frame in codec.decode(Packet(data)):
            if frame.sample_rate != piece.rate:
                raise MediaCorrupt(f"{name}: damaged: its sample rate changes; encode it again")
            channels = to_float(frame.to_ndarray(), frame.layout.nb_channels)
            channels = channels[:, n_skip : n_skip + n_left]
            n_skip = max(n_skip - frame.samples, 0)
            n_left -= channels.shape[1]
            if channels.shape[1]:
                recorder.add(channels)
    if n_left:
        raise MediaCorrupt(
            f"{name}: damaged: {n_left:,} of {piece.n_samples:,} samples could not be decoded; "
            "copy it again from its source"
        )
