"""Model families: one module each, the table of them, and how a config.json selects one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from omnitrace_core.backends.shipped import SHIPPED, model_location
from omnitrace_core.errors import BackendError, UnknownName
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import ModelOptions
from omnitrace_core.runtime.node_faults import check_mount

if TYPE_CHECKING:
    from omnitrace_core.backends.base import Backend
    from omnitrace_core.reader import SampleReader

# name -> module with `load(options, reader)` and `media_rules(files)`.
BACKENDS: dict[str, str] = {
    "qwen2_5_omni": "omnitrace_core.backends.qwen2_5_omni",
}
# `model_type` in the model's config.json -> backend name.
MODEL_TYPES: dict[str, str] = {
    "qwen2_5_omni": "qwen2_5_omni",
    "qwen2_5_omni_thinker": "qwen2_5_omni",
}

# Group of entry points through which packages add backends.
ENTRY_POINTS = "omnitrace.backends"

ReadJson = Callable[[str], Mapping[str, object] | None]


def list_backends() -> tuple[str, ...]:
    """The names that `model.backend` accepts: `auto`, shipped ones, then those of entry points.

    `auto` chooses the backend by the `model_type` in the model's config.json.
    """
    return ("auto", *BACKENDS, *sorted(set(_plugins()) - set(BACKENDS)))


def load_backend(options: ModelOptions, reader: SampleReader | None = None) -> Backend:
    """Load the model and its processor.

    reader: reads the samples that `Backend.prepare` takes; by default one with default options.

    Raises:
        BackendError: there is no model at `options.path`, no backend supports it, or it cannot be
            loaded.
        UnknownName: no backend has the name `options.backend`.
    """
    module = import_module(_module_name(options))
    backend: Backend = module.load(options, reader)
    return backend


def media_rules(options: ModelOptions) -> MediaRules:
    """How the model needs its media resized and sampled; reads only the model's JSON files.

    Raises:
        BackendError, UnknownName: see `load_backend`.
    """
    rules: MediaRules = import_module(_module_name(options)).media_rules(json_reader(options))
    return rules


def decoder_shape(options: ModelOptions) -> SimpleNamespace:
    """num_hidden_layers and num_attention_heads of the text decoder, from the model's config.json.

    A number that config.json does not contain is None. Raises: BackendError.
    """
    config: object = json_reader(options)("config.json") or {}
    for section in ("thinker_config", "text_config"):
        if isinstance(config, Mapping) and isinstance(config.get(section), Mapping):
            config = config[section]
    decoder = config if isinstance(config, Mapping) else {}
    names = ("num_hidden_layers", "num_attention_heads")
    return SimpleNamespace(**{name: decoder.get(name) for name in names})


def json_reader(options: ModelOptions) -> ReadJson:
    """A function that loads a JSON file of the model by its name; None if there is no such file.

    The function raises BackendError if the model cannot be found or the file is not a JSON object.
    """

    def read(name: str) -> Mapping[str, object] | None:
        path = _model_file(options, name)
        if path is None:
            return None
        try:
            loaded = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise BackendError(f"{path} is not JSON ({error}); download the model again") from error
        if not isinstance(loaded, dict):
            raise BackendError(
                f"{path} contains a {type(loaded).__name__}, not a JSON object; download the model "
                "again"
            )
        return loaded

    return read


def _model_file(options: ModelOptions, name: str) -> Path | None:
    location = model_location(options.path)
    local = Path(location)
    check_mount(local / name)
    if local.is_dir():
        return local / name if (local / name).is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(location, name, revision=options.revision))
    except EntryNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BackendError(
            f"model.path={options.path!r}: there is no such directory, and it cannot be read as a "
            f"hub id ({type(error).__name__}); give a local directory, a hub id that can be "
            f"reached, or one of {sorted(SHIPPED)}"
        ) from error


def _module_name(options: ModelOptions) -> str:
    name = options.backend if options.backend != "auto" else _detect(options)
    modules = {**_plugins(), **BACKENDS}
    if name not in modules:
        raise UnknownName(f"model.backend={name!r} is unknown; valid: {', '.join(list_backends())}")
    return modules[name]


def _plugins() -> dict[str, str]:
    """Name and module of the backends that installed packages add."""
    return {point.name: point.value for point in entry_points(group=ENTRY_POINTS)}


def _detect(options: ModelOptions) -> str:
    """The name of the backend for the model's `model_type`."""
    config = json_reader(options)("config.json")
    if config is None:
        raise BackendError(
            f"model.path={options.path!r} has no config.json; give the directory or hub id of a "
            "transformers model"
        )
    model_type = str(config.get("model_type"))
    if model_type not in MODEL_TYPES:
        raise BackendError(
            f"model.path={options.path!r} is of type {model_type!r}, which no backend supports; "
            f"supported types: {sorted(MODEL_TYPES)} (or name a plug-in in model.backend)"
        )
    return MODEL_TYPES[model_type]
