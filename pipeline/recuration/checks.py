"""What may be asked of a published run: settings behind the model, of which it stored enough."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from omnitrace_core.asr import SpeechChunker, load_engine
from omnitrace_core.errors import BackendError, ConfigError, UnknownName
from omnitrace_core.options import TraceOptions
from omnitrace_core.text.language import load_lean_language
from pipeline.config import RunConfig
from pipeline.run_folder.manifests import MANIFESTS
from pipeline.run_folder.stored_run import RUN_JSON, StoredRun
from pipeline.storage.folder import Folder, absolute_path
from stages.arrow.schema import TABLES
from stages.recurate import Change

# Before and now, by key.
Changed = Mapping[str, tuple[object, object]]

# It judges records and does not shape them.
JUDGES = "run.max_error_fraction"
_BEHIND_THE_MODEL = (
    *("curation.", "spans.", "units.instructions"),
    *("trace.signals", "trace.projection", "trace.store", "trace.heatmaps"),
)
_OF_POSITIONS = ("units.", "asr.")
_OF_HEATMAPS = ("spans.", "curation.pos_weighting")


def check_places(run_path: str, run: StoredRun, dest: str) -> None:
    """A destination of its own. Raises: ConfigError."""
    mine = _real(dest)
    for taken in (_real(run_path), _real(run.folder.root)):
        if f"{mine}/".startswith(f"{taken}/") or f"{taken}/".startswith(f"{mine}/"):
            raise ConfigError(
                f"DEST {dest!r} and the run in {taken} lie one inside the other, so that a reader "
                "of the outer folder would see spans twice; give DEST a folder elsewhere"
            )


def _real(path: str) -> str:
    path = absolute_path(path)
    return path if "://" in path else os.path.realpath(path)


def check_dest(run: StoredRun, dest: Folder) -> None:
    """Nothing is in the destination but what an earlier curation of this run left there.

    Raises:
        ConfigError: something else is.
    """
    if dest.is_file():
        raise ConfigError(f"DEST {dest.root!r} is a file; give a folder")
    try:
        told = json.loads(dest.read(RUN_JSON))
    except FileNotFoundError:
        if any(dest.names(place) for place in (*TABLES, MANIFESTS)):
            raise ConfigError(
                f"DEST {dest.root!r} holds tables that no run.json speaks of; give an empty folder"
            ) from None
        return
    except ValueError as error:
        raise ConfigError(
            f"{dest.url(RUN_JSON)} is not JSON ({error}); delete the folder or give another"
        ) from error
    source = told.get("curated_from") or {}
    if (source.get("run_id"), source.get("run_date")) != (run.run_id, run.run_date):
        raise ConfigError(
            f"DEST {dest.root!r} holds the run {told.get('run_id')}, which was not curated from "
            f"{run.run_id} of {run.run_date}; give an empty folder"
        )


def check_traces(run: StoredRun) -> None:
    """The run has traces/. Raises: ConfigError."""
    trace = run.config.trace
    if trace.enabled and trace.store != "none":
        return
    reason = "trace.store=none" if trace.enabled else "trace.enabled=false"
    raise ConfigError(
        f"{run.folder.root} keeps no traces ({reason}), and nothing can be curated again without; "
        "run it with trace.enabled=true and trace.store=units or positions"
    )


def check_changes(run: StoredRun, config: RunConfig, changed: Changed) -> None:
    """Only what comes behind the model changes, and what it needs was stored.

    Raises:
        ConfigError: a new run is needed; names the key.
    """
    kept = run.config.trace.store
    for key, (old, new) in changed.items():
        if key == JUDGES or key.startswith(_BEHIND_THE_MODEL):
            continue
        said = f"{key}={new!r} (the run had {old!r})"
        if not key.startswith(_OF_POSITIONS):
            raise ConfigError(f"{said} needs a new run: curation begins behind the model")
        if kept != "positions":
            raise ConfigError(
                f"{said} needs a new run, with trace.store=positions: this one kept "
                f"trace.store={kept}, and units cannot be cut again from that"
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
    """Heat maps can be dropped or taken over, but not drawn."""
    if new.store == "positions":
        raise ConfigError(
            f"trace.store=positions needs a new run: this one kept trace.store={old.store}"
        )
    if not new.heatmaps:
        return
    if not old.heatmaps:
        raise ConfigError(
            "trace.heatmaps=true needs a new run, with it or with trace.store=positions: this one "
            f"kept trace.store={old.store}, and heat maps cannot be drawn from that"
        )
    others = [key for key in changed if key.startswith(_OF_HEATMAPS)]
    if new.signals[0] != old.signals[0]:
        others.append("trace.signals")
    if others:
        raise ConfigError(
            f"the stored heat maps do not go with another {', '.join(others)}, and without "
            "positions they cannot be drawn again; set trace.heatmaps=false, or run again with "
            "trace.store=positions"
        )


def check_tools(change: Change) -> None:
    """What the settings name can be loaded, if it is needed. Raises: ConfigError."""
    try:
        if change.segments or change.folds:
            load_lean_language(change.new.spans.pipeline)
        if change.listens:
            load_engine(change.new.asr)
            SpeechChunker(change.new.asr)
    except (BackendError, UnknownName) as error:
        raise ConfigError(str(error)) from error
