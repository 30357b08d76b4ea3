"""Which model a run uses, as far as can be told without loading it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from omnitrace_core.backends.shipped import model_location
from omnitrace_core.errors import ConfigError
from omnitrace_core.options import SPEECH_MODELS, AsrOptions, ModelOptions

_NEEDED = {
    "safetensors weights": ("*.safetensors",),
    "a tokenizer": ("tokenizer.json", "vocab.json"),
    "its processor's settings": ("processor_config.json", "preprocessor_config.json"),
}
_INDEX = "model.safetensors.index.json"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_WEIGHTS = (".safetensors", ".bin", ".pt")
_WHOLE_BYTES = 64 * 1024**2
_PROBES = 64
_PROBE_BYTES = 4096


def model_identity(options: ModelOptions) -> str:
    """What changes when the model's content does; part of a run's fingerprint.

    A local directory: a hash of its files, of which large weights are probed at 64 evenly spaced
    places. A hub id: its pinned commit.

    Raises:
        ConfigError: no such directory, and as a hub id it is not pinned.
    """
    folder = Path(model_location(options.path))
    if folder.is_dir():
        return _hash_folder(folder)
    if options.revision is None or not _COMMIT.fullmatch(options.revision):
        raise ConfigError(
            f"model.path={options.path!r} is not a local directory, and as a hub id it needs "
            f"model.revision, the 40-digit commit to use (met: {options.revision!r}); "
            "give a directory, or pin the commit shown on the model's page"
        )
    return f"{options.path}@{options.revision}"


def speech_identity(options: AsrOptions) -> list[str]:
    """What changes when the content of a local speech or embedding model does.

    Models of a hub are pinned by their names.
    """
    paths = [getattr(options, key) for key in SPEECH_MODELS]
    return [_hash_folder(Path(path)) for path in paths if path is not None and Path(path).is_dir()]


def _hash_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(folder).as_posix()}\0{size}\0".encode())
        with file.open("rb") as content:
            if file.suffix not in _WEIGHTS or size <= _WHOLE_BYTES:
                digest.update(content.read())
                continue
            for probe in range(_PROBES):
                content.seek(probe * (size - _PROBE_BYTES) // (_PROBES - 1))
                digest.update(content.read(_PROBE_BYTES))
    return digest.hexdigest()[:32]


def check_model_files(options: ModelOptions) -> None:
    """Whether a local directory has the files that loading will ask for.

    Raises:
        ConfigError: some of them are missing; the message names them.
    """
    folder = Path(model_location(options.path))
    if not folder.is_dir():
        return
    missing = [
        f"{what} ({' or '.join(names)})"
        for what, names in _NEEDED.items()
        if not any(any(folder.glob(name)) for name in names)
    ]
    if (folder / _INDEX).is_file():
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        shards = sorted(set(index["weight_map"].values()))
        missing += [name for name in shards if not (folder / name).is_file()]
    if missing:
        raise ConfigError(
            f"model.path={options.path!r} lacks {', '.join(missing)}; copy the whole model"
        )
