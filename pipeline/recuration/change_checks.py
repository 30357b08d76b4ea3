"""Check that a published run can be curated with other settings, and that DEST can be used."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from omnitrace_core.asr import SpeechChunker, load_engine
from omnitrace_core.errors import BackendError, ConfigError, UnknownName
from omnitrace_core.options import TraceOptions
from omnitrace_core.text.language import load_language_without_torch
from pipeline.config import RunConfig
from pipeline.from_json import from_json
from pipeline.run_folder.manifests import MANIFESTS
from pipeline.run_folder.stored_run import RUN_JSON, StoredRun
from pipeline.storage.addresses import absolute_path, is_url
from pipeline.storage.folder import Folder
from stages.arrow.table_schema import TABLES
from stages.settings_change import SettingsChange

# The old and the new value, by key.
Changed = Mapping[str, tuple[object, object]]

# Decides on the exit code, and affects no record.
ERROR_LIMIT = "run.max_error_fraction"
# Settings that take effect after the model.
_AFTER_THE_MODEL = (
    *("curation.", "spans.", "units.instructions"),
    *("trace.signals", "trace.projection", "trace.store", "trace.heatmaps"),
)
# Settings that can change only if the run kept the rows over prompt positions.
_NEED_POSITIONS = ("units.", "asr.")
# Settings that stored heat maps depend on.
_OF_HEATMAPS = ("spans.", "curation.pos_weighting")


def check_places(run_path: str, run: StoredRun, dest: str) -> None:
    """Check that neither of the run and the destination lies inside the other.

    Raises:
        ConfigError: one does.
    """
    destination = _real(dest)
    for source in (_real(run_path), _real(run.folder.root)):
        if f"{destination}/".startswith(f"{source}/") or f"{source}/".startswith(f"{destination}/"):
            raise ConfigError(
                f"DEST {dest!r} and the run in {source} must not contain each other: a "
                "reader of the outer folder would see spans twice; give a DEST elsewhere"
            )


def _real(path: str) -> str:
    path = absolute_path(path)
    return path if is_url(path) else os.path.realpath(path)


def check_dest(run: StoredRun, dest: Folder) -> None:
    """Check that the destination is empty, or holds an earlier curation of the same run.

    Raises:
        ConfigError: it holds something else, or is a file.
    """
    if dest.is_file():
        raise ConfigError(f"DEST {dest.root!r} is a file; give a folder")
    try:
        content = from_json(dict[str, Any], json.loads(dest.read(RUN_JSON)))
    except FileNotFoundError:
        if any(dest.names(place) for place in (*TABLES, MANIFESTS)):
            raise ConfigError(
                f"DEST {dest.root!r} holds tables without a run.json; give an empty folder"
            ) from None
        return
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{dest.url(RUN_JSON)} does not describe a run ({error}); delete the "
            "folder or give another"
        ) from error
    source = content.get("curated_from")
    source = source if isinstance(source, Mapping) else {}
    if (source.get("run_id"), source.get("run_date")) != (run.run_id, run.run_date):
        raise ConfigError(
            f"DEST {dest.root!r} holds the run {content.get('run_id')}, which was not curated from "
            f"{run.run_id} of {run.run_date}; give an empty folder"
        )


def check_traces(run: StoredRun) -> None:
    """Check that the run kept traces/. Raises: ConfigError."""
    trace = run.config.trace
    if trace.enabled and trace.store != "none":
        return
    reason = "trace.store=none" if trace.enabled else "trace.enabled=false"
    raise ConfigError(
        f"{run.folder.root} has no traces ({reason}), and curation starts from them; "
        "run it with trace.enabled=true and trace.store=units or positions"
    )


def check_changes(run: StoredRun, config: RunConfig, changed: Changed) -> None:
    """Check that the changed settings take effect after the model, and that their data was stored.

    Raises:
        ConfigError: a change needs a new run; the message names the key.
    """
    kept = run.config.trace.store
    for key, (old, new) in changed.items():
        if key == ERROR_LIMIT or key.startswith(_AFTER_THE_MODEL):
            continue
        change = f"{key}={new!r} (the run had {old!r})"
        if not key.startswith(_NEED_POSITIONS):
            raise ConfigError(f"{change} needs a new run: curation begins after the model")
        if kept != "positions":
            raise ConfigError(
                f"{change} needs a new run, with trace.store=positions: this one kept "
                f"trace.store={kept}, from which units cannot be cut again"
            )
    missing = [name for name in config.trace.signals if name not in run.config.trace.signals]
    if missing:
        raise ConfigError(
            f"trace.signals: the run did not trace {', '.join(missing)}, which needs a new run; "
            f"stored: {', '.join(run.config.trace.signals)}"
        )
    if kept != "positions":
        _check_without_positions(run.config.trace, config.trace, changed)


def _check_without_positions(old: TraceOptions, new: TraceOptions, changed: Changed) -> None:
    """Heat maps can be dropped or copied, but not drawn again. Raises: ConfigError."""
    if new.store == "positions":
        raise ConfigError(
            f"trace.store=positions needs a new run: this one kept trace.store={old.store}"
        )
    if not new.heatmaps:
        return
    if not old.heatmaps:
        raise ConfigError(
            "trace.heatmaps=true needs a new run, with it or with trace.store=positions: this one "
            f"kept trace.store={old.store}, from which heat maps cannot be drawn"
        )
    others = [key for key in changed if key.startswith(_OF_HEATMAPS)]
    if new.signals[0] != old.signals[0]:
        others.append("trace.signals")
    if others:
        raise ConfigError(
            f"the stored heat maps do not fit another {', '.join(others)}, and without positions "
            "they cannot be drawn again; set trace.heatmaps=false, or run again with "
            "trace.store=positions"
        )


def check_tools(change: SettingsChange) -> None:
    """Check that the pipelines and engines that are needed can be loaded. Raises: ConfigError."""
    try:
        if change.cuts_spans or change.cuts_units:
            load_language_without_torch(change.new.spans.pipeline)
        if change.finds_speech:
            load_engine(change.new.asr)
            SpeechChunker(change.new.asr)
    except (BackendError, UnknownName) as error:
        raise ConfigError(str(error)) from error
