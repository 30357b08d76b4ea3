"""The replay of a text-only decoder (Qwen3), prompted by embeddings, equals eager attention."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from omnitrace_core.backends.base import PrefilledPrompt
from omnitrace_core.runtime.torchvision_shim import enable_transformers_vision
from omnitrace_core.tracing.replay.decoder_replay import replay
from omnitrace_core.tracing.signals import SIGNALS
from tests.core.oracle import ROWS, TOLERANCE, eager_forward

BATCH, PROMPT, NEW = 3, 40, 10
PADDING = (0, 17, 5)


def make_model(attention: str) -> Any:
    enable_transformers_vision()
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    config: Any = Qwen3Config(
        vocab_size=300,
        hidden_size=96,
        intermediate_size=160,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        head_dim=32,  # not hidden_size / heads, as in the real Qwen3
        initializer_range=0.1,
        eos_token_id=None,
        pad_token_id=0,
    )
    config._attn_implementation = attention
    return Qwen3ForCausalLM(config).eval()


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model("sdpa")


@pytest.fixture(scope="module")
def embeddings() -> torch.Tensor:
    """Embeddings of no tokens, like those of an omni model's media."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(BATCH, PROMPT, 96, generator=generator)


@pytest.mark.parametrize("rows_bytes", [10**8, 20_000])
def test_left_padded_embeddings_equal_eager(
    model: Any, embeddings: torch.Tensor, rows_bytes: int
) -> None:
    mask = torch.ones(BATCH, PROMPT, dtype=torch.long)
    for row, padding in enumerate(PADDING):
        mask[row, :padding] = 0
    output = model.generate(
        inputs_embeds=embeddings,
        attention_mask=mask,
        max_new_tokens=NEW,
        do_sample=False,
        return_dict_in_generate=True,
    )
    prompt = PrefilledPrompt(
        cache=output.past_key_values,
        attention_mask=mask,
        last_embedding=embeddings[:, -1:],
        position_delta=torch.zeros(BATCH, 1, dtype=torch.long),
    )
    responses = output.sequences.tolist()
    signals = {name: SIGNALS[name] for name in ROWS}
    slices = list(replay(model.model, model.lm_head, prompt, responses, signals, rows_bytes))
    assert (len(slices) == 1) == (rows_bytes == 10**8)
    assert sum(replayed.logprobs.shape[1] for replayed in slices) == NEW
    eager_model = make_model("eager")
    for row, padding in enumerate(PADDING):
        response = model.get_input_embeddings()(output.sequences[row : row + 1, :-1])
        inputs = {
            "inputs_embeds": torch.cat([embeddings[row : row + 1, padding:], response], dim=1)
        }
        eager = eager_forward(eager_model, eager_model.model, inputs, responses[row])
        for name in ROWS:
            wanted = ROWS[name](eager)
            got = torch.zeros(NEW, padding + wanted.shape[1])
            for replayed in slices:
                rows = replayed.rows[name][row]
                got[replayed.start : replayed.start + len(rows), : rows.shape[1]] = rows
            assert (got[:, :padding] == 0).all(), "padding has weight"
            limit = TOLERANCE.get(name, 1e-5) * wanted.max(dim=1, keepdim=True).values
            assert ((got[:, padding:] - wanted).abs() <= limit).all(), name
            assert (got[:, padding:].argmax(1) == wanted.argmax(1)).all()
            if name in ("attmean", "attraw"):
                torch.testing.assert_close(got.sum(1), torch.ones(NEW))
