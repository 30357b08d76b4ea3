"""Recognisers that hear the same in a batch as alone, but for the rounding of their sums.

FunASR (1.4) and transformers (5.23) let padding reach what is not padded: Paraformer's predictor
looks one frame ahead, beyond the end of a stretch, and its recurrent layer for times begins at the
end of the padding; Whisper's alignment of words with time takes in the tokens that pad a shorter
answer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def keep_padding_out_of_paraformer(model: Any) -> None:
    """Change a loaded FunASR model of the Paraformer family; others stay as they are."""
    if not hasattr(model, "calc_predictor"):
        return
    model.encode = _cleared(model.encode)
    if hasattr(model, "calc_predictor_timestamp"):
        model.calc_predictor_timestamp = _one_by_one(model.calc_predictor_timestamp)


def keep_padding_out_of_whisper(model: Any) -> None:
    """Change a loaded Whisper model."""
    model._extract_token_timestamps = _own_length(
        model._extract_token_timestamps, model.generation_config
    )


def _cleared(encode: Callable[..., Any]) -> Callable[..., Any]:
    """Zeros behind the end of each stretch: what the predictor sees behind one that is alone."""

    def cleared(speech: Any, lengths: Any, **more: Any) -> Any:
        states, n_states = encode(speech, lengths, **more)
        for row, n in zip(states, n_states.tolist(), strict=True):
            row[n:] = 0
        return states, n_states

    return cleared


def _one_by_one(predict: Callable[..., Any]) -> Callable[..., Any]:
    """The predictor of times for each stretch alone; it is small beside encoder and decoder."""

    def apart(states: Any, n_states: Any, n_tokens: Any) -> tuple[Any, ...]:
        from torch.nn.utils.rnn import pad_sequence

        rows = [
            predict(states[i : i + 1, :n], n_states[i : i + 1], n_tokens[i : i + 1])
            for i, n in enumerate(n_states.tolist())
        ]
        return tuple(
            pad_sequence([values[0] for values in column], batch_first=True)
            for column in zip(*rows, strict=True)
        )

    return apart


def _own_length(extract: Callable[..., Any], settings: Any) -> Callable[..., Any]:
    """Times of tokens from as many steps as each stretch took itself."""

    def apart(found: Any, heads: Any, *, num_frames: Any, num_input_ids: int, **more: Any) -> Any:
        import torch

        sequences = found.sequences
        told = {"num_input_ids": num_input_ids, **more}
        # Where beams were searched, rows are no stretches.
        if len(sequences) == 1 or "beam_indices" in found:
            return extract(found, heads, num_frames=num_frames, **told)
        times = sequences.new_zeros(sequences.shape, dtype=torch.float32)
        ends = torch.as_tensor(settings.eos_token_id, device=sequences.device)
        for i, sequence in enumerate(sequences):
            ended = torch.isin(sequence[num_input_ids:], ends).nonzero()
            n_steps = int(ended[0]) + 1 if len(ended) else len(found.cross_attentions)
            one = type(found)(
                sequences=sequence[None, : num_input_ids + n_steps],
                cross_attentions=tuple(
                    tuple(layer[i : i + 1] for layer in step)
                    for step in found.cross_attentions[:n_steps]
                ),
            )
            frames = num_frames[i : i + 1] if hasattr(num_frames, "__getitem__") else num_frames
            (row,) = extract(one, heads, num_frames=frames, **told)
            times[i, : len(row)] = row
        return times

    return apart
