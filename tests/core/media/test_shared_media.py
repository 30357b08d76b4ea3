"""Media that several samples share are fetched and decoded once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
from PIL import Image

from omnitrace_core.decoded_media import DecodedImage, DecodedMedia
from omnitrace_core.errors import (
    InternalError,
    MediaCorrupt,
    MediaError,
    MediaMissing,
    MediaTooLarge,
    NodeFault,
)
from omnitrace_core.media import SampleDecoder, SharedMedia
from omnitrace_core.media.fetching import fetch
from omnitrace_core.media.fetching.local import open_local
from omnitrace_core.media.progress.media_times import collecting_times
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Frame, Part, PartOptions, SpeechSegment
from tests.core.media.web_server import URL, Web, response
from tests.core.media_files import audio_bytes, beep, image_bytes, write_clip

RULES = MediaRules()
Decoded = dict[int, DecodedMedia]


def photo(seed: int = 0, size: tuple[int, int] = (80, 60)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    return image_bytes(Image.fromarray(pixels))


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses of local files, each time that one is opened."""
    names: list[str] = []

    @contextmanager
    def recorded(uri: str, options: MediaOptions, name: str) -> Iterator[BinaryIO]:
        names.append(uri)
        with open_local(uri, options, name) as file:
            yield file

    monkeypatch.setattr(fetch, "open_local", recorded)
    return names


def decode(*samples: list[Part], options: MediaOptions | None = None) -> list[Decoded | MediaError]:
    """The media of each sample, or its error, as for the samples of one chunk."""
    decoder, shared = SampleDecoder(options or MediaOptions(), RULES), SharedMedia(samples)
    results: list[Decoded | MediaError] = []
    for parts in samples:
        try:
            results.append(decoder.decode_parts(parts, shared))
        except MediaError as error:
            results.append(error)
    return results


def media_of(result: Decoded | MediaError) -> Decoded:
    assert isinstance(result, dict), result
    return result


@pytest.mark.parametrize("kind", ["image", "audio", "video"])
def test_a_file_of_several_samples_is_opened_once(
    kind: str, tmp_path: Path, opened: list[str]
) -> None:
    path = tmp_path / "media"
    if kind == "video":
        write_clip(tmp_path / "a.mp4", 5, sound=beep(0.5, [0])).rename(path)
    else:
        path.write_bytes(photo() if kind == "image" else audio_bytes(beep(1, [0]), 16_000))
    part = Part(kind, uri=str(path))  # type: ignore[arg-type]
    one, two, three = map(media_of, decode([part], [Part("text", "Well?"), part], [part, part]))
    assert opened == [str(path)]
    assert one[0] is two[1] is three[0] is three[1]
    # Each sample by itself gives the same.
    (alone,) = map(media_of, decode([part]))
    assert alone[0].sha256 == one[0].sha256
    assert type(alone[0]) is type(one[0])
    assert alone[0] is not one[0]


def test_a_web_file_is_fetched_once_for_each_address(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "WebReader", web.reader)
    web.responses["/a.png"] = response(200, photo(1))
    web.responses["/a.png?size=2"] = response(200, photo(2))
    options = MediaOptions(web_hosts=("media.example.com",))
    samples = [[Part("image", uri=URL)], [Part("image", uri=f"{URL}?size=2")]] * 3
    results = list(map(media_of, decode(*samples, options=options)))
    assert [head.split()[1] for head in web.server.requests] == ["/a.png", "/a.png?size=2"]
    assert results[0][0].sha256 != results[1][0].sha256
    assert all(results[i][0] is results[i % 2][0] for i in range(6))


