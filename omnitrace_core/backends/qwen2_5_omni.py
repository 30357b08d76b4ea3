"""The backend for Qwen2.5-Omni. It loads only the thinker, not the talker, which makes speech.

Media are already sampled and resized by the family's rules (`media_rules`), so the official
processors only normalise them and cut patches. The sound of a video is interleaved with its frames,
as in the official processor. The model takes one flag for that per batch, so all samples of a batch
must agree on it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from omnitrace_core.backends import ReadJson, json_reader
from omnitrace_core.backends.base import (
    DecodingRules,
    EncodedSample,
    Generated,
    PrefilledPrompt,
    PreparedBatch,
)
from omnitrace_core.backends.caches import growing_cache
from omnitrace_core.backends.prompt import build_prompt
from omnitrace_core.backends.qwen_media import QwenMedia
from omnitrace_core.decoded_media import DecodedVideo
from omnitrace_core.errors import InvalidSample, SampleError, TraceError
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import DecodeOptions, ModelOptions
from omnitrace_core.records import ReadySample
from omnitrace_core.samples.sample_input import SampleInput, as_sequence
from omnitrace_core.units.assign import assign_units, unit_notes

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import Cache

    from omnitrace_core.reader import SampleReader


def load(options: ModelOptions, reader: SampleReader | None) -> Qwen25OmniBackend:
    """Load the thinker and its processor. Raises: BackendError."""
    return Qwen25OmniBackend(options, reader)


def media_rules(read_json: ReadJson) -> MediaRules:
    """The model's pixel limits from its JSON files; frame rate rules from qwen-omni-utils."""
    nested = read_json("processor_config.json") or {}
    image = _section(nested, "image_processor") or read_json("preprocessor_config.json") or {}
    video = _section(nested, "video_processor") or read_json("video_preprocessor_config.json") or {}
    base = MediaRules()
    image_min, image_max = _pixel_limits(image, base.image_min_pixels, base.image_max_pixels)
    video_min, video_max = _pixel_limits(video, base.video_min_pixels, base.video_max_pixels)
    return MediaRules(
        factor=_number(image, "patch_size", 14) * _number(image, "merge_size", 2),
        image_min_pixels=image_min,
        image_max_pixels=image_max,
        video_min_pixels=video_min,
        video_max_pixels=video_max,
        frame_factor=_number(video, "temporal_patch_size", 2),
        min_frames=_number(video, "min_frames", base.min_frames),
        max_frames=_number(video, "max_frames", base.max_frames),
    )


