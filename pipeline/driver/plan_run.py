"""Check a run before it does any work, and plan it; nothing here writes."""

from __future__ import annotations

import os

from omnitrace_core.asr import SpeechChunker, engine_factory, load_engine
from omnitrace_core.backends import decoder_shape, media_rules
from omnitrace_core.errors import BackendError, ConfigError, UnknownName
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.text.language import load_language_without_torch
from omnitrace_core.tracing.signals import check_head_weights, load_signal
from pipeline.config import RunConfig
from pipeline.planning.identified_run import IdentifiedRun
from pipeline.planning.input_shards import media_roots, scan_input
from pipeline.planning.media_stores import check_input_store
from pipeline.planning.model_files import check_model_files
from pipeline.planning.plan import make_plan
from pipeline.run_folder.checks.linked_folders import check_subfolders
from pipeline.run_folder.manifests import read_manifests
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.storage.addresses import absolute_path, address_problem, is_url
from pipeline.storage.folder import Folder

# Characters of the longest name in a run's folder: a partial file in a table's folder.
_LONGEST_NAME = 120


def plan_run(run: IdentifiedRun) -> PlannedRun:
    """Check the settings, the model and every shard of the input, and plan the run.

    Raises:
        ConfigError: a setting, the model or the output cannot be used.
        InputSchemaError: the input cannot be read as samples.
        RunError: a manifest of an earlier run with this id cannot be read.
    """
    config, identity = run.config, run.identity
    _check_places(config, identity.folder)
    check_subfolders(identity.folder, [config.input.path])
    check_input_store(config)
    _check_device(config)
    rules = _check_loadable(config)
    scans = scan_input(run.listing, roots=config.media.allow is None)
    manifests = read_manifests(identity.folder, with_chunks=False)
    published = {name: manifest.number for name, manifest in manifests.items()}
    plan = make_plan(scans, identity.fingerprint, config.run.chunk_samples, published)
    return PlannedRun(config, identity, plan, manifests, rules, media_roots(scans))


def _check_places(config: RunConfig, run_folder: Folder) -> None:
    """Check that the output is a folder outside the input. Raises: ConfigError."""
    source, dest = absolute_path(config.input.path), absolute_path(config.output.path)
    # Links are followed: a link may lead from outside into the input.
    pairs = [(source, dest)]
    if not is_url(source) and not is_url(dest):
        pairs.append((os.path.realpath(source), os.path.realpath(dest)))
    if any(f"{below}/".startswith(f"{above.rstrip('/')}/") for above, below in pairs):
        raise ConfigError(
            f"output.path={dest!r} lies inside input.path={source!r}, so that the next run would "
            "read this output as samples; give another folder"
        )
    if problem := address_problem(f"{run_folder.root}/{'x' * _LONGEST_NAME}"):
        raise ConfigError(f"output.path={dest!r} is too long for the run's files: {problem}")
    if Folder(dest).is_file():
        raise ConfigError(f"output.path={dest!r} is a file; give a folder")


def _check_device(config: RunConfig) -> None:
    """Check that a model on a GPU has one reserved. Raises: ConfigError."""
    model = config.model
    if model.device not in ("auto", "cpu") and not model.gpus_per_replica:
        raise ConfigError(
            f"model.device={model.device!r} and model.gpus_per_replica=0: a replica uses only "
            "GPUs that are reserved for it; set model.gpus_per_replica=1, or model.device=cpu"
        )


def _check_loadable(config: RunConfig) -> MediaRules:
    """Check everything that the stages load; returns the media rules of the model.

    Raises:
        ConfigError: a signal, model, engine or pipeline cannot be loaded.
    """
    try:
        signals = {name: load_signal(name) for name in config.trace.signals}
        check_head_weights(signals, decoder_shape(config.model))
        _check_speech(config)
        load_language_without_torch(config.spans.pipeline)
        rules = media_rules(config.model)
    except (BackendError, UnknownName) as error:
        raise ConfigError(str(error)) from error
    check_model_files(config.model)
    return rules


def _check_speech(config: RunConfig) -> None:
    """Check the engine's name, and if the run uses it, that it and its models can be loaded."""
    if config.units.audio != "chunks":
        engine_factory(config.asr.engine)
        return
    load_engine(config.asr)
    SpeechChunker(config.asr)
    if config.asr.device not in ("auto", "cpu") and not config.ray.audio_gpus:
        raise ConfigError(
            f"asr.device={config.asr.device!r} and ray.audio_gpus=0: an actor uses only GPUs that "
            "are reserved for it; set ray.audio_gpus (a fraction is enough), or asr.device=cpu"
        )


def check_writable(folder: Folder, name: str = "output.path=") -> None:
    """Write and delete a small file. name: names the folder in messages. Raises: ConfigError."""
    probe = ".writable"
    try:
        folder.write(probe, b"")
        folder.delete(probe)
    except OSError as error:
        raise ConfigError(
            f"{name}{folder.root!r} cannot be written ({error}); "
            "give a folder or bucket that this user may write to"
        ) from error
