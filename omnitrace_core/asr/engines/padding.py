"""Keep the padding of a batch from changing what a recogniser returns for a clip.

In FunASR (1.4) and transformers (5.23), padding has an effect on clips: Paraformer's predictor
looks one frame beyond the end of a clip, and its recurrent layer for times starts at the end of the
padding; Whisper's alignment of words with time includes the tokens that pad a shorter output. With
these changes, a clip gets the same words in a batch as alone, and times that differ by the rounding
of sums only.

Where Whisper's output ends before its 30 s, transformers goes on at the last time that the output
names, into padding after the end of the clip, where Whisper invents words: here it stops there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# Whisper has 100 frames per second. What follows a time in the last 0.2 s of a clip is no word.
_IGNORED_FRAMES = 20


def keep_padding_out_of_paraformer(model: Any) -> None:
    """Change a loaded FunASR model of the Paraformer family; other models stay as they are."""
    if not hasattr(model, "calc_predictor"):
        return
    model.encode = _zero_padding(model.encode)
    if hasattr(model, "calc_predictor_timestamp"):
        model.calc_predictor_timestamp = _one_by_one(model.calc_predictor_timestamp)


def keep_padding_out_of_whisper(model: Any) -> None:
    """Change a loaded Whisper model."""
    model._extract_token_timestamps = _without_padding_tokens(
        model._extract_token_timestamps, model.generation_config
    )
    model._retrieve_max_frames_and_seek = _up_to_the_end(model._retrieve_max_frames_and_seek)
    model._get_input_segment = _with_padding(model._get_input_segment)


def _up_to_the_end(retrieve: Callable[..., Any]) -> Callable[..., Any]:
    """The frames [n_clips] to transcribe: those of the sound, less what is too short for a word."""

    def retrieve_sound(*, attention_mask: Any, **options: Any) -> tuple[Any, Any]:
        _, seek = retrieve(attention_mask=attention_mask, **options)
        n_frames = attention_mask.sum(-1).cpu().to(seek.dtype)
        return (n_frames - _IGNORED_FRAMES).clamp(min=1), seek

    return retrieve_sound


def _with_padding(get: Callable[..., Any]) -> Callable[..., Any]:
    """Each clip with its padding as the feature extractor made it, not cut where the clip ends."""

    def get_padded(*, seek_num_frames: Any, num_segment_frames: int, **options: Any) -> Any:
        whole = seek_num_frames.new_full(seek_num_frames.shape, num_segment_frames)
        return get(seek_num_frames=whole, num_segment_frames=num_segment_frames, **options)

    return get_padded


def _zero_padding(encode: Callable[..., Any]) -> Callable[..., Any]:
    """Set all after the end of each clip to zero, as the predictor sees it for a single clip."""

    def encode_and_zero(speech: Any, lengths: Any, **options: Any) -> Any:
        states, n_states = encode(speech, lengths, **options)
        for row, n in zip(states, n_states.tolist(), strict=True):
            row[n:] = 0
        return states, n_states

    return encode_and_zero


def _one_by_one(predict: Callable[..., Any]) -> Callable[..., Any]:
    """The predictor of times on each clip alone; it is cheap compared to encoder and decoder."""

    def predict_each(states: Any, n_states: Any, n_tokens: Any) -> tuple[Any, ...]:
        from torch.nn.utils.rnn import pad_sequence

        rows = [
            predict(states[i : i + 1, :n], n_states[i : i + 1], n_tokens[i : i + 1])
            for i, n in enumerate(n_states.tolist())
        ]
        return tuple(
            pad_sequence([values[0] for values in column], batch_first=True)
            for column in zip(*rows, strict=True)
        )

    return predict_each


def _without_padding_tokens(extract: Callable[..., Any], settings: Any) -> Callable[..., Any]:
    """Token times of each clip from its own decoding steps only."""

    def extract_each(
        output: Any, heads: Any, *, num_frames: Any, num_input_ids: int, **options: Any
    ) -> Any:
        import torch

        sequences = output.sequences
        options["num_input_ids"] = num_input_ids
        # With beam search, a row is a beam and not a clip.
        if len(sequences) == 1 or "beam_indices" in output:
            return extract(output, heads, num_frames=num_frames, **options)
        times = sequences.new_zeros(sequences.shape, dtype=torch.float32)
        end_ids = torch.as_tensor(settings.eos_token_id, device=sequences.device)
        for i, sequence in enumerate(sequences):
            ends = torch.isin(sequence[num_input_ids:], end_ids).nonzero()
            n_steps = int(ends[0]) + 1 if len(ends) else len(output.cross_attentions)
            single = type(output)(
                sequences=sequence[None, : num_input_ids + n_steps],
                cross_attentions=tuple(
                    tuple(layer[i : i + 1] for layer in step)
                    for step in output.cross_attentions[:n_steps]
                ),
            )
            frames = num_frames[i : i + 1] if hasattr(num_frames, "__getitem__") else num_frames
            (row,) = extract(single, heads, num_frames=frames, **options)
            times[i, : len(row)] = row
        return times

    return extract_each
