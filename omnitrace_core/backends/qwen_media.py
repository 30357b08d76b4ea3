"""Prepare the media of one sample for Qwen2.5-Omni: tensors, and tokens with their places.

The official processors compute patches and mel frames. This module computes the place of each
resulting token: its pixels or its seconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.backends.prompt import PlacedTokens
from omnitrace_core.decoded_media import DecodedAudio, DecodedImage, DecodedVideo
from omnitrace_core.errors import MediaEmpty
from omnitrace_core.positions import PositionKind
from omnitrace_core.records import Part, ReadySample
from omnitrace_core.units.extents import frame_bins, sound_end_s

if TYPE_CHECKING:
    from torch import Tensor

# Seconds of sound in one audio token: mel frames of 10 ms, whose number the encoder halves twice,
# by its convolution and by its pooling.
TOKEN_S = 0.04
_NO_BOX = (0.0, 0.0, 0.0, 0.0)


class QwenMedia:
    """Places a sample's media in its prompt and collects their tensors, in prompt order.

    processor: the official Qwen2_5OmniProcessor. sound_inside: whether the sound of videos is
    interleaved with their frames; otherwise it follows the video as audio with the same times.
    """

    def __init__(self, processor: Any, ready: ReadySample, sound_inside: bool) -> None:
        self._processor = processor
        self._ready = ready
        self._sound_inside = sound_inside
        self._tensors: dict[str, list[Tensor]] = {}
        self._audio: list[Tensor] = []

    def place(self, index: int, part: Part) -> PlacedTokens:
        """Tokens that replace the placeholder of the media part at `index`.

        Raises:
            MediaEmpty: a sound is shorter than one audio token.
        """
        media = self._ready.media[index]
        if isinstance(media, DecodedImage):
            return self._place_image(media)
        if isinstance(media, DecodedAudio):
            return self._place_sound(media, PositionKind.AUDIO)
        return self._place_video(media)

    def features(self) -> dict[str, Tensor]:
        """Media tensors by the model's names, except sounds; concatenated in prompt order."""
        import torch

        return {key: torch.cat(parts) for key, parts in self._tensors.items()}

    @property
    def sounds(self) -> tuple[Tensor, ...]:
        """Log-mel frames [n_mels, n_frames] of each sound, in prompt order."""
        return tuple(self._audio)

    def _keep(self, tensors: Mapping[str, Tensor]) -> None:
        for key, value in tensors.items():
            self._tensors.setdefault(key, []).append(value)

    def _place_image(self, image: DecodedImage) -> PlacedTokens:
        processor = self._processor.image_processor
        output = processor(
            images=[_channels_first(image.pixels)], do_resize=False, return_tensors="pt"
        )
        grid = output["image_grid_thw"]
        self._keep({"pixel_values": output["pixel_values"], "image_grid_thw": grid})
        boxes = _token_boxes(grid, processor.merge_size, image.width, image.height)
        n = len(boxes)
        zeros = [0.0] * n
        token_id = self._processor.image_token_id
        return PlacedTokens([token_id] * n, [PositionKind.IMAGE] * n, zeros, zeros, boxes)

    def _place_sound(self, sound: DecodedAudio, stream: int) -> PlacedTokens:
        features, n = sound_features(self._processor.feature_extractor, sound)
        self._audio.append(features)
        end = sound_end_s(sound)
        lo = [sound.start_s + k * TOKEN_S for k in range(n)]
        hi = [min(start + TOKEN_S, end) for start in lo]
        token_id = self._processor.audio_token_id
        return PlacedTokens([token_id] * n, [stream] * n, lo, hi, [_NO_BOX] * n)

    def _place_video(self, video: DecodedVideo) -> PlacedTokens:
        frames, grid, second_per_grid = self._place_frames(video)
        if video.sound is None:
            return frames
        sound = self._place_sound(video.sound, PositionKind.SOUND)
        if self._sound_inside:
            return self._interleave(frames, sound, grid, second_per_grid)
        tokenizer = self._processor.tokenizer
        begin, end = tokenizer.audio_bos_token_id, tokenizer.audio_eos_token_id
        return PlacedTokens(
            frames.token_ids,
            frames.stream,
            frames.lo,
            frames.hi,
            frames.box,
            after=_enclosed(begin, sound, end),
        )

    def _place_frames(self, video: DecodedVideo) -> tuple[PlacedTokens, Tensor, Tensor]:
        import torch

        processor = self._processor.video_processor
        output = processor(
            videos=[_channels_first(video.frames)],
            do_resize=False,
            do_sample_frames=False,
            return_tensors="pt",
        )
        grid = output["video_grid_thw"]
        factor = processor.temporal_patch_size
        second_per_grid = torch.tensor([factor / video.fps])
        self._keep(
            {
                "pixel_values_videos": output["pixel_values_videos"],
                "video_grid_thw": grid,
                "video_second_per_grid": second_per_grid,
            }
        )
        cells = _token_boxes(grid, processor.merge_size, video.width, video.height)
        places = [(lo, hi, box) for lo, hi in frame_bins(video, factor) for box in cells]
        n = len(places)
        placed = PlacedTokens(
            [self._processor.video_token_id] * n,
            [PositionKind.FRAMES] * n,
            [lo for lo, _, _ in places],
            [hi for _, hi, _ in places],
            [box for _, _, box in places],
        )
        return placed, grid, second_per_grid

    def _interleave(
        self, frames: PlacedTokens, sound: PlacedTokens, grid: Tensor, second_per_grid: Tensor
    ) -> PlacedTokens:
        """Frames and sound in the official order: time chunk by time chunk, in audio markers."""
        text = self._processor.replace_video_with_audio_token(
            {"video_grid_thw": grid.numpy(), "video_second_per_grid": second_per_grid.numpy()},
            0,
            {"num_audio_tokens": [len(sound.token_ids)]},
            0,
            position_id_per_seconds=self._processor.position_id_per_seconds,
            seconds_per_chunk=self._processor.seconds_per_chunk,
        )
        order = self._processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        of_frames, of_sound = iter(range(len(frames.token_ids))), iter(range(len(sound.token_ids)))
        # token id, stream, lo, hi, box
        tokens: list[tuple[int, int, float, float, Sequence[float]]] = []
        for token_id in order:
            if token_id == self._processor.video_token_id:
                k = next(of_frames)
                place = (frames.stream[k], frames.lo[k], frames.hi[k], frames.box[k])
                tokens.append((token_id, *place))
            elif token_id == self._processor.audio_token_id:
                k = next(of_sound)
                tokens.append((token_id, sound.stream[k], sound.lo[k], sound.hi[k], _NO_BOX))
            else:
                tokens.append((token_id, PositionKind.NONE, 0.0, 0.0, _NO_BOX))
        ids, stream, lo, hi, boxes = (list(column) for column in zip(*tokens, strict=True))
        return PlacedTokens(ids, stream, lo, hi, boxes)


