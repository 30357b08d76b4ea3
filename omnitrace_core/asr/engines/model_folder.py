"""Check that an engine's packages and models are there, and find the files of a model."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from omnitrace_core.errors import BackendError

_PINNED_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?@[0-9a-f]{40}")
# The same weights in the formats of other libraries.
_OTHER_FORMATS = ["*.h5", "*.msgpack", "*.onnx", "*.onnx_data", "*.ot", "*.tflite"]


def check_package(name: str, engine: str, extra: str) -> None:
    """Check that a package is installed, without importing it.

    extra: the extra of this distribution that installs the package.

    Raises:
        BackendError: the package is not installed.
    """
    if importlib.util.find_spec(name) is None:
        raise BackendError(
            f"asr.engine={engine} needs the package {name}: pip install 'omnitrace-ray[{extra}]' "
            "-c constraints.txt, or choose another engine, such as vad"
        )


def check_model(key: str, value: str | None, engine: str) -> str:
    """Check that a model is an existing directory or a pinned hub id; nothing is downloaded.

    key: the setting that names the model; value: what it is set to, which is returned.

    Raises:
        BackendError: the value is neither.
    """
    if value is None:
        raise BackendError(f"asr.engine={engine} needs {key}: a directory, or hub-id@commit")
    if not Path(value).is_dir() and not _PINNED_HUB_ID.fullmatch(value):
        raise BackendError(
            f"{key}={value!r} is not a local directory, and a hub id needs its commit: "
            "name@<the 40 digits on the model's page>"
        )
    return value


def model_folder(value: str) -> Path:
    """The directory of a checked model; one that is named by a hub id is downloaded first.

    Raises:
        BackendError: the hub does not deliver the model.
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
            f"the model {value} cannot be downloaded from the hub ({error}); give a local directory"
        ) from error
