"""Find a published run and read back its settings, to work on it again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from omnitrace_core.errors import ConfigError
from omnitrace_core.media_rules import MediaRules
from pipeline.config import RunConfig, make_config
from pipeline.from_json import from_json
from pipeline.run_folder.manifests import Manifest, read_manifests
from pipeline.run_folder.verdict import Verdict, n_finished_shards
from pipeline.settings_yaml import Tree
from pipeline.storage.folder import Folder
from stages.arrow.table_schema import SCHEMA_VERSION

RUN_JSON = "run.json"
# Fields of the verdict that run.json has too.
_RECORDED = (
    "times",
    "n_rows",
    "n_ok",
    "n_error",
    "n_spans",
    "by_code",
    "by_stage",
    "n_shards",
    "n_published",
    "totals",
    "n_shards_with_totals",
)


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A published run, as its folder describes it.

    config: its settings; settings: the same as the JSON tree in run.json. rules: how the model
    wants its media; None if run.json does not have them. manifests: of the shards that were
    published with these settings, by the name of the input shard. finished: whether these are all.
    """

    folder: Folder
    run_id: str
    run_date: str
    fingerprint: str
    config: RunConfig
    settings: Tree
    rules: MediaRules | None
    manifests: dict[str, Manifest]
    finished: bool


def find_run(path: str) -> StoredRun:
    """The run in this folder, or the only one below it.

    Raises:
        ConfigError: there is none, there are several, or it cannot be worked on.
        RunError: one of its manifests cannot be read.
    """
    folder = _folder_of(path)
    where = folder.url(RUN_JSON)
    try:
        content = from_json(dict[str, Any], json.loads(folder.read(RUN_JSON)))
        version = from_json(int, content["schema_version"])
        settings = from_json(dict[str, Any], content["config"])
        names = [from_json(str, content[key]) for key in ("run_id", "run_date", "fingerprint")]
        given = content.get("media_rules")
        rules = from_json(MediaRules, asdict(MediaRules(**given))) if given else None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{where} does not hold the settings of a run ({error!r})") from error
    if version > SCHEMA_VERSION:
        raise ConfigError(
            f"{where}: schema version {version}, and this OmniTrace knows {SCHEMA_VERSION}; "
            "install the one that made the run, or a newer one"
        )
    run_id, run_date, fingerprint = names
    # A manifest without a key is not valid: its shard is being published again.
    manifests = {
        name: manifest
        for name, manifest in read_manifests(folder).items()
        if manifest.key and manifest.fingerprint == fingerprint
    }
    return StoredRun(
        folder=folder,
        run_id=run_id,
        run_date=run_date,
        fingerprint=fingerprint,
        config=make_config(settings, (), where),
        settings=settings,
        rules=rules,
        manifests=manifests,
        # Manifests may have been removed since.
        finished=n_finished_shards(folder) == len(manifests),
    )


def record_totals(folder: Folder, verdict: Verdict, confirm: Callable[[], None]) -> None:
    """Put the times, rows and totals of a verdict into run.json, if that is written.

    confirm: see `Folder.replace`.

    Raises:
        FileExistsError: others keep writing the file, though `confirm` does not raise.
    """
    try:
        content = dict(json.loads(folder.read(RUN_JSON)))
    except (FileNotFoundError, ValueError, TypeError):
        return
    stored = asdict(verdict)
    content |= {name: stored[name] for name in _RECORDED}
    folder.replace(RUN_JSON, json.dumps(content, indent=1).encode(), confirm)


def _folder_of(path: str) -> Folder:
    folder = Folder(path)
    if folder.exists(RUN_JSON):
        return folder
    found = [name for name in folder.tree(RUN_JSON) if name.rpartition("/")[2] == RUN_JSON]
    if not found:
        raise ConfigError(
            f"{path!r} holds no run (no {RUN_JSON}); give a run's folder, "
            "<output.path>/run_date=.../run_id=..., or one above it"
        )
    if len(found) > 1:
        shown = "\n".join(f"  {folder.url(name.rpartition('/')[0])}" for name in found[:10])
        raise ConfigError(f"{path!r} holds {len(found)} runs; name one of them:\n{shown}")
    return folder / found[0].rpartition("/")[0]
