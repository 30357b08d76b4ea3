"""The driver processes of a storm: `omnitrace run` with a quick worker in place of Ray and models.

Everything else is the code of production. A driver may be told to sleep before it takes the lease,
or to stop or kill itself at one of its storage operations. It appends marks to a file: when it had
the lease, and when its worker had done all that it was given.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import wraps
from pathlib import Path
from typing import Any

from omnitrace_core.errors import RunError
from pipeline import cli
from pipeline.driver.steps import RunSteps
from pipeline.planning.plan import Chunk
from pipeline.run_folder import lease as lease_module
from pipeline.run_folder.commit import CommittedChunk, ExecuteChunks
from pipeline.run_folder.lease import Lease
from pipeline.run_folder.lease_file import Claim
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.storage.folder import Folder
from pipeline.storage.local_store import LocalStore
from pipeline.storage.s3_store import S3Store
from tests.pipeline.made_runs import Worker

FAILURE = "media_timeout"  # code of the error rows that a worker makes

# Operations of a store that a driver may be stopped or killed before, besides `writing`.
_OPERATIONS = (
    "create",
    "delete",
    "delete_empty_folders",
    "entries",
    "info",
    "read",
    "read_tagged",
    "swap",
    "version",
)


@dataclass(frozen=True, slots=True)
class DriverPlan:
    """What a driver does besides its work.

    break_lease: as the option of `omnitrace run`. delay_s: sleep before taking the lease. pause_s:
    sleep before each chunk. apart: the chunks are processed by a process of their own, which goes
    on if the driver is stopped or killed. signal: sent to itself at its `operation`-th storage
    operation, of those that only look or (`changes`) of all.
    """

    break_lease: bool = False
    delay_s: float = 0.0
    pause_s: float = 0.0
    apart: bool = False
    signal: int = 0
    operation: int = 0
    failing: float = 0.0
    retry: bool = False


def drive(folder: str, number: int, plan: DriverPlan) -> None:
    """Run a driver to its end, in this process; `folder` holds the config `run.json`."""
    os.setpgid(0, 0)
    with Path(folder, "log").open("ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    print(f"--- driver {number}: {plan}", flush=True)
    marks = Path(folder, f"marks{number}")
    _install(plan, marks)
    options = ["--break-lease"] * plan.break_lease + ["run.retry=errors"] * plan.retry
    code = cli.main(["run", f"{folder}/run.json", *options])
    print(f"--- driver {number} ends with code {code}", flush=True)
    sys.exit(code)


def _install(plan: DriverPlan, marks: Path) -> None:
    """Replace the graph by a worker, and add the hooks. Only for the process of one driver."""

    def execute(driver: Any, progress: object) -> ExecuteChunks:
        return _Executor(driver.planned, driver.lease.claim, plan, marks)

    assert hasattr(RunSteps, "execute_on_ray")
    setattr(RunSteps, "execute_on_ray", execute)  # noqa: B010  (mypy: it is a method)
    acquire = lease_module.acquire_lease

    def delayed(*arguments: Any, **options: Any) -> Lease:
        time.sleep(plan.delay_s)
        lease = acquire(*arguments, **options)
        _mark(marks, "lease", lease.epoch)
        return lease

    setattr(lease_module, "acquire_lease", delayed)  # noqa: B010  (mypy: it is a function)
    if plan.signal:
        _hook_operations(plan)


def _mark(marks: Path, what: str, value: int = 0) -> None:
    with marks.open("a") as file:
        file.write(f"{what} {time.monotonic()} {value}\n")


def _hook_operations(plan: DriverPlan) -> None:
    """Send the signal at the chosen storage operation of the main thread."""
    left = plan.operation

    def point() -> None:
        nonlocal left
        if threading.current_thread() is not threading.main_thread():
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), plan.signal)

    for store in (LocalStore, S3Store):
        for name in _OPERATIONS:
            setattr(store, name, _with_point(getattr(store, name), point))
        setattr(store, "writing", _with_point_before_rename(store.writing, point))  # noqa: B010


def _with_point(method: Callable[..., Any], point: Callable[[], None]) -> Callable[..., Any]:
    @wraps(method)
    def hooked(*arguments: Any, **options: Any) -> Any:
        point()
        return method(*arguments, **options)

    return hooked


def _with_point_before_rename(
    method: Callable[..., Any], point: Callable[[], None]
) -> Callable[..., Any]:
    @contextmanager
    @wraps(method)
    def hooked(*arguments: Any, **options: Any) -> Iterator[Path]:
        with method(*arguments, **options) as path:
            yield path
            point()

    return hooked


class _TextWorker(Worker):
    """Responds to a sample with the text of its question, or fails. fraction: of failing rows."""

    def __init__(self, folder: Folder, claim: Claim, fraction: float) -> None:
        super().__init__(folder, claim=claim)
        self._chance, self._fraction = random.Random(claim.epoch), fraction

    def _record(self, row: dict[str, Any]) -> dict[str, Any]:
        fails = self._chance.random() < self._fraction
        self.failing = {row["sample"]["sample_id"]: FAILURE} if fails else {}
        messages = row["sample"]["messages"]
        self.response = messages[0]["content"][0]["text"] if messages else ""
        return super()._record(row)


class _Executor:
    """Processes windows of chunks in this process, or in one of its own."""

    def __init__(self, planned: PlannedRun, claim: Claim, plan: DriverPlan, marks: Path) -> None:
        self._worker = _TextWorker(planned.folder, claim, plan.failing)
        self._plan, self._marks = plan, marks

    def __call__(self, chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        yield from self._apart(chunks) if self._plan.apart else self._here(chunks)
        _mark(self._marks, "worked")

    def _here(self, chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        for chunk in chunks:
            time.sleep(self._plan.pause_s)
            yield from self._worker([chunk])

    def _apart(self, chunks: Sequence[Chunk]) -> Generator[CommittedChunk, None, None]:
        source, sink = os.pipe()
        worker = os.fork()
        if worker == 0:
            self._serve(chunks, source, sink)
        os.close(sink)
        try:
            with os.fdopen(source) as lines:
                for line in lines:
                    answer = json.loads(line)
                    if isinstance(answer, str):
                        raise RunError(answer)
                    yield CommittedChunk(**answer)
        finally:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)

    def _serve(self, chunks: Sequence[Chunk], source: int, sink: int) -> None:
        """Process the chunks and write what was committed to a pipe; does not return."""
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.close(source)
        try:
            with os.fdopen(sink, "w") as lines:
                try:
                    for committed in self._here(chunks):
                        print(json.dumps(asdict(committed)), file=lines, flush=True)
                except (RunError, OSError) as error:
                    print(json.dumps(f"{type(error).__name__}: {error}"), file=lines)
        finally:
            os._exit(0)
