"""Sentence embeddings by transformers, from a model in the layout of sentence-transformers."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from omnitrace_core.asr.engines.model_folder import model_folder
from omnitrace_core.errors import BackendError
from omnitrace_core.records import Float32
from omnitrace_core.runtime.process_state import preserve_process_state

_KEY = "asr.embedding"
_BATCH = 16
_KNOWN_STEPS = {"Transformer", "Pooling", "Normalize"}


class TextEmbedder:
    """Turns texts into vectors of length 1: a transformer, pooled by mean or first token."""

    def __init__(self, folder: Path, device: str) -> None:
        """Load the model.

        Raises:
            BackendError: the model cannot be loaded, or has other steps than a transformer, a
                pooling and a normalisation.
        """
        from omnitrace_core.runtime.devices import choose_device, choose_dtype, hide_progress
        from omnitrace_core.runtime.torchvision_shim import enable_transformers_vision

        enable_transformers_vision()
        from transformers import AutoModel, AutoTokenizer

        hide_progress()
        self._pooling = read_pooling(folder)
        device = choose_device(device)
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)
            model = AutoModel.from_pretrained(folder, dtype=choose_dtype("auto", device))
        except (OSError, ValueError, KeyError) as error:
            raise BackendError(
                f"{_KEY}={str(folder)!r} cannot be loaded ({error}); give a model in the layout of "
                "sentence-transformers, such as BAAI/bge-m3"
            ) from error
        self._model: Any = model.to(device).eval().requires_grad_(False)
        self._max_tokens = _max_tokens(folder)

    def embed(self, texts: list[str]) -> Float32:
        """[n_texts, n_dims] float32, each row of length 1."""
        import torch
        from torch.nn import functional

        rows = []
        for start in range(0, len(texts), _BATCH):
            batch = self._tokenizer(
                texts[start : start + _BATCH],
                padding=True,
                truncation=True,
                max_length=self._max_tokens,
                return_tensors="pt",
            ).to(self._model.device)
            with torch.inference_mode():
                states = self._model(**batch).last_hidden_state.float()
                pooled = _pool(states, batch["attention_mask"], self._pooling)
                rows.append(functional.normalize(pooled, dim=-1).cpu())
        vectors: Float32 = torch.cat(rows).numpy()
        return vectors


def load_embedder(value: str, device: str, threads: int) -> TextEmbedder:
    """The embedding model, loaded once per process. Raises: BackendError."""
    with preserve_process_state(threads, "transformers"):
        return load_model(value, device)


@lru_cache(maxsize=1)
def load_model(value: str, device: str) -> TextEmbedder:
    """The cached loader behind `load_embedder`."""
    return TextEmbedder(model_folder(value), device)


def _pool(states: Any, mask: Any, pooling: str) -> Any:
    """[n_texts, n_dims] of states [n_texts, n_tokens, n_dims] and mask [n_texts, n_tokens]."""
    if pooling == "cls":
        return states[:, 0]
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


def read_pooling(folder: Path) -> str:
    """`cls` or `mean`, from the model's files. Raises: BackendError."""
    modules = _read(folder / "modules.json")
    steps = [str(step.get("type", "")).rpartition(".")[2] for step in modules]
    if unknown := sorted(set(steps) - _KNOWN_STEPS):
        raise BackendError(
            f"{_KEY}={str(folder)!r} has the step {unknown[0]}, which is not supported; take a "
            f"model of {', '.join(sorted(_KNOWN_STEPS))} alone, such as BAAI/bge-m3"
        )
    pooling_paths = [
        step.get("path", "") for step, kind in zip(modules, steps, strict=True) if kind == "Pooling"
    ]
    settings = _read(folder / pooling_paths[0] / "config.json") if pooling_paths else {}
    modes = [mode for mode in ("cls", "mean") if _has_mode(settings, mode)]
    if len(modes) != 1:
        raise BackendError(
            f"{_KEY}={str(folder)!r} pools its tokens in a way that is not supported; take a model "
            "whose pooling is cls or mean"
        )
    return modes[0]


def _has_mode(settings: Any, mode: str) -> bool:
    flag = {"cls": "pooling_mode_cls_token", "mean": "pooling_mode_mean_tokens"}[mode]
    return bool(settings.get(flag)) or settings.get("pooling_mode") == mode


def _max_tokens(folder: Path) -> int:
    """Most tokens of a text; what is beyond them is cut off."""
    file = folder / "sentence_bert_config.json"
    max_tokens = _read(file).get("max_seq_length") if file.is_file() else None
    return int(max_tokens or 512)


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BackendError(
            f"{_KEY}={str(file.parent)!r}: {file.name} cannot be read ({error}); give a model "
            "in the layout of sentence-transformers, such as BAAI/bge-m3"
        ) from error
