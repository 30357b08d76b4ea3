"""Frames by seeking are those that decoding in turn gives; the display matrix; decord beside it."""

from __future__ import annotations

import struct
from contextlib import nullcontext, suppress
from itertools import pairwise
from pathlib import Path
from typing import Literal

import av
import numpy as np
import pytest

from omnitrace_core.decoded_media import DecodedVideo
from omnitrace_core.errors import MediaCorrupt, MediaError
from omnitrace_core.media import decode_part
from omnitrace_core.media.containers import iso
from omnitrace_core.media.containers.sniff import ISO, MATROSKA
from omnitrace_core.media.frames.pixels import rgb_of
from omnitrace_core.media.frames.video_track import Doubt, read_video_track
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part
from tests.core.media_files import grey_index, run_ffmpeg, write_clip

OPEN = ["-c:v", "libx264", "-x264-params", "open-gop=1:keyint=10:bframes=3:scenecut=0"]
REFRESH = ["-c:v", "libx264", "-x264-params", "intra-refresh=1:keyint=10:bframes=0"]
MPEG4 = ["-c:v", "mpeg4", "-bf", "2", "-g", "10", "-q:v", "1"]


def decode(path: Path, reader: Literal["pyav", "decord"] = "pyav") -> DecodedVideo:
    options = MediaOptions(video_reader=reader, video_sound=False)
    decoded = decode_part(Part("video", uri=str(path)), options, MediaRules())
    assert isinstance(decoded, DecodedVideo)
    return decoded


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("coding", [OPEN, REFRESH, MPEG4])
def test_seeking_gives_the_frames_of_decoding_in_turn(
    tmp_path: Path, name: str, coding: list[str]
) -> None:
    path = write_clip(tmp_path / name, 40, output=coding)
    with path.open("rb") as file:
        track = read_video_track(file, MATROSKA if name == "a.mkv" else ISO, "x")
        in_turn = [rgb_of(frame) for frame in track.by_decoding().frames(track.all_pts)]
        # Some containers lose the range of grey levels, but not their order.
        assert (np.diff(np.stack(in_turn).mean(axis=(1, 2, 3))) > 3).all()
        for step in (1, 3, 7, 15):
            wanted = track.all_pts[step // 2 :: step]
            np.testing.assert_array_equal(
                [rgb_of(frame) for frame in track.in_turn().frames(wanted)],
                in_turn[step // 2 :: step],
            )
            # H.264 may need frames from before such a keyframe, and says so.
            with suppress(Doubt) if "libx264" in coding else nullcontext():
                np.testing.assert_array_equal(
                    [rgb_of(frame) for frame in track.frames(wanted)], in_turn[step // 2 :: step]
                )


def test_frames_that_are_not_as_told_are_not_given(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 20)
    with path.open("rb") as file:
        track = read_video_track(file, ISO, "x")
        track.all_pts.insert(5, track.all_pts[5] - 1)
        for told in (track, track.in_turn()):
            with pytest.raises(Doubt):
                list(told.frames(track.all_pts[8:10]))
        # The frames themselves tell it right.
        assert len(track.by_decoding().all_pts) == 20


TURNS = {
    "turned": ["-display_rotation:v:0", "90"],
    "upside-down": ["-display_rotation:v:0", "180"],
    "other-way": ["-display_rotation:v:0", "270"],
    "mirrored": ["-display_hflip:v:0"],
    "flipped": ["-display_vflip:v:0"],
    "both": ["-display_rotation:v:0", "90", "-display_hflip:v:0"],
}


@pytest.mark.parametrize("how", TURNS)
def test_pictures_are_turned_and_mirrored_as_the_file_says(tmp_path: Path, how: str) -> None:
    """As ffmpeg shows them when it encodes them again."""
    source = tmp_path / "a.mp4"
    corner = "drawbox=0:0:24:16:white:fill,drawbox=40:0:24:16:gray:fill"
    write_clip(source, 6, video_filter=corner)
    run_ffmpeg(*TURNS[how], "-i", source, "-c", "copy", tmp_path / "turned.mp4")
    run_ffmpeg("-i", tmp_path / "turned.mp4", "-qp", "1", tmp_path / "seen.mp4")
    turned, seen = decode(tmp_path / "turned.mp4"), decode(tmp_path / "seen.mp4")
    assert (turned.width, turned.height) == (seen.width, seen.height)
    difference = np.abs(turned.frames.astype(int) - seen.frames)
    assert difference.mean() < 4
    if how == "upside-down":
        other = decode(tmp_path / "turned.mp4", "decord")
        np.testing.assert_array_equal(other.frames, turned.frames)
    else:
        with pytest.raises(MediaCorrupt, match="decord shows a frame otherwise"):
            decode(tmp_path / "turned.mp4", "decord")


def test_a_picture_turned_by_another_angle_is_noted(tmp_path: Path) -> None:
    source = write_clip(tmp_path / "a.mp4", 6)
    run_ffmpeg("-display_rotation:v:0", "30", "-i", source, "-c", "copy", tmp_path / "b.mp4")
    assert decode(source).notes == ()
    [note] = decode(tmp_path / "b.mp4").notes
    assert "other than quarters; frames are as stored" in note


def test_what_edit_lists_show(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "a.mp4", 40, output=["-g", "40"])
    cut, late = tmp_path / "cut.mp4", tmp_path / "late.mp4"
    run_ffmpeg("-ss", "1.05", "-i", whole, "-t", "1.5", "-c", "copy", cut)
    run_ffmpeg("-itsoffset", "2", "-i", whole, "-c", "copy", late)
    spans = []
    for path in (whole, cut, late):
        with path.open("rb") as file:
            window, fault = iso.shown(file, 1)
        assert not fault
        assert window.begin_s is not None
        assert window.end_s is not None
        spans.append((window.begin_s, window.end_s))
    assert spans[0] == pytest.approx((0, 4), abs=0.01)
    assert spans[1][0] == 0
    assert 1.4 < spans[1][1] < 2
    assert spans[2] == pytest.approx((2, 6), abs=0.01)


@pytest.mark.parametrize("fault", ["order", "speed"])
def test_an_edit_list_that_plays_otherwise_is_refused(tmp_path: Path, fault: str) -> None:
    path = write_clip(tmp_path / "a.mp4", 40)
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4
    if fault == "speed":
        data[at + 16 : at + 20] = (2 << 16).to_bytes(4, "big")
    else:
        # Two edits in the place of the box behind the list, which is made a free one before.
        second = (1000).to_bytes(4, "big") + (0).to_bytes(4, "big") + data[at + 16 : at + 20]
        size = int.from_bytes(data[at - 8 : at - 4], "big")
        data[at - 8 : at - 4] = (size + 12).to_bytes(4, "big")
        data[at + 4 : at + 8] = (2).to_bytes(4, "big")
        data[at + 20 : at + 20] = second
        for name in (b"edts", b"trak", b"moov"):
            box = data.rindex(name, 0, at) - 4
            grown = int.from_bytes(data[box : box + 4], "big") + 12
            data[box : box + 4] = grown.to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(MediaCorrupt, match="its edit list changes the order or the speed"):
        decode(path)


@pytest.mark.parametrize("entries", [[(-1, 500), (-1, 500), (0, 3000)], [(-1, 4000)], [(-2, 4000)]])
def test_an_edit_list_that_ffmpeg_reads_otherwise_is_refused(
    tmp_path: Path, entries: list[tuple[int, int]]
) -> None:
    """It follows one empty edit at the beginning, and no other."""
    path = write_clip(tmp_path / "a.mp4", 40)
    data = path.read_bytes()
    rows = b"".join(struct.pack(">IiI", length, time, 1 << 16) for time, length in entries)
    data = replace_box(data, b"elst", bytes(4) + len(entries).to_bytes(4, "big") + rows)
    path.write_bytes(data)
    with pytest.raises(MediaCorrupt, match="its edit list shows nothing, or has several gaps"):
        decode(path)


def replace_box(data: bytes, kind: bytes, body: bytes) -> bytes:
    """A movie with another body of a box of moov/trak/edts, which stands behind its media."""
    at = data.index(kind) - 4
    old = int.from_bytes(data[at : at + 4], "big")
    new = (8 + len(body)).to_bytes(4, "big") + kind + body
    grown = bytearray(data[:at] + new + data[at + old :])
    for name in (b"edts", b"trak", b"moov"):
        box = data.rindex(name, 0, at) - 4
        size = int.from_bytes(data[box : box + 4], "big") + len(new) - old
        grown[box : box + 4] = size.to_bytes(4, "big")
    return bytes(grown)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_frames_before_the_first_keyframe_are_left_out_and_noted(tmp_path: Path, name: str) -> None:
    whole = write_clip(tmp_path / "whole.mp4", 40, output=["-g", "10", "-bf", "0"])
    _copy_without(whole, tmp_path / name, set(range(4)))
    video = decode(tmp_path / name)
    index = np.array(grey_index(video.frames))
    assert index[0] == 10
    np.testing.assert_allclose(np.diff(video.frame_times_s), np.diff(index) / 10, atol=2e-3)
    noted = " ".join(video.notes)
    assert "6 of 36 frames cannot be shown" in noted or "6 frames before the first" in noted


def test_frames_that_a_file_lacks_are_noted(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "whole.mp4", 40, output=["-g", "30", "-c:v", "mpeg4"])
    _copy_without(whole, tmp_path / "a.mp4", {20, 21})
    assert decode(whole).notes == ()
    [note] = decode(tmp_path / "a.mp4").notes
    assert "lack 2 of its frames, the first at 2.00 s" in note


def _copy_without(source: Path, target: Path, left_out: set[int]) -> None:
    """Copy the video track without some of its packets, as lossy recordings are."""
    with av.open(source) as original, av.open(target, "w") as copy:
        track = original.streams.video[0]
        stream = copy.add_stream_from_template(track)
        packets = [packet for packet in original.demux(track) if packet.dts is not None]
        for number, packet in enumerate(packets):
            if number not in left_out:
                packet.stream = stream
                copy.mux(packet)


@pytest.mark.parametrize("cut_s", [0.0, 0.5])
def test_decord_gives_the_same_frames_in_turn(tmp_path: Path, cut_s: float) -> None:
    whole, cut = write_clip(tmp_path / "a.mp4", 40, output=["-g", "12"]), tmp_path / "b.mp4"
    run_ffmpeg("-ss", str(cut_s), "-i", whole, "-c", "copy", cut)
    found, other = decode(cut), decode(cut, "decord")
    np.testing.assert_array_equal(found.frames, other.frames)
    np.testing.assert_array_equal(found.frame_times_s, other.frame_times_s)
    assert all(early < late for early, late in pairwise(found.frame_times_s))


def test_decord_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    run_ffmpeg("-i", write_clip(tmp_path / "a.mp4", 12), "-c", "copy", path)
    assert len(decode(path).frames)
    with pytest.raises(MediaCorrupt, match=r"decord .*; use media.video_reader=pyav"):
        decode(path, "decord")


def test_edits_of_a_track_without_a_time_scale_are_refused(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", 40)
    rows = b"".join(struct.pack(">IiI", 2_000, time, 1 << 16) for time in (0, 20_480))
    data = replace_box(path.read_bytes(), b"elst", bytes(4) + (2).to_bytes(4, "big") + rows)
    path.write_bytes(data.replace(b"mdhd", b"free"))
    with path.open("rb") as file:
        assert "its edit list changes the order or the speed" in iso.shown(file, 1)[1]
    with pytest.raises(MediaError):
        decode(path)


def test_frames_that_an_avi_repeats_are_not_missing(tmp_path: Path) -> None:
    """It stores nothing where the frame before is to stay."""
    whole = write_clip(tmp_path / "whole.mp4", 40)
    chosen = "select='not(between(n,20,22))'"
    run_ffmpeg("-i", whole, "-vf", chosen, "-fps_mode", "vfr", "-c:v", "mjpeg", tmp_path / "a.avi")
    assert decode(tmp_path / "a.avi").notes == ()
    run_ffmpeg("-i", whole, "-vf", chosen, "-fps_mode", "vfr", tmp_path / "a.mkv")
    assert "lack 3 of its frames" in decode(tmp_path / "a.mkv").notes[0]


def test_hidden_frames_that_cannot_be_decoded_are_not_called_lost(tmp_path: Path) -> None:
    """A clip cut from HEVC with open groups begins with frames that need earlier ones."""
    whole, cut = tmp_path / "a.mp4", tmp_path / "cut.mp4"
    x265 = "log-level=error:keyint=10:min-keyint=10:bframes=3:scenecut=0"
    write_clip(whole, 40, output=["-c:v", "libx265", "-x265-params", x265])
    run_ffmpeg("-ss", "1.5", "-i", whole, "-c", "copy", cut)
    assert not any("cannot be shown" in note for note in decode(cut).notes)