def sound_features(extractor: Any, sound: DecodedAudio) -> tuple[Tensor, int]:
    """Log-mel frames [n_mels, n_frames] of a sound, and its number of audio tokens.

    The values equal those of the official processor, which pads every clip to 300 s; one second of
    silence after the clip is enough for that. Unlike there, nothing is cut off at 300 s.

    Raises:
        MediaEmpty: the sound is shorter than one audio token.
    """
    n_frames = -(-len(sound.waveform) // extractor.hop_length)
    n_tokens = ((n_frames - 1) // 2 + 1 - 2) // 2 + 1
    if n_tokens < 1:
        raise MediaEmpty(
            f"a sound of {len(sound.waveform) / sound.sample_rate:.3f} s is shorter than one audio "
            f"token ({TOKEN_S} s); leave it out, or add silence"
        )
    output = extractor(
        np.pad(sound.waveform, (0, extractor.sampling_rate)),
        sampling_rate=sound.sample_rate,
        padding="longest",
        truncation=False,
        return_tensors="pt",
    )
    features: Tensor = output["input_features"][0, :, :n_frames]
    return features, n_tokens


def _token_boxes(
    grid: Tensor, merge_size: int, width: int, height: int
) -> list[tuple[float, float, float, float]]:
    """The box of each token of one picture, row by row, in pixels of the original.

    grid: [1, 3], steps, rows and columns of patches; a token merges a square of merge_size patches.
    """
    rows, columns = (int(n) // merge_size for n in grid[0, 1:])
    wide, high = width / columns, height / rows
    return [
        (column * wide, row * high, (column + 1) * wide, (row + 1) * high)
        for row in range(rows)
        for column in range(columns)
    ]


def _enclosed(begin: int, placed: PlacedTokens, end: int) -> PlacedTokens:
    """The same tokens between two markup tokens."""
    return PlacedTokens(
        [begin, *placed.token_ids, end],
        [PositionKind.NONE, *placed.stream, PositionKind.NONE],
        [0.0, *placed.lo, 0.0],
        [0.0, *placed.hi, 0.0],
        [_NO_BOX, *placed.box, _NO_BOX],
    )


def _channels_first(pixels: NDArray[np.uint8]) -> Tensor:
    """[..., H, W, 3] uint8 to [..., 3, H, W]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, -3)))
