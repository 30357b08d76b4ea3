"""Files of every listed kind that name another file or a host."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from tests.core.media.barcodes.boxes import content_of, with_content
from tests.core.media.false_headers import converted
from tests.core.media_files import run_ffmpeg

_DREF = b"moov/trak/mdia/minf/dinf/dref"


def texts(plant: Path, port: int) -> dict[str, bytes]:
    """Texts that FFmpeg follows where it takes them for a format, by the format's name."""
    url = f"http://127.0.0.1:{port}/a.ts"
    lists = {
        "m3u8": f"#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{plant}\n"
        f"#EXTINF:9,\n{url}\n#EXT-X-ENDLIST\n",
        "m3u8-key": f'#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n'
        f'#EXT-X-MAP:URI="{plant}"\n#EXTINF:9,\n{plant.name}\n#EXT-X-ENDLIST\n',
        "ffconcat": f"ffconcat version 1.0\nfile '{plant}'\nfile '{url}'\n",
        "sdp": f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        f"m=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT9S"><Period><AdaptationSet mimeType="video/mp4">'
        f'<Representation id="1" bandwidth="9"><BaseURL>{url}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>",
        "rtsp": f"RTSPtext\nrtsp://127.0.0.1:{port}/a\n",
        "asx": f'<ASX version="3.0"><Entry><Ref href="{url}"/></Entry></ASX>',
        "vobsub": "# VobSub index file, v7 (do not modify this line!)\nid: en, index: 0\n"
        f"{plant}\n",
    }
    return {name: text.encode() for name, text in lists.items()}


