"""Every field of a run's config refuses absurd values, by its key, in the file and as override."""

from __future__ import annotations

import datetime
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from omnitrace_core.errors import ConfigError
from omnitrace_core.printable import printable
from pipeline.cli import main
from pipeline.config import RunConfig, load_config

_BASE = {"input": {"path": "in"}, "output": {"path": "out"}, "model": {"path": "model"}}
_HUGE = "1" + "0" * 30

# As YAML, by the kind of field.
_ANY = ["{a: {b: c}}", "[[[1]]]", '"\\0"', '"\\uD800"', '" "', '""', "x" * 5000]
_NUMBER = ["true", "False", ".inf", "-.inf", ".nan", "1e999", "'inf'", "'nan'", _HUGE, f"-{_HUGE}"]
_NUMBER += ["9" * 5000, "2026-02-30", "12:30", "0x10", "yes", "[1]", "x"]
_ABSURD: dict[object, list[str]] = {
    int: [*_NUMBER, "1.5"],
    float: _NUMBER,
    bool: ["2", "1.5", ".inf", "x", "[true]", "2026-02-30"],
    str: ["5", ".inf", "true", "[a]", "{a: b}"],
    Literal: ["nonsense", "5", "true", "[a]"],
    datetime.date: [
        *("2026-02-30", "'2026-02-30'", "20260230", "'86400'", "0", "1.5", "true", ".nan"),
        *("2026-13-01", "26-1-1", "0000-01-01", "2026-01-01T00:00:00", "[2026-01-01]"),
    ],
    tuple: ["x", "5", "[true]", "[.inf]", "[[a]]", "[null]", "['']", '["\\0"]', "{a: b}"],
    dict: ["x", "5", "[a]", "{a: 1}", "{a: b}"],
}


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        hint = field.annotation
        if isinstance(hint, type) and issubclass(hint, BaseModel):
            yield from _fields(hint, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", hint


def _kind(hint: Any) -> object:
    hints = [inner for inner in get_args(hint) if inner is not type(None)]
    if get_origin(hint) in (types.UnionType, Union):
        return _kind(hints[-1])
    return get_origin(hint) or hint


def _absurd_values(hint: Any) -> list[str]:
    values = [*_ANY, *_ABSURD[_kind(hint)]]
    return values if type(None) in get_args(hint) else [*values, "null"]


_CASES = dict(_fields(RunConfig))
# An id may be written as a number.
_VALID = {("run.id", "5")}


@pytest.mark.parametrize("key", _CASES)
def test_absurd_values_are_refused(key: str, tmp_path: Path) -> None:
    file, *sections, last = tmp_path / "run.yaml", *key.split(".")
    file.write_text(yaml.safe_dump(_BASE))
    for value in _absurd_values(_CASES[key]):
        if (key, value) in _VALID:
            continue
        _assert_refused(str(file), [f"{key}={value}"], key)
        tree = {name: dict(settings) for name, settings in _BASE.items()}
        for section in sections:
            tree.setdefault(section, {})[last] = "PLACE"
        changed = tmp_path / "changed.yaml"
        changed.write_text(yaml.safe_dump(tree).replace("PLACE", value))
        _assert_refused(str(changed), [], key)


def _assert_refused(config: str, overrides: list[str], key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(config, overrides)
    message = str(caught.value)
    assert f"{key}=" in message or f"{key}." in message or f"{key}:" in message, message
    assert len(message) < 1500, message
    assert printable(message, lines=True) == message


def test_every_kind_of_field_has_absurd_values() -> None:
    assert {_kind(hint) for hint in _CASES.values()} == set(_ABSURD)
    assert len(_CASES) > 80


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (f"run.id={'a' * 300}", r"run\.id='a.*': .*at most 128 characters"),
        (f"run.id={'a' * 129}", r"at most 128 characters"),
        ("run.id=1.10", r"run\.id=1\.1: a number with a fraction; quote it"),
        ("run.date=2026-02-30", r"run\.date='2026-02-30': .*day value is outside"),
        ("run.lease_s=.inf", r"run\.lease_s=inf: Input should be a finite number"),
        ("ray.decode_cpus=1e-9", r"ray\.decode_cpus=1e-09: .*greater than or equal to 0\.0001"),
        ("model.gpus_per_replica=1.5", r"above 1, Ray reserves only whole GPUs"),
        ("model.device=banana", r"model\.device='banana': no such device; valid: auto, cpu, cuda"),
        ("asr.device=cuda:x", r"asr\.device='cuda:x': no such device"),
        ("units.grid=[1000, 2]", r"units\.grid\.0=1000: .*less than or equal to 256"),
        ("trace.head_files={a: b}", r"trace\.head_files: set by the pipeline; name each file in"),
        ("input.path=s3://me:secret@b/x", r"b/x': a path must not hold credentials"),
        (f"run={'[' * 100_000}", r"override run: .*line 1: nested deeper than 20 levels"),
        ("run={id: a, id: b}", r"override run: .*the key 'id' stands twice, first in line 1"),
        ("run={1: 2}", r"override run: .*the key '1' is not text"),
        ("run.id=!!python/name:os.system", r"the tag '.*python/name:os\.system' is not read"),
        (f"{'.'.join('a' * 5000)}=1", r"a: unknown key"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, override: str, message: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(_BASE))
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(str(file), [override])
    assert "secret" not in str(caught.value)


def test_settings_end_a_command_with_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(_BASE))
    for verb in ("validate", "run"):
        assert main([verb, str(file), "run.date=2026-02-30"]) == 2
        assert "run.date='2026-02-30'" in capsys.readouterr().err
    assert main(["run", str(file), "--address", ""]) == 2
    assert "ray.address='': is blank" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ingest", "in.json", "out", "--shard-rows", "0"], "0 is not from 1 to"),
        (["ingest", "in.json", "out", "--shard-rows", _HUGE], "is not from 1 to"),
        (["curate", "run", "out", "--workers", "1e9"], "invalid count value: '1e9'"),
        (["curate", "run", "out", "--workers", _HUGE], "is not from 1 to"),
        # A negative limit would leave out the last samples.
        (["trace", "in.json", "--limit", "-1"], "-1 is not from 1 to"),
        (["trace", "in.json", "--limit", "0"], "0 is not from 1 to"),
    ],
)
def test_counts_of_the_command_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--qwen-video-fps", "nan", r"media.video_fps=nan: Input should be a finite number"),
        ("--qwen-video-fps", "1e999", r"media.video_fps=inf"),
        ("--video-max-pixels", "-1", r"media.video_total_pixels=-1"),
        ("--max-new-tokens", _HUGE, r"decode.max_new_tokens=1000"),
        ("--web-hosts", "a\0b", r"media.web_hosts"),
        ("--method", "", r"trace.signals"),
        ("--model", " ", r"model.path=' ': is blank"),
    ],
)
def test_flags_of_trace(
    flag: str, value: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.json").write_text('{"id": 1, "question": "Why?"}')
    arguments = ["trace", str(tmp_path / "in.json"), "--model", "model", f"{flag}={value}"]
    assert main(arguments) == 2
    assert message in capsys.readouterr().err
