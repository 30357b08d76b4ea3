"""Identify a run's models by their files, and check that the files are complete."""

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
WHOLE_BYTES = 64 * 1024**2  # larger files of weights are hashed in samples
_PROBES = 64
_PROBE_BYTES = 4096


def model_identity(options: ModelOptions) -> str:
    """Identifies the content of a model; part of a run's fingerprint.

    For a local directory, a hash of its files; of weights above 64 MiB, 64 evenly spaced blocks of
    4 KiB are hashed. For a hub id, the id and its pinned commit.

    Raises:
        ConfigError: there is no such directory, and the path is not a pinned hub id.
    """
    folder = Path(model_location(options.path))
    if folder.is_dir():
        return _hash_folder(folder)
    if options.revision is None or not _COMMIT.fullmatch(options.revision):
        raise ConfigError(
            f"model.path={options.path!r} is not a local directory, and as a hub id it needs "
            f"model.revision, the 40-digit commit to use (now: {options.revision!r}); "
            "give a directory, or pin the commit shown on the model's page"
        )
    return f"{options.path}@{options.revision}"


def speech_identity(options: AsrOptions) -> list[str]:
    """Hashes of the local speech and embedding models.

    Hub models have none: their names identify them.
    """
    paths = [getattr(options, key) for key in SPEECH_MODELS]
    return [_hash_folder(Path(path)) for path in paths if path is not None and Path(path).is_dir()]


def _hash_folder(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(folder).as_posix()}\0{size}\0".encode())
        with file.open("rb") as content:
            if file.suffix not in _WEIGHTS or size <= WHOLE_BYTES:
                digest.update(content.read())
                continue
            for probe in range(_PROBES):
                content.seek(probe * (size - _PROBE_BYTES) // (_PROBES - 1))
                digest.update(content.read(_PROBE_BYTES))
    return digest.hexdigest()[:32]


def check_model_files(options: ModelOptions) -> None:
    """Check that a local model directory has the files that loading it needs.

    Raises:
        ConfigError: files are missing; the message names them.
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
