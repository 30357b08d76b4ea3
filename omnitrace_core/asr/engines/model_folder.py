"""Where the files of a speech or embedding model lie."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from omnitrace_core.errors import BackendError

_PINNED = re.compile(r"[\w.-]+(/[\w.-]+)?@[0-9a-f]{40}")
# The same weights once more, for other libraries.
_OTHER_FORMATS = ["*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.ot", "*.tflite"]


def check_package(name: str, engine: str, extra: str) -> None:
    """Whether a package is installed; it is not loaded.

    Raises:
        BackendError: it is not.
    """
    if importlib.util.find_spec(name) is None:
        raise BackendError(
            f"asr.engine={engine} needs the package {name}: "
            f"pip install 'omnitrace-ray[{extra}]' -c constraints.txt, "
            "or choose another engine, such as vad"
        )


def check_model(key: str, value: str | None, engine: str) -> str:
    """A directory that is there, or a hub id with a pinned commit; nothing is fetched.

    key: the setting that names the model. Returns the value.

    Raises:
        BackendError: neither.
    """
    if value is None:
        raise BackendError(f"asr.engine={engine} needs {key}: a directory, or hub-id@commit")
    if not Path(value).is_dir() and not _PINNED.fullmatch(value):
        raise BackendError(
            f"{key}={value!r} is not a local directory, and a hub id needs its commit: "
            "name@<the 40 digits on the model's page>"
        )
    return value


def model_folder(value: str) -> Path:
    """The directory of a checked model, fetched from the hub if it is not a local one.

    Raises:
        BackendError: the hub did not give it.
    """
    if Path(value).is_dir():
        return Path(value)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    name, _, commit = value.partition("@")
    try:
        return Path(snapshot_download(name, revision=commit, ignore_patterns=_OTHER_FORMATS))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise BackendError(
            f"the model {value} cannot be had from the hub ({error}); give a local directory"
        ) from error
