"""Joining or starting Ray for the length of a run."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.data import DataContext

from omnitrace_core.errors import ConfigError, RunError
from pipeline.config import RunConfig
from pipeline.driver.ray_address import address_to_join, check_answers
from pipeline.driver.stop_signals import keeping_handlers


@contextmanager
def ray_session(config: RunConfig) -> Iterator[None]:
    """Ray for a run: the one this process has, the one at `ray.address`, or a local one.

    Only what was started here is stopped here.

    Raises:
        ConfigError: no Ray answers at the address, or this machine has fewer GPUs than asked for.
        RunError: a local Ray does not start.
    """
    mine = not ray.is_initialized()
    if mine:
        with keeping_handlers():
            _start(config)
    try:
        _check_gpus(config)
        _set_context(config.ray.quiet)
        yield
    finally:
        if mine:
            ray.shutdown()


def _start(config: RunConfig) -> None:
    shown = not config.ray.quiet
    if not shown:
        # Ray's C++ side repeats its errors on our stderr; what matters of them is raised here too.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    level = logging.INFO if shown else logging.ERROR
    if (address := address_to_join(config.ray)) is not None:
        check_answers(address)
        try:
            ray.init(
                address=address,
                log_to_driver=shown,
                logging_level=level,
                runtime_env={"worker_process_setup_hook": same_packages()},
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(f"ray.address={address!r}: cannot be joined: {error}") from error
        return
    # The tasks that read have processes, which those that commit can use when the model is loaded.
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "120000")
    # Shares of a CPU are bookkeeping: a small machine may promise more than it has.
    cpus = max(os.cpu_count() or 1, needed_cpus(config))
    # "local" by name: without it Ray would join whatever RAY_ADDRESS or an earlier head points at.
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=shown,
            logging_level=level,
            runtime_env={"worker_process_setup_hook": same_packages()},
        )
    # Ray gives its own node 30 s, and raises no narrower class when they are over.
    except Exception as error:
        raise RunError(
            f"the local Ray of this run did not start: {error}; is the machine too busy, out of "
            "memory, or its temporary folder (RAY_TMPDIR) not one for Ray? Run again, or start "
            "one with `ray start --head` and set ray.address=auto"
        ) from error


def same_packages() -> Callable[[], None]:
    """What a worker runs first: it imports the packages that the driver imported.

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

        # Elsewhere on another machine: there Ray's working directory, or what is installed, serves.
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
    """CPUs that the graph reserves, and one more for actors of the last window on their way out."""
    return math.ceil(reserved_cpus(config)) + 1


def reserved_cpus(config: RunConfig) -> float:
    """CPUs that the graph's actors hold, and a task that reads and one that commits."""
    given = config.ray
    return (
        given.decode_actors * given.decode_cpus
        + given.audio_actors * given.audio_cpus
        + config.model.replicas * given.trace_cpus
        + given.curate_actors * given.curate_cpus
        + 2 * given.io_cpus
    )


def reserved_gpus(config: RunConfig) -> float:
    """GPUs that the graph's actors hold."""
    model, given = config.model, config.ray
    return model.replicas * model.gpus_per_replica + given.audio_actors * given.audio_gpus


def _check_gpus(config: RunConfig) -> None:
    """A local Ray never gets more GPUs than it has: waiting for them would take for ever."""
    model, given = config.model, config.ray
    needed = reserved_gpus(config)
    if needed == 0 or address_to_join(given) is not None:
        return
    found = ray.cluster_resources().get("GPU", 0)
    if found < needed:
        raise ConfigError(
            f"model.replicas={model.replicas} x model.gpus_per_replica={model.gpus_per_replica} + "
            f"ray.audio_actors={given.audio_actors} x ray.audio_gpus={given.audio_gpus:g} needs "
            f"{needed:g} GPUs and this machine has {found:g}; set model.gpus_per_replica=0 and "
            "ray.audio_gpus=0 to run on CPUs, or ray.address to a cluster"
        )


def _set_context(quiet: bool) -> None:
    context = DataContext.get_current()
    # By default a block above 128 MiB is split, and a chunk with it.
    context.target_max_block_size = None
    # What a stage raises reaches the driver as what it is.
    context.raise_original_map_exception = True
    # What no stage foresaw stops the run; dropping blocks in silence is not an answer.
    context.max_errored_blocks = 0
    # A node lost while its actors start must not end the run; a model that never loads must.
    context.max_consecutive_actor_init_deaths = 3
    # Spot capacity may take hours to come; what we wait for is said in the log (see waiting.py).
    context.execution_no_progress_timeout_s = -1
    if quiet:
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