class Qwen25OmniBackend:
    """The Qwen2.5-Omni thinker of transformers, unmodified."""

    name = "qwen2_5_omni"

    def __init__(self, options: ModelOptions, reader: SampleReader | None = None) -> None:
        from omnitrace_core.backends.loading import load_model, load_processor

        self.rules = media_rules(json_reader(options))
        self.reader = reader
        self.processor: Any = load_processor(options)
        self.tokenizer = self.processor.tokenizer
        self.model: Any = load_model("Qwen2_5OmniThinkerForConditionalGeneration", options)
        ends = self.model.generation_config.eos_token_id or self.tokenizer.eos_token_id
        self.end_ids = frozenset(ends if isinstance(ends, list) else [ends])
        self._pad_id = int(self.tokenizer.pad_token_id)

    @property
    def decoder(self) -> nn.Module:
        """The text decoder."""
        decoder: nn.Module = self.model.model.language_model
        return decoder

    @property
    def output_head(self) -> nn.Module:
        """Last hidden state to logits."""
        head: nn.Module = self.model.lm_head
        return head

    def encode(self, ready: ReadySample) -> EncodedSample:
        """Tokenize one sample and compute its media tensors.

        Raises:
            MediaEmpty: a sound is shorter than one audio token.
            TraceError: the chat template does not fit the sample.
        """
        import torch

        have_sound = [
            m.sound is not None for m in ready.media.values() if isinstance(m, DecodedVideo)
        ]
        inside = all(have_sound) if have_sound else None
        notes: tuple[str, ...] = ()
        if any(have_sound) and not inside:
            notes = ("only some videos have sound: their tracks follow as audio on the same clock",)
        media = QwenMedia(self.processor, ready, sound_inside=inside is True)
        placeholders = {
            "image": self.processor.image_token,
            "audio": self.processor.audio_token,
            "video": self.processor.video_token,
        }
        token_ids, prompt = build_prompt(
            ready.sample, self.tokenizer, self.processor.chat_template, placeholders, media.place
        )
        unit_index = assign_units(prompt, ready.units)
        notes += unit_notes(prompt, unit_index, ready.units)
        return EncodedSample(
            ready=ready,
            input_ids=torch.tensor(token_ids, dtype=torch.long),
            features=media.features(),
            sounds=media.sounds,
            prompt=prompt,
            unit_index=unit_index,
            sound_in_video=inside,
            notes=notes,
        )

    def prepare(self, samples: SampleInput | Sequence[SampleInput]) -> PreparedBatch:
        """Read, encode and collate samples in one go: one or several, in any accepted form.

        Raises:
            SampleError: a sample is invalid or its media cannot be read.
            TraceError: the samples do not agree on sound inside videos; prepare them apart.
            InvalidSample: there are no samples.
        """
        reader = self._reader()
        ready = reader.read_inputs(as_sequence(samples))
        if not ready:
            raise InvalidSample("prepare needs at least one sample; the sequence is empty")
        encoded: list[EncodedSample] = []
        for item in ready:
            if isinstance(item, SampleError):
                raise item
            encoded.append(self.encode(item))
        return self.collate(encoded)

    def collate(self, encoded: Sequence[EncodedSample]) -> PreparedBatch:
        """Left-pad encoded samples to one batch.

        Raises:
            TraceError: the samples do not agree on `sound_in_video`.
            ValueError: there are no samples.
        """
        import torch

        if not encoded:
            raise ValueError("collate needs at least one encoded sample")
        flags = {item.sound_in_video for item in encoded} - {None}
        if len(flags) > 1:
            raise TraceError(
                "a batch mixes videos with and without their sound inside; group samples by "
                "sound_in_video"
            )
        width = max(item.n_prompt for item in encoded)
        shape = (len(encoded), width)
        input_ids = torch.full(shape, self._pad_id, dtype=torch.long)
        mask = torch.zeros(shape, dtype=torch.long)
        unit_index = torch.full(shape, -1, dtype=torch.long)
        for row, item in enumerate(encoded):
            start = width - item.n_prompt
            input_ids[row, start:] = item.input_ids
            mask[row, start:] = 1
            unit_index[row, start:] = torch.from_numpy(item.unit_index)
        tensors = {"input_ids": input_ids, "attention_mask": mask, **_join_features(encoded)}
        inputs: dict[str, object] = {key: self._place(key, t) for key, t in tensors.items()}
        inputs["use_audio_in_video"] = True in flags
        return PreparedBatch(encoded=tuple(encoded), inputs=inputs, unit_index=unit_index)

    def generate(self, prepared: PreparedBatch, decode: DecodeOptions) -> Generated:
        """Generate responses with the model's own attention, and keep the key cache.

        The checkpoint's generation config applies (suppressed tokens, repetition penalty), and
        `decode` overrides it. Its sampling settings apply only with `decode.do_sample`.
        """
        import torch

        device = self.model.device
        # The state of the caller's random numbers is restored.
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(decode.seed)
            output = self.model.generate(
                **prepared.inputs, generation_config=self._generation_config(decode)
            )
        token_ids = output.sequences[:, prepared.input_ids.shape[1] :]
        return Generated(token_ids, self._prompt_state(prepared, output.past_key_values))

    def decoding_rules(self, prepared: PreparedBatch, decode: DecodeOptions) -> DecodingRules:
        """How `generate` would choose the next token with these options."""

        def rules(model: Any, input_ids: Tensor, logits_processor: Any, **_: Any) -> DecodingRules:
            return DecodingRules(logits_processor, decode.do_sample)

        # `generate` passes its logits processors to `rules`, which replaces its decoding loop.
        found: DecodingRules = self.model.generate(
            prepared.input_ids,
            attention_mask=prepared.attention_mask,
            generation_config=self._generation_config(decode),
            custom_generate=rules,
        )
        return found

    def prefill(self, prepared: PreparedBatch, cache: Cache | None = None) -> PrefilledPrompt:
        """Run only the prompt, without logits, for a response that is already known."""
        import torch

        # Not inference_mode: its tensors cannot be cropped, filled or differentiated later.
        with torch.no_grad():
            output = self.model.model(
                **prepared.inputs,
                use_cache=True,
                past_key_values=growing_cache() if cache is None else cache,
            )
        return self._prompt_state(prepared, output.past_key_values)

    def _generation_config(self, decode: DecodeOptions) -> Any:
        config = copy.deepcopy(self.model.generation_config)
        config.update(
            max_length=None,
            max_new_tokens=decode.max_new_tokens,
            do_sample=decode.do_sample,
            num_beams=1,
            no_repeat_ngram_size=decode.no_repeat_ngram_size,
            cache_implementation=None if decode.cache == "dynamic" else decode.cache,
            eos_token_id=sorted(self.end_ids),
            pad_token_id=self._pad_id,
            return_dict_in_generate=True,
        )
        if not decode.do_sample:
            config.update(temperature=None, top_k=None, top_p=None)
        return config

    def _prompt_state(self, prepared: PreparedBatch, cache: Any) -> PrefilledPrompt:
        return PrefilledPrompt(
            cache=cache,
            attention_mask=prepared.attention_mask,
            last_embedding=self.model.get_input_embeddings()(prepared.input_ids[:, -1:]),
            # The model stores the offset of its last prompt on itself; copied before the next one.
            position_delta=self.model.model.rope_deltas.clone(),
        )

    def _reader(self) -> SampleReader:
        if self.reader is None:
            from omnitrace_core.reader import ReadingOptions, SampleReader

            self.reader = SampleReader(ReadingOptions(self.rules))
        return self.reader

    def _place(self, key: str, tensor: Tensor) -> Tensor:
        # video_second_per_grid determines rotary positions, so it stays in float32.
        cast = tensor.is_floating_point() and key != "video_second_per_grid"
        return tensor.to(self.model.device, self.model.dtype if cast else tensor.dtype)


