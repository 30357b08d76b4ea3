"""Imports between folders follow a table.

A module beside the folders of a package has an entry like a folder. Imports inside functions and
under TYPE_CHECKING count like all others. A folder comes after all folders that it imports, so
there are no import circles.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = ("omnitrace_core", "stages", "pipeline")
# Modules that all others use. They import each other and the rules in `access`.
BASE_MODULES = (
    "addresses",
    "base_options",
    "decoded_media",
    "errors",
    "media_rules",
    "options",
    "positions",
    "printable",
    "records",
)

ALLOWED: dict[str, set[str]] = {
    "omnitrace_core.access": set(),
    "omnitrace_core base modules": {"omnitrace_core.access"},
    "omnitrace_core.runtime": {"omnitrace_core base modules"},
    "omnitrace_core.storage": {"omnitrace_core base modules", "omnitrace_core.runtime"},
    "omnitrace_core.samples": {"omnitrace_core base modules"},
    "omnitrace_core.media.progress": set(),
    "omnitrace_core.media.isolation": {
        "omnitrace_core base modules",
        "omnitrace_core.runtime",
        "omnitrace_core.media.progress",
    },
    "omnitrace_core.media.fetching": {
        "omnitrace_core.access",
        "omnitrace_core base modules",
        "omnitrace_core.runtime",
        "omnitrace_core.storage",
        "omnitrace_core.media.progress",
    },
    "omnitrace_core.media.containers": {"omnitrace_core base modules"},
    "omnitrace_core.media.ffmpeg": {"omnitrace_core base modules", "omnitrace_core.media.progress"},
    "omnitrace_core.media.frames": {
        "omnitrace_core base modules",
        "omnitrace_core.media.progress",
        "omnitrace_core.media.containers",
        "omnitrace_core.media.ffmpeg",
    },
    "omnitrace_core.media.sound": {
        "omnitrace_core base modules",
        "omnitrace_core.media.progress",
        "omnitrace_core.media.containers",
        "omnitrace_core.media.ffmpeg",
    },
    "omnitrace_core.media.pictures": {
        "omnitrace_core base modules",
        "omnitrace_core.media.progress",
        "omnitrace_core.media.containers",
    },
    "omnitrace_core.media": {
        "omnitrace_core.media.pictures",
        "omnitrace_core.media.frames",
        "omnitrace_core.media.sound",
        "omnitrace_core base modules",
        "omnitrace_core.runtime",
        "omnitrace_core.samples",
        "omnitrace_core.media.progress",
        "omnitrace_core.media.isolation",
        "omnitrace_core.media.fetching",
        "omnitrace_core.media.containers",
    },
    "omnitrace_core.asr.engines": {"omnitrace_core base modules", "omnitrace_core.runtime"},
    "omnitrace_core.asr.chunking": {
        "omnitrace_core base modules",
        "omnitrace_core.runtime",
        "omnitrace_core.asr.engines",
    },
    "omnitrace_core.asr": {"omnitrace_core.asr.engines", "omnitrace_core.asr.chunking"},
    "omnitrace_core.text": {"omnitrace_core base modules"},
    "omnitrace_core.units": {
        "omnitrace_core base modules",
        "omnitrace_core.asr.engines",
        "omnitrace_core.text",
    },
    "omnitrace_core.reader": {
        "omnitrace_core base modules",
        "omnitrace_core.samples",
        "omnitrace_core.media.progress",
        "omnitrace_core.media",
        "omnitrace_core.asr",
        "omnitrace_core.text",
        "omnitrace_core.units",
    },
    "omnitrace_core.backends": {
        "omnitrace_core base modules",
        "omnitrace_core.runtime",
        "omnitrace_core.samples",
        "omnitrace_core.units",
        "omnitrace_core.reader",
    },
    "omnitrace_core.tracing.signals": {"omnitrace_core base modules", "omnitrace_core.storage"},
    "omnitrace_core.tracing.replay": {
        "omnitrace_core base modules",
        "omnitrace_core.backends",
        "omnitrace_core.tracing.signals",
    },
    "omnitrace_core.tracing": {
        "omnitrace_core base modules",
        "omnitrace_core.runtime",
        "omnitrace_core.units",
        "omnitrace_core.reader",
        "omnitrace_core.backends",
        "omnitrace_core.tracing.signals",
        "omnitrace_core.tracing.replay",
    },
    "omnitrace_core.attribution": {"omnitrace_core base modules"},
    "omnitrace_core.display": {"omnitrace_core base modules"},
    "omnitrace_core.result": {
        "omnitrace_core base modules",
        "omnitrace_core.attribution",
        "omnitrace_core.display",
    },
    "omnitrace_core.release": {"omnitrace_core base modules", "omnitrace_core.asr"},
    "omnitrace_core.tracer": {
        "omnitrace_core base modules",
        "omnitrace_core.samples",
        "omnitrace_core.text",
        "omnitrace_core.reader",
        "omnitrace_core.backends",
        "omnitrace_core.tracing",
        "omnitrace_core.attribution",
        "omnitrace_core.result",
        "omnitrace_core.release",
    },
    "omnitrace_core.signals": {"omnitrace_core.tracing.signals"},
    "stages.guards": {"omnitrace_core base modules", "omnitrace_core.runtime"},
    "stages.arrow": {
        "omnitrace_core base modules",
        "omnitrace_core.samples",
        "omnitrace_core.units",
        "omnitrace_core.attribution",
        "stages.guards",
    },
    "stages.read_samples": {
        "omnitrace_core base modules",
        "omnitrace_core.storage",
        "omnitrace_core.samples",
        "stages.guards",
        "stages.arrow",
    },
    "stages.records": {
        "omnitrace_core base modules",
        "omnitrace_core.attribution",
        "stages.guards",
        "stages.arrow",
    },
    "stages.curate_spans": {
        "omnitrace_core base modules",
        "omnitrace_core.text",
        "stages.guards",
        "stages.arrow",
        "stages.records",
    },
    "stages.chunk_speech": {
        "omnitrace_core base modules",
        "omnitrace_core.text",
        "omnitrace_core.units",
        "omnitrace_core.reader",
        "stages.guards",
        "stages.arrow",
    },
    "stages.decode_media": {
        "omnitrace_core base modules",
        "omnitrace_core.media",
        "omnitrace_core.reader",
        "stages.guards",
        "stages.arrow",
    },
    "stages.settings_change": {"omnitrace_core base modules", "stages.arrow", "stages.records"},
    "stages.full_addresses": {
        "omnitrace_core base modules",
        "omnitrace_core.runtime",
        "omnitrace_core.storage",
        "omnitrace_core.samples",
        "stages.arrow",
    },
    "stages.refold_units": {
        "omnitrace_core base modules",
        "omnitrace_core.units",
        "omnitrace_core.reader",
        "omnitrace_core.tracing",
        "stages.arrow",
        "stages.records",
        "stages.full_addresses",
    },
    "stages.trace_decode": {
        "omnitrace_core base modules",
        "omnitrace_core.tracing",
        "stages.guards",
        "stages.arrow",
    },
    "stages.recurate": {
        "omnitrace_core base modules",
        "omnitrace_core.text",
        "omnitrace_core.reader",
        "stages.guards",
        "stages.arrow",
        "stages.records",
        "stages.settings_change",
        "stages.full_addresses",
        "stages.refold_units",
    },
    "pipeline.storage": {"omnitrace_core base modules", "omnitrace_core.storage"},
    "pipeline.counters": {"stages.arrow"},
    "pipeline.plurals": set(),
    "pipeline.node_tries": {"omnitrace_core base modules"},
    "pipeline.settings_yaml": {"omnitrace_core base modules", "omnitrace_core.samples"},
    "pipeline.from_json": set(),
    "pipeline.totals": {"stages.arrow", "pipeline.from_json"},
    "pipeline.cluster": {"omnitrace_core base modules"},
    "pipeline.head_address": set(),
    "pipeline.config": {
        "omnitrace_core base modules",
        "omnitrace_core.samples",
        "omnitrace_core.reader",
        "omnitrace_core.tracing.signals",
        "stages.arrow",
        "pipeline.head_address",
        "pipeline.settings_yaml",
        "pipeline.storage",
    },
    "pipeline.planning": {
        "omnitrace_core.access",
        "omnitrace_core base modules",
        "omnitrace_core.runtime",
        "omnitrace_core.storage",
        "omnitrace_core.backends",
        "stages.arrow",
        "pipeline.plurals",
        "pipeline.storage",
        "pipeline.config",
    },
    "pipeline.run_folder": {
        "omnitrace_core base modules",
        "stages.guards",
        "stages.arrow",
        "pipeline.plurals",
        "pipeline.settings_yaml",
        "pipeline.totals",
        "pipeline.from_json",
        "pipeline.storage",
        "pipeline.config",
        "pipeline.planning",
    },
    "pipeline.run_folder.checks": {
        "omnitrace_core base modules",
        "stages.arrow",
        "pipeline.plurals",
        "pipeline.storage",
        "pipeline.planning",
        "pipeline.run_folder",
    },
    "pipeline.retrying": {
        "omnitrace_core base modules",
        "stages.arrow",
        "pipeline.plurals",
        "pipeline.storage",
        "pipeline.config",
        "pipeline.planning",
        "pipeline.run_folder",
    },
    "pipeline.graph": {
        "omnitrace_core base modules",
        "stages.arrow",
        "stages.read_samples",
        "stages.records",
        "stages.curate_spans",
        "stages.chunk_speech",
        "stages.decode_media",
        "stages.trace_decode",
        "pipeline.counters",
        "pipeline.node_tries",
        "pipeline.config",
        "pipeline.planning",
        "pipeline.run_folder",
    },
    "pipeline.driver": {
        "omnitrace_core base modules",
        "omnitrace_core.asr",
        "omnitrace_core.text",
        "omnitrace_core.backends",
        "omnitrace_core.tracing.signals",
        "stages.arrow",
        "stages.records",
        "pipeline.plurals",
        "pipeline.cluster",
        "pipeline.storage",
        "pipeline.head_address",
        "pipeline.config",
        "pipeline.planning",
        "pipeline.run_folder",
        "pipeline.run_folder.checks",
        "pipeline.retrying",
        "pipeline.graph",
    },
    "pipeline.recuration": {
        "omnitrace_core base modules",
        "omnitrace_core.asr",
        "omnitrace_core.text",
        "stages.arrow",
        "stages.records",
        "stages.recurate",
        "stages.settings_change",
        "stages.full_addresses",
        "pipeline.settings_yaml",
        "pipeline.from_json",
        "pipeline.storage",
        "pipeline.config",
        "pipeline.planning",
        "pipeline.run_folder",
        "pipeline.run_folder.checks",
        "pipeline.driver",
    },
    "pipeline.commands": {
        "omnitrace_core.access",
        "omnitrace_core base modules",
        "omnitrace_core.runtime",
        "omnitrace_core.storage",
        "omnitrace_core.samples",
        "omnitrace_core.asr",
        "omnitrace_core.result",
        "omnitrace_core.tracer",
        "stages.guards",
        "stages.arrow",
        "stages.records",
        "stages.settings_change",
        "pipeline.plurals",
        "pipeline.storage",
        "pipeline.config",
        "pipeline.planning",
        "pipeline.run_folder",
        "pipeline.retrying",
        "pipeline.recuration",
    },
    "pipeline.cli": {
        "omnitrace_core base modules",
        "pipeline.plurals",
        "pipeline.config",
        "pipeline.planning",
        "pipeline.run_folder",
        "pipeline.driver",
        "pipeline.recuration",
        "pipeline.commands",
    },
    "pipeline.__main__": {"pipeline.cli"},
}


def test_folders_import_what_the_table_allows() -> None:
    found: dict[str, set[str]] = {}
    for folder, other, where in _imports():
        found.setdefault(folder, set()).add(other)
        assert other in ALLOWED.get(folder, set()), (
            f"{where}: {folder} may not import {other}; move the shared code to a folder that "
            "both may import, or change the table and give the reason"
        )
    # An entry that no import uses would allow a new import without notice.
    for folder, allowed in ALLOWED.items():
        assert allowed == found.get(folder, set()), folder


def test_every_folder_is_in_the_table() -> None:
    assert {_folder_of(module) for module, _ in _modules()} == set(ALLOWED)


def test_folders_come_after_those_that_they_import() -> None:
    order = list(ALLOWED)
    for folder, allowed in ALLOWED.items():
        for other in allowed:
            assert order.index(other) < order.index(folder), (
                f"{folder} must come after {other} in the table"
            )


@pytest.mark.parametrize("package", ["omnitrace_core", "stages"])
def test_only_the_pipeline_imports_ray(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert "ray" not in {name.split(".")[0] for name in _imported(node)}, file


@pytest.mark.parametrize("package", PACKAGES)
def test_a_folder_holds_about_a_dozen_modules(package: str) -> None:
    for folder in [ROOT / package, *(ROOT / package).rglob("*/")]:
        modules = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
        assert len(modules) <= 15, f"{folder}: {len(modules)} modules side by side"


def _imports() -> Iterator[tuple[str, str, str]]:
    """(folder, folder that it imports, file and line) of every import across folders."""
    for module, file in _modules():
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Import | ast.ImportFrom):
                continue
            for name in _imported(node):
                folder, other = _folder_of(module), _folder_of(name)
                # The root of a package exports public names from all of its folders.
                if name.split(".")[0] in PACKAGES and other != folder and name not in PACKAGES:
                    yield folder, other, f"{file.relative_to(ROOT)}:{node.lineno}"


def _modules() -> Iterator[tuple[str, Path]]:
    """(dotted name, file) of every module except the packages' roots, which only export names."""
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            if name not in PACKAGES:
                yield name, file


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    """Dotted names of the modules that a statement imports, or imports something from."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not node.module:
        return []
    return [
        full if _is_module(full := f"{node.module}.{alias.name}") else node.module
        for alias in node.names
    ]


def _is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def _folder_of(module: str) -> str:
    """The folder of a module; a module beside the folders stands for itself."""
    package, *rest = module.split(".")
    if package == "omnitrace_core" and rest and rest[0] in BASE_MODULES:
        return "omnitrace_core base modules"
    if len(rest) <= 1 or ROOT.joinpath(package, *rest).is_dir():
        return module
    return ".".join([package, *rest[:-1]])