def disguised(text: bytes, whole: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """A text within the beginning of each kind of file. whole: real files, by their extension."""
    n = len(text)
    yield "ftyp", b"\0\0\0\x18ftypisom\0\0\0\0isomavc1" + text
    yield "free", struct.pack(">I", n + 8) + b"free" + text
    yield "mdat", struct.pack(">I", n + 8) + b"mdat" + text
    yield "text first", text[:4].ljust(4) + b"ftyp" + text
    mkv = whole["mkv"]
    at = mkv.index(b"\x18\x53\x80\x67")
    yield "Matroska", mkv[:at] + text
    # An element of no meaning that is 2 bytes of size long, in front of all others.
    void = b"\xec" + struct.pack(">H", 0x4000 | n) + text
    yield "Matroska void", mkv[:at] + void + mkv[at:]
    yield "FLV", b"FLV\x01\x05\0\0\0\x09\0\0\0\0" + text
    script = b"\x12" + n.to_bytes(3, "big") + bytes(7) + text + struct.pack(">I", n + 11)
    yield "FLV script", whole["flv"][:13] + script + whole["flv"][13:]
    avi = b"AVI LIST" + struct.pack("<I", n + 4) + b"hdrl" + text
    yield "AVI", b"RIFF" + struct.pack("<I", len(avi)) + avi
    packets = b"".join(
        b"\x47\x40\x00\x10" + text[k : k + 184].ljust(184, b"\n") for k in range(0, n, 184)
    )
    yield "MPEG-TS", packets + packets
    yield "MPEG-TS first", packets + whole["ts"]
    wav = b"WAVEfmt " + struct.pack("<I", n) + text
    yield "WAV", b"RIFF" + struct.pack("<I", len(wav)) + wav
    size = bytes(n >> shift & 0x7F for shift in (21, 14, 7, 0))
    yield "ID3", b"ID3\x03\0\0" + size + text
    yield "ID3 before sound", b"ID3\x03\0\0" + size + text + whole["mp3"]
    yield "MPEG audio", b"\xff\xfb\x90\x64" + text
    n_adts = 7 + n
    adts = bytes((0xFF, 0xF1, 0x50, 0x40 | n_adts >> 11, n_adts >> 3 & 0xFF, n_adts << 5 & 0xE0))
    yield "AAC", adts + b"\xfc" + text
    lacing = bytes([255] * (n // 255) + [n % 255])
    page = b"OggS\0\x06" + bytes(20) + bytes([len(lacing)]) + lacing
    yield "OGG", page + text
    yield "FLAC", b"fLaC\x84" + n.to_bytes(3, "big") + text
    yield "AIFF", b"FORM" + struct.pack(">I", n + 4) + b"AIFF" + text
    yield "CAF", b"caff\0\x01\0\0desc" + struct.pack(">Q", n) + text
    yield "GIF", b"GIF89a\x10\0\x10\0\0\0\0!\xfe" + text


def movies(mp4: bytes, plant: Path, port: int) -> Iterator[tuple[str, bytes]]:
    """Movies whose data references or reference boxes name a file or an address."""
    url = f"http://127.0.0.1:{port}/a.mp4".encode()
    places = {
        "url": url,
        "file-url": f"file://{plant}".encode(),
        "path": str(plant).encode(),
    }
    for flags in (0, 1):
        for name, place in places.items():
            for kind in (b"url ", b"urn ", b"alis", b"rsrc", b"cios"):
                entry = _box(kind, struct.pack(">I", flags) + place + b"\0")
                yield f"{kind.decode()} {name} {flags}", _referring(mp4, entry)
        for levels in ((0, 0), (1, 1)):
            alias = _box(b"alis", struct.pack(">I", flags) + _alias(plant, levels))
            yield f"alias {levels} {flags}", _referring(mp4, alias)
            yield (
                f"alias in the second entry {levels} {flags}",
                _referring(mp4, _box(b"url ", struct.pack(">I", 1)), alias),
            )
    movie = content_of(mp4, b"moov")
    for name, place in places.items():
        reference = _box(b"rdrf", bytes(4) + b"url " + struct.pack(">I", len(place) + 1) + place)
        references = _box(b"rmra", _box(b"rmda", reference))
        yield f"reference movie {name}", with_content(mp4, b"moov", movie + references)
        yield f"only a reference movie {name}", with_content(mp4, b"moov", references)


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + kind + content


def _referring(mp4: bytes, *entries: bytes) -> bytes:
    content = struct.pack(">II", 0, len(entries)) + b"".join(entries)
    return with_content(mp4, _DREF, content)


def _alias(plant: Path, levels: tuple[int, int]) -> bytes:
    """A Macintosh alias record: volume, file name, levels up and down, folder and path."""
    path, folder = str(plant).encode(), plant.parent.name.encode()
    fixed = bytes(10) + bytes([5]) + b"plant".ljust(27, b"\0") + bytes(12)
    name = plant.name.encode()
    fixed += bytes([len(name)]) + name.ljust(63, b"\0") + bytes(16)
    fixed += struct.pack(">HH", *levels) + bytes(16)
    fields = ((2, path), (0, folder))
    texts_ = b"".join(
        struct.pack(">HH", kind, len(text)) + text + b"\0" * (len(text) % 2)
        for kind, text in fields
    )
    return fixed + texts_ + struct.pack(">HH", 0xFFFF, 0)


def linked_matroska(
    clip: Path, folder: Path, target: str, attachment: Path
) -> Iterator[tuple[str, bytes]]:
    """Matroska files that name the files before and after them, and that carry attachments."""
    path = folder / "linked.mkv"
    for name, element in (("previous", b"\x3c\x83\xab"), ("next", b"\x3e\x83\xbb")):
        # The title, whose number is a byte shorter, makes room.
        title = "T" * (len(target) + 1)
        run_ffmpeg("-i", clip, "-c", "copy", "-metadata", f"title={title}", path)
        data = path.read_bytes()
        at = data.index(b"\x7b\xa9")
        size_at = at + 2
        wide = 8 if data[size_at] == 1 else 1
        size = (
            b"\x01" + len(target).to_bytes(7, "big") if wide == 8 else bytes([0x80 | len(target)])
        )
        linked = element + size + target.encode()
        yield name, data[:at] + linked + data[at + len(linked) :]
    font = ["-metadata:s:t", "mimetype=application/x-truetype-font"]
    run_ffmpeg("-i", clip, "-attach", attachment, *font, "-c", "copy", path)
    yield "attached", path.read_bytes()


def tagged(clip: Path, folder: Path, plant: Path, port: int) -> Iterator[tuple[str, bytes]]:
    """Real files whose tags, in each container's own form, name files and addresses."""
    url = f"http://127.0.0.1:{port}/a.jpg"
    for suffix in ("mp4", "mov", "mkv", "flv", "avi", "ts"):
        path = folder / f"tagged.{suffix}"
        names = ("title", "comment", "url", "WXXX", "purl", "location", "service_name")
        tags = [part for name in names for part in ("-metadata", f"{name}={url} {plant}")]
        codec = ["-c:v", "mjpeg", "-an"] if suffix == "avi" else ["-c", "copy"]
        run_ffmpeg("-i", clip, *codec, *tags, path)
        yield suffix, path.read_bytes()


def whole_files(clip: bytes) -> dict[str, bytes]:
    """A real file of each extension that `disguised` starts from."""
    copied = {
        suffix: converted(clip, "a.mp4", f"a.{suffix}", "-c", "copy")
        for suffix in ("mkv", "flv", "ts")
    }
    return copied | {"mp3": converted(clip, "a.mp4", "a.mp3", "-vn")}
