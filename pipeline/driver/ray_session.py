"""Join or start Ray for the length of a run."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.data import DataContext

from omnitrace_core.errors import ConfigError
from pipeline.cluster.loss_watch import RECONNECT_VARIABLE
from pipeline.cluster.start_local import start_local
from pipeline.config import RunConfig
from pipeline.driver.ray_address import address_to_join, check_answers
from pipeline.driver.stop_signals import restoring_handlers


@contextmanager
def ray_session(config: RunConfig) -> Iterator[None]:
    """Connect to Ray: keep this process's connection, or join `ray.address`, or start a local Ray.

    A connection that this process had before stays open after the block; any other is closed.

    Raises:
        ConfigError: no Ray answers at the address, or this machine has fewer GPUs than required.
        RunError: the local Ray does not start.
    """
    connects = not ray.is_initialized()
    if connects:
        with restoring_handlers():
            _start(config)
    try:
        _check_gpus(config)
        _set_context(config.ray.quiet)
        yield
    finally:
        if connects:
            ray.shutdown()


def _start(config: RunConfig) -> None:
    """Join the cluster of the run, or start a local Ray."""
    quiet = config.ray.quiet
    if quiet:
        # Ray's C++ code prints its errors on our stderr; those that matter are raised here as well.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Time for our own watch to notice a loss, before Ray ends this process without a word.
    os.environ.setdefault(RECONNECT_VARIABLE, "120")
    options: dict[str, Any] = {
        "log_to_driver": not quiet,
        "logging_level": logging.ERROR if quiet else logging.INFO,
        "runtime_env": {"worker_process_setup_hook": same_packages()},
    }
    if (address := address_to_join(config.ray)) is None:
        _start_local(needed_cpus(config), options)
        return
    check_answers(address)
    try:
        ray.init(address=address, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"ray.address={address!r}: cannot be joined: {error}") from error


def _start_local(n_cpus: int, options: Mapping[str, Any]) -> None:
    # Keep idle workers while a model loads: tasks that commit reuse those of tasks that read.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "120000")
    # CPUs are only counted, not enforced: a small machine may offer more than it has.
    n_cpus = max(os.cpu_count() or 1, n_cpus)
    # Without "local", Ray would join the cluster of RAY_ADDRESS or an earlier head on this machine.
    start_local(
        lambda: ray.init(address="local", num_cpus=n_cpus, include_dashboard=False, **options)
    )


def same_packages() -> Callable[[], None]:
    """A hook that makes each worker import the packages that the driver imported.

    Ray puts the driver's working directory first on the path of its workers. A folder there that is
    called `stages`, `pipeline` or `omnitrace_core` would be imported in place of ours.
    """
    root = str(Path(__file__).resolve().parents[2])

    # A function in a function is pickled whole; one of this module would be imported by its name,
    # from the wrong folder.
    def import_packages() -> None:
        import importlib
        import os
        import sys

        # On another machine the folder may be missing: there the worker imports from Ray's working
        # directory, or what is installed.
        if not os.path.isdir(os.path.join(root, "pipeline")):
            return
        sys.path.insert(0, root)
        try:
            for name in ("omnitrace_core", "stages", "pipeline"):
                importlib.import_module(name)
        finally:
            sys.path.remove(root)

    return import_packages


def needed_cpus(config: RunConfig) -> int:
    """CPUs that the graph reserves, and one more for actors of the last window that are ending."""
    return math.ceil(reserved_cpus(config)) + 1


def reserved_cpus(config: RunConfig) -> float:
    """CPUs of the graph's actors, of one task that reads and of one that commits."""
    options = config.ray
    return (
        options.decode_actors * options.decode_cpus
        + options.audio_actors * options.audio_cpus
        + config.model.replicas * options.trace_cpus
        + options.curate_actors * options.curate_cpus
        + 2 * options.io_cpus
    )


def reserved_gpus(config: RunConfig) -> float:
    """GPUs of the graph's actors."""
    model, options = config.model, config.ray
    return model.replicas * model.gpus_per_replica + options.audio_actors * options.audio_gpus


def _check_gpus(config: RunConfig) -> None:
    """Refuse a local run that needs more GPUs than this machine has: it would wait forever."""
    model, options = config.model, config.ray
    needed = reserved_gpus(config)
    if needed == 0 or address_to_join(options) is not None:
        return
    found = ray.cluster_resources().get("GPU", 0)
    if found < needed:
        raise ConfigError(
            f"model.replicas={model.replicas} x model.gpus_per_replica={model.gpus_per_replica} + "
            f"ray.audio_actors={options.audio_actors} x ray.audio_gpus={options.audio_gpus:g} "
            f"needs {needed:g} GPUs and this machine has {found:g}; set model.gpus_per_replica=0 "
            "and ray.audio_gpus=0 to run on CPUs, or ray.address to a cluster"
        )


def _set_context(quiet: bool) -> None:
    context = DataContext.get_current()
    # By default Ray splits blocks above 128 MiB, which would split a chunk.
    context.target_max_block_size = None
    # An exception of a stage keeps its type on its way to the driver.
    context.raise_original_map_exception = True
    # An unexpected exception ends the run: blocks must not be dropped silently.
    context.max_errored_blocks = 0
    # Losing a node while its actors start must not end the run; a model that never loads must.
    context.max_consecutive_actor_init_deaths = 3
    # Spot capacity may take hours to come; capacity_watch.py reports what the run waits for.
    context.execution_no_progress_timeout_s = -1
    if quiet:
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