def _join_features(encoded: Sequence[EncodedSample]) -> dict[str, Tensor]:
    """Media tensors of a batch, in the order of the samples and of their prompts."""
    import torch

    joined: dict[str, list[Tensor]] = {}
    for item in encoded:
        for key, tensor in item.features.items():
            joined.setdefault(key, []).append(tensor)
    tensors = {key: torch.cat(parts) for key, parts in joined.items()}
    sounds = [sound for item in encoded for sound in item.sounds]
    if sounds:
        longest = max(sound.shape[1] for sound in sounds)
        features = torch.zeros(len(sounds), sounds[0].shape[0], longest)
        mask = torch.zeros(len(sounds), longest, dtype=torch.long)
        for row, sound in enumerate(sounds):
            features[row, :, : sound.shape[1]] = sound
            mask[row, : sound.shape[1]] = 1
        tensors.update(input_features=features, feature_attention_mask=mask)
    return tensors


def _section(config: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = config.get(key)
    return value if isinstance(value, Mapping) else {}


def _number(config: Mapping[str, object], key: str, default: int) -> int:
    value = config.get(key)
    return int(value) if isinstance(value, int | float) else default


def _pixel_limits(config: Mapping[str, object], least: int, most: int) -> tuple[int, int]:
    """Pixel limits of a processor: `min_pixels` and `max_pixels`, or the edges in newer `size`.

    Those edges are numbers of pixels too, despite their names.
    """
    size = _section(config, "size")
    lower = _number(config, "min_pixels", _number(size, "shortest_edge", least))
    upper = _number(config, "max_pixels", _number(size, "longest_edge", most))
    return lower, upper
