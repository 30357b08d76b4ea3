"""Speech models are directories, or hub ids with a commit."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

from omnitrace_core.asr.engines.model_folder import check_model, check_package, model_folder
from omnitrace_core.errors import BackendError

COMMIT = "0123456789" * 4


@pytest.mark.parametrize("value", [f"openai/whisper-tiny@{COMMIT}", f"bert@{COMMIT}"])
def test_pinned_hub_ids_are_fetched_at_their_commit(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    downloads: list[tuple[str, str]] = []

    def snapshot_download(name: str, *, revision: str, ignore_patterns: list[str]) -> str:
        downloads.append((name, revision))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert check_model("asr.model", value, "whisper") == value
    assert downloads == []
    assert model_folder(value) == tmp_path
    assert downloads == [(value.partition("@")[0], COMMIT)]


def test_local_directories_are_used_as_they_are(tmp_path: Path) -> None:
    assert check_model("asr.model", str(tmp_path), "whisper") == str(tmp_path)
    assert model_folder(str(tmp_path)) == tmp_path


def test_an_unreachable_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **settings: object) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(BackendError, match=r"cannot be downloaded .*no route.*local directory"):
        model_folder(f"a/b@{COMMIT}")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, r"asr\.engine=whisper needs asr\.model"),
        ("openai/whisper-tiny", "a hub id needs its commit"),
        (f"a/b/c@{COMMIT}", "a hub id needs its commit"),
        (f"a/b@{COMMIT[1:]}", "a hub id needs its commit"),
        ("/no/such/folder", "is not a local directory"),
    ],
)
def test_values_that_are_neither(value: str | None, message: str) -> None:
    with pytest.raises(BackendError, match=message):
        check_model("asr.model", value, "whisper")


def test_a_missing_package() -> None:
    with pytest.raises(
        BackendError, match=r"needs the package no_such: pip install 'omnitrace-ray\[x"
    ):
        check_package("no_such", "parrot", "x")