def test_inline_media_are_compared_by_their_bytes() -> None:
    first, other = photo(1), bytearray(photo(1))
    other[-20] ^= 1  # as long, and different
    parts = [Part("image", data=data) for data in (first, photo(1), photo(2))]
    one, two, three = map(media_of, decode(*([part] for part in parts)))
    assert one[0] is two[0]
    assert three[0].sha256 != one[0].sha256
    flat = [audio_bytes(np.full(1600, level, np.float32), 16_000) for level in (0.1, 0.2)]
    assert len(flat[0]) == len(flat[1])
    sounds = [Part("audio", data=flat[number]) for number in (0, 1, 0, 1)]
    results = [media_of(result)[0] for result in decode(*([part] for part in sounds))]
    assert results[0] is results[2]
    assert results[1] is results[3]
    assert results[0].sha256 != results[1].sha256


def test_what_is_no_matter_of_decoding_is_shared(tmp_path: Path, opened: list[str]) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(audio_bytes(beep(2, [0]), 16_000))
    part = Part("audio", uri=str(path))
    said = replace(part, segments=(SpeechSegment(0.0, 1.0, "hello"),))
    decode([part], [replace(part, evidence=False)], [said])
    assert opened == [str(path)]


@pytest.mark.parametrize(
    "options",
    [PartOptions(audio_start=0.5), PartOptions(audio_end=0.5), PartOptions(max_pixels=56 * 56)],
    ids=str,
)
def test_other_options_are_another_medium(
    options: PartOptions, tmp_path: Path, opened: list[str]
) -> None:
    path = tmp_path / "media"
    kind = "image" if options.max_pixels else "audio"
    path.write_bytes(
        photo(0, (200, 200)) if options.max_pixels else audio_bytes(beep(2, [0]), 16_000)
    )
    part = Part(kind, uri=str(path))  # type: ignore[arg-type]
    one, two, _ = map(media_of, decode([part], [replace(part, options=options)], [part]))
    assert opened == [str(path)] * 2
    assert one[0] is not two[0]


def test_a_clip_as_sound_and_as_video_is_two_media(tmp_path: Path, opened: list[str]) -> None:
    path = str(write_clip(tmp_path / "a.mp4", 5, sound=beep(0.5, [0])))
    decode([Part("video", uri=path)], [Part("audio", uri=path)], [Part("video", uri=path)])
    assert opened == [path] * 2


def test_an_error_is_the_same_for_each_sample(tmp_path: Path, opened: list[str]) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    text = Part("text", "Well?")
    for path, kind in ((bad, MediaCorrupt), (tmp_path / "none.png", MediaMissing)):
        opened.clear()
        part = Part("image", uri=str(path))
        first, second, third = decode([part], [text, part], [part])
        assert opened == [str(path)]
        assert type(first) is type(second) is type(third) is kind
        assert first.message.startswith(f"part 0: {path}: ")
        assert second.message == first.message.replace("part 0", "part 1", 1)
        assert third.message == first.message
        assert third is not first


