"""Secrets that samples and the environment hold reach no log, message, file or address column."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from omnitrace_core.addresses import plain_address, scrub, shown_address, shown_text
from omnitrace_core.errors import ConfigError
from pipeline.config import RunConfig, make_config
from pipeline.driver.run import run
from pipeline.settings_yaml import Tree
from tests.core.media_files import audio_bytes, beep
from tests.pipeline.made_runs import config_for, planned_run, rows
from tests.pipeline.traced_runs import stages_of
from tests.stages.chunks import user, write_shard

SECRET = "PLANTED"
# Keys of S3 may begin with a slash, or with what looks like a port; passwords hold anything.
SECRETS = (
    "PLANTED",
    "/PLANTED",
    "1/PLANTED",
    "p@a/PLANTED",
    "12:/PLANTED",
    "p?PLANTED",
    "p#PLANTED",
)
SCHEMES = (
    *("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hdfs", "hf", "memory", "oci", "oss"),
    *("https", "http", "ftp", "sftp", "smb", "webhdfs", "github", "gist", "git", "dask", "jupyter"),
    *("reference", "generic", "dropbox", "gdrive", "zip", "tar", "simplecache", "filecache"),
    *("file", "local", "unknown", "x+y"),
)
FORMS = (
    "{scheme}://me:PLANTED@host/a.wav",
    "{scheme}:///me:PLANTED@host/a.wav",
    "{scheme}://me:PLAN/TED@host/PLANTED@b/a.wav",
    "{scheme}://PLANTED@host/a.wav",
    "{scheme}://bucket/a.wav?X-Amz-Signature=PLANTED&x=s3://b/PLANTED",
    "{scheme}://bucket/a.wav#PLANTED::PLANTED",
    "{scheme}:/me:PLANTED@host/a.wav?sig=PLANTED",
    "{scheme}:me:PLANTED@host/a.wav?sig=PLANTED",
    "{scheme}::s3://me:PLANTED@bucket/a.wav?PLANTED",
    "zip://a.wav::{scheme}://me:PLANTED@bucket/a.zip#PLANTED",
    "{scheme}://\u001b[31mbucket/a.wav?PLANTED",
)
OTHERS = (
    "s3://bucket/a.wav?sig=PLANTED",
    "me:PLANTED@host/a.wav",
    "//me:PLANTED@host/a.wav",
    "s3://a?PLANTED",
    "?x://PLANTED",
    "s3://me:PLANTED",
    "s3://me:PLANTED::x::y@bucket/a.wav",
    "s3://arn:me:PLANTED@bucket/a.wav",
)
# In these the part before the @ is the container.
CONTAINERS = ("abfs", "abfss", "az", "oci")


def _addresses(schemes: Sequence[str] = SCHEMES, secret: str = SECRET) -> list[str]:
    """One with a slash in place of a user looks like a bucket and a name, and is left out."""
    made = [
        form.format(scheme=scheme)
        for scheme in schemes
        for form in FORMS
        if not (scheme in CONTAINERS and form.startswith("{scheme}://PLANTED@"))
    ]
    return [
        address.replace(SECRET, secret)
        for address in (*made, *OTHERS)
        if secret == SECRET or f":{SECRET}@" in address
    ]


def _write_input(folder: Path) -> int:
    """A sample per address, and one whose file has a query in its name and is read."""
    sound = folder / "beep.wav?PLANTED"
    sound.write_bytes(audio_bytes(beep(1.0, at=(0.5,)), 16_000))
    others = [a for secret in SECRETS[1:] for a in _addresses(("s3", "https", "abfs"), secret)]
    addresses = [f"file://{sound}", *_addresses(), *others]
    samples = [
        {"sample_id": f"{index}", "messages": [user({"type": "audio", "uri": address})]}
        for index, address in enumerate(addresses)
    ]
    write_shard(folder / "input" / "a.parquet", samples)
    return len(samples)


def _in_text(address: str) -> str:
    return scrub(f"cannot read {address}: forbidden ('{address}')")


def _assert_no_secrets(folder: Path) -> None:
    found = [file for file in folder.rglob("*") if file.is_file()]
    assert found
    for file in found:
        if file.suffix == ".parquet":
            text = json.dumps(pq.read_table(file).to_pylist(), default=str)
        else:
            text = file.read_bytes().decode("utf-8", "replace")
        assert SECRET not in text, f"{file}: …{text[max(text.index(SECRET) - 200, 0) :][:300]}"


def _config(folder: Path, **sections: Any) -> RunConfig:
    media = {"allow": ["s3://bucket/", "gs://bucket/"], **sections}
    # Chunks in one process: a child per decoder is not what is tested here.
    return config_for(folder, run={"chunk_samples": 100}, media={"isolate": False, **media})


@pytest.mark.parametrize("show", [plain_address, shown_address, scrub, _in_text, shown_text])
def test_addresses_are_shown_without_secrets(show: Callable[[str], str]) -> None:
    addresses = [address for secret in SECRETS for address in _addresses(SCHEMES, secret)]
    if show in (scrub, _in_text, shown_text):  # texts end at a space, and hold no bare schemes
        addresses = [address for address in addresses if not address.startswith("?")]
    leaks = {address: show(address) for address in addresses if SECRET in show(address)}
    assert not leaks


def test_what_the_tables_hold_is_shown_as_it_is() -> None:
    for address in (address for secret in SECRETS for address in _addresses(SCHEMES, secret)):
        plain = plain_address(address)
        assert plain_address(plain) == plain or "::x::y" in address


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("key", ["media.allow", "input.path", "output.path"])
def test_settings_are_refused_without_secrets(key: str, secret: str) -> None:
    for form in (
        "s3://me:{}@b/out",
        "https:///me:{}@b/out",
        "zip://x::s3://me:{}@b/",
        "s3://me:{}",
    ):
        if "@" in secret and not form.endswith(("out", "/")):
            continue  # this is a user, a word, and a bucket
        address = form.format(secret)
        value = [address] if key == "media.allow" else address
        section, _, name = key.partition(".")
        paths: Tree = {"input": {"path": "in"}, "output": {"path": "out"}, "model": {"path": "m"}}
        with pytest.raises(ConfigError) as caught:
            make_config({**paths, section: {name: value}}, (), "run.yaml")
        assert SECRET not in str(caught.value)
        with pytest.raises(ConfigError) as caught:
            make_config(paths, [f"{key}={json.dumps(value)}"], "run.yaml")
        assert SECRET not in str(caught.value)


def test_a_run_shows_no_secrets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With allowed stores whose client fails: S3 by an endpoint that is not a URL."""
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "HF_TOKEN"):
        monkeypatch.setenv(name, f"{SECRET}-{name}")
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://me:{SECRET}@[no-host/?{SECRET}")
    monkeypatch.chdir(tmp_path)
    n_samples = _write_input(tmp_path)
    planned = planned_run(_config(tmp_path))
    with caplog.at_level(logging.DEBUG):
        run(planned, stages_of(planned))
    samples = rows(planned.folder, "samples")
    assert len(samples) == n_samples
    codes = {row["error_code"] for row in samples}
    assert codes == {"", "media_denied", "media_missing"}
    # Some addresses were allowed, and the client of their store failed.
    assert any("not a valid address of an object" in row["message"] for row in samples)
    read = samples[0]
    assert read["status"] == "ok"
    assert read["media"][0]["uri"] == f"file://{tmp_path}/beep.wav"
    assert read["messages"][0]["content"][0]["uri"] == f"file://{tmp_path}/beep.wav"
    _assert_no_secrets(tmp_path / "output")
    ours = ("omnitrace_core", "stages", "pipeline")
    messages = [r.getMessage() for r in caplog.records if r.name.startswith(ours)]
    assert not [message for message in messages if SECRET in message]


@pytest.mark.ray
@pytest.mark.slow
def test_the_command_shows_no_secrets(tmp_path: Path, tiny_model: str) -> None:
    """A run on Ray with `-v`, and the commands on what it published."""
    n_samples = _write_input(tmp_path)
    config = tmp_path / "run.yaml"
    tree = {
        "input": {"path": str(tmp_path / "input")},
        "output": {"path": str(tmp_path / "output")},
        "model": {"path": tiny_model},
        "run": {"max_error_fraction": 1, "chunk_samples": n_samples},
        "media": {"allow": ["s3://bucket/"]},
        "decode": {"max_new_tokens": 2},
    }
    config.write_text(json.dumps(tree))
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": f"http://me:{SECRET}@[no-host/?{SECRET}",
        "AWS_ACCESS_KEY_ID": f"{SECRET}-id",
        "AWS_SECRET_ACCESS_KEY": f"{SECRET}-key",
        "HF_TOKEN": f"hf_{SECRET}",
    }
    output = str(tmp_path / "output")
    for verb in (["validate", str(config)], ["run", str(config)], ["inspect", output, "0"]):
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", *verb, "-v"],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert SECRET not in done.stdout + done.stderr
    _assert_no_secrets(tmp_path / "output")
