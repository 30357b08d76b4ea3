"""The README's commands and code run as they stand, in order, where `make demo` has run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pipeline.cli import main, parse_arguments
from tests.conftest import ROOT
from tests.guaranteed import guaranteed_files
from tests.pipeline.conftest import local_ray
from training.demo.corpus import make_corpus

__all__ = ["local_ray"]

PACKAGES = ("omnitrace_core", "stages", "pipeline", "tests")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks_of(document: str) -> list[tuple[str, str]]:
    """Language and text of its code blocks."""
    return re.findall(r"```(\w+)\n(.*?)```", document, flags=re.DOTALL)


BLOCKS = blocks_of(README)


def commands(name: str, blocks: list[tuple[str, str]] = BLOCKS) -> list[list[str]]:
    """Command lines of the shell blocks that begin with `name`."""
    shell = "\n".join(body for language, body in blocks if language == "sh").replace("\\\n", " ")
    lines = [shlex.split(line, comments=True) for line in shell.splitlines()]
    return [line for line in lines if line and line[0] == name]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Path:
    """A folder in which the steps of `make demo` were done."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "configs").symlink_to(ROOT / "configs")
    make_corpus(folder / "out/demo/corpus", planted=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["ingest", "out/demo/corpus/samples.jsonl", "out/demo/input"]) == 0
        assert main(["run", "configs/quickstart.yaml"]) == 0
    return folder


def test_commands_run(
    demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo)
    verbs = ["ingest", "validate", "run", "inspect", "curate", "curate", "inspect"]
    assert [line[1] for line in commands("omnitrace")] == verbs
    for line in commands("omnitrace"):
        assert main(line[1:]) == 0, line
    shown = capsys.readouterr().out
    assert "32 samples: 32 ok, 0 errors" in shown
    assert "The triangle is white." in shown


def test_python_runs(
    demo: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo)
    blocks = [body for language, body in BLOCKS if language == "python"]
    assert len(blocks) == 5
    names: dict[str, object] = {"__name__": "readme"}
    for body in blocks:
        exec(compile(body, "README.md", "exec"), names)
    shown = capsys.readouterr().out
    assert "There is a red circle on the left." in shown
    assert re.findall(r"^' (tunnel|hotel)' 0\.\d\d .* brought the (\w+)", shown, flags=re.M) == [
        ("tunnel", "shovel"),
        ("hotel", "plate"),
    ]


def test_make_targets_and_named_files_exist() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {line[1] for line in commands("make")} <= set(targets)
    for path in re.findall(r"`((?:\w+/)*[\w.]+\.(?:py|ya?ml))`", README):
        inside = (list((ROOT / package).rglob(path)) for package in PACKAGES)
        assert (ROOT / path).exists() or any(inside), f"README names {path}, which does not exist"


def test_tree_names_every_module_of_the_core() -> None:
    tree = README.split("## Where things are")[1].split("```")[1]
    for file in (ROOT / "omnitrace_core").glob("*.py"):
        if file.stem not in ("__init__", "torchvision_shim"):
            assert file.stem in tree, f"the README's tree does not name {file.name}"


def test_commands_in_the_page_on_clusters_parse() -> None:
    document = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    lines = commands("omnitrace", blocks_of(document))
    assert {parse_arguments(line[1:]).verb for line in lines} == {"ingest", "run"}
    roots = [line for line in lines if "--media-root" in line or "--inline-media" in line]
    assert len(roots) == 2
    assert commands("ray") == [], "only docs/cluster.md has these commands"


def test_guarantees_name_tests_that_exist() -> None:
    """`make faults` runs the files of these tests."""
    assert len(guaranteed_files()) > 10