def test_a_sample_that_fails_leaves_its_media_to_the_others(
    tmp_path: Path, opened: list[str]
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(photo())
    part, missing = Part("image", uri=str(path)), Part("image", uri=str(tmp_path / "none.png"))
    first, second = decode([part, missing], [part])
    assert isinstance(first, MediaMissing)
    assert media_of(second)[0].sha256
    assert opened.count(str(path)) == 1


def test_the_limit_of_a_sample_counts_each_of_its_parts(tmp_path: Path, opened: list[str]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(photo(0, (500, 500)))
    part, options = Part("image", uri=str(path)), MediaOptions(max_decoded_mib=1)
    first, second, third = decode([part], [part, part], [part], options=options)
    assert isinstance(second, MediaTooLarge)
    assert second.message.startswith("part 1: ")
    assert media_of(first)[0] is media_of(third)[0]
    assert opened == [str(path)]


def test_a_file_that_changes_is_the_same_for_all_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(photo(1))
    part = Part("image", uri=str(path))
    decoder, shared = SampleDecoder(MediaOptions(), RULES), SharedMedia([[part], [part]])
    before = decoder.decode_parts([part], shared)
    path.write_bytes(photo(2))
    assert decoder.decode_parts([part], shared)[0] is before[0]
    # Whoever comes after the last part that shares it, reads the file as it is now.
    assert decoder.decode_parts([part], shared)[0].sha256 != before[0].sha256


def test_a_fault_of_the_machine_is_no_samples_error(tmp_path: Path) -> None:
    part, shared = Part("image", uri="a.png"), SharedMedia([[Part("image", uri="a.png")]] * 3)
    calls = 0

    def on_full_disk(part: Part) -> DecodedMedia:
        nonlocal calls
        calls += 1
        try:
            raise OSError(28, "No space left on device")
        except OSError as error:
            raise MediaError("a.png: it cannot be copied") from error

    for number in (1, 2):
        with pytest.raises(NodeFault):
            shared.take(part, on_full_disk)
        assert calls == number


def test_an_unexpected_error_of_the_child_is_kept() -> None:
    part, shared = Part("image", uri="a.png"), SharedMedia([[Part("image", uri="a.png")]] * 2)
    calls = 0

    def failing(part: Part) -> DecodedMedia:
        nonlocal calls
        calls += 1
        raise InternalError("KeyError: 'size'")

    for _ in range(2):
        with pytest.raises(InternalError, match="KeyError: 'size'"):
            shared.take(part, failing)
    assert calls == 1


def test_nothing_is_kept_after_the_last_part() -> None:
    """Else a chunk of samples that fail would fill the memory with what nobody needs."""
    import gc
    import weakref

    data = photo()
    parts = [Part("image", data=data)] * 3
    decoder, shared = SampleDecoder(MediaOptions(), RULES), SharedMedia([parts[:2], parts[2:]])
    media = decoder.decode_parts(parts[:2], shared)
    alive = weakref.ref(media[0])
    del media
    gc.collect()
    assert isinstance(alive(), DecodedImage)
    decoder.decode_parts(parts[2:], shared)
    gc.collect()
    assert alive() is None


def test_nothing_is_kept_for_samples_that_failed() -> None:
    import gc
    import weakref

    good, bad = Part("image", data=photo()), Part("image", data=b"no picture")
    samples = [[bad, Part("text", "Well?"), good, good], [good]]
    decoder, shared = SampleDecoder(MediaOptions(), RULES), SharedMedia(samples)
    with pytest.raises(MediaCorrupt, match="part 0"):
        decoder.decode_parts(samples[0], shared)
    media = decoder.decode_parts(samples[1], shared)
    alive = weakref.ref(media[0])
    del media
    gc.collect()
    assert alive() is None


def test_the_sample_that_caused_the_work_has_its_time(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(photo(0, (400, 400)))
    part = Part("image", uri=str(path))
    decoder, shared = SampleDecoder(MediaOptions(), RULES), SharedMedia([[part], [part]])
    with collecting_times() as first:
        decoder.decode_parts([part], shared)
    with collecting_times() as second:
        decoder.decode_parts([part], shared)
    assert first.decode_s > 0
    assert (second.decode_s, second.fetch_s) == (0.0, 0.0)


def test_lists_of_frames_are_compared_frame_by_frame() -> None:
    first, other = photo(1), bytearray(photo(1))
    other[-20] ^= 1
    frames = [Frame(data=data) for data in (first, first, bytes(other))]
    one, same, reversed_, damaged = (
        Part("video", frames=(frames[i], frames[j]), options=PartOptions(fps=1.0))
        for i, j in ((0, 2), (1, 2), (2, 0), (0, 1))
    )
    taken: list[Part] = []

    def decode(part: Part) -> DecodedMedia:
        taken.append(part)
        return DecodedImage(np.zeros((1, 1, 3), np.uint8), 1, 1, "")

    shared = SharedMedia([[one], [same], [reversed_], [damaged]])
    results = [shared.take(part, decode) for part in (one, same, reversed_, damaged)]
    assert results[0] is results[1]
    assert len(set(map(id, results))) == len(taken) == 3
