from __future__ import annotations

from pathlib import Path

import pytest

from omnitrace_core.errors import ConfigError
from pipeline.config import load_config
from pipeline.settings_yaml import read_yaml

_BASE = "input: {path: in}\noutput: {path: out}\nmodel: {path: model}\n"
_BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{_BASE}run: {{id: a}}\nrun: {{id: b}}\n", "line 5: the key 'run' stands twice, first"),
        (
            f"{_BASE}run:\n  id: a\n  chunk_samples: 2\n  id: b\n",
            "line 7: the key 'id' stands twice",
        ),
        ("a: &a {x: 1}\nb: {<<: *a, <<: {x: 2}}\n", "line 2: the key '<<' stands twice"),
        (f"{_BASE}run:\n  <<: {{id: a}}\n  id: b\n  <<: {{id: c}}\n", "line 7: the key '<<' stand"),
        (f"{_BASE}1: x\n", "line 4: the key '1' is not text"),
        (f"{_BASE}~: x\n", "line 4: the key '~' is not text"),
        (f"{_BASE}? [a, b]\n: x\n", "line 4: the key 'sequence' is not text"),
        (f"{_BASE}run: {'[' * 50_000}", "line 4: nested deeper than 20 levels"),
        (f"{_BASE}run: {'{a: ' * 50_000}", "line 4: nested deeper than 20 levels"),
        ("- " * 50_000, "line 1: nested deeper than 20 levels"),
        (_BOMB, "line 4: more than 10,000 values, aliases included"),
        ("a: &a [*a]\n", r"line 1: \*a stands inside of what it names"),
        ("a: *b\n", "line 1: found undefined alias 'b'"),
        ("a: !!binary aGk=\n", "line 1: the tag '.*binary' is not read"),
        ("a: !mine b\n", "line 1: the tag '!mine' is not read"),
        ("input:\n\tpath: in\n", r"line 2: .*found character '\\t'"),
        (f"{_BASE}---\na: b\n", "line 4: expected a single document"),
        ('a: "\0"\n', "special characters are not allowed"),
        ("", "must be a mapping of sections"),
        ("# only a comment\n", "must be a mapping of sections"),
        ("[1, 2]", "must be a mapping of sections"),
        ("#" * 2**21, "larger than 1,048,576 bytes"),
    ],
    ids=range(22),
)
def test_file_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(str(file))
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [_BASE.encode("utf-16"), _BASE.encode() + b"# \xff\n"])
def test_file_that_is_not_utf8(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read: 'utf-8' codec can't decode"):
        load_config(str(tmp_path / "run.yaml"))


def test_file_with_a_mark_of_its_encoding(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(_BASE, encoding="utf-8-sig")
    assert load_config(str(tmp_path / "run.yaml")).input.path == "in"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("32", 32),
        ("-1", -1),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("1.0e+20", 1e20),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        # Texts, which PyYAML reads as 8, 750, 1000, False, and a date.
        ("010", "010"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("no", "no"),
        ("2026-01-02", "2026-01-02"),
        ("2026-02-30", "2026-02-30"),
        ("!!str 1.10", "1.10"),
        ("'5'", "5"),
        ("cuda:0", "cuda:0"),
        ("[a, 1]", ["a", 1]),
    ],
)
def test_plain_values(text: str, value: object) -> None:
    found = read_yaml(text)
    assert found == value
    assert type(found) is type(value)


def test_anchors_and_merges() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\nd: {<<: [*a, {z: 4}]}\n"
    base = {"x": 1, "y": 2}
    assert read_yaml(text) == {"a": base, "b": {"x": 1, "y": 3}, "c": base, "d": {**base, "z": 4}}
