"""One round of a storm: its trouble, its end, and the judgement of every driver that says done."""

from __future__ import annotations

import datetime
import json
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.run_folder.chunk_files import CHUNK_FILES
from pipeline.run_folder.manifests import MANIFESTS
from pipeline.run_folder.verdict import VERDICT
from pipeline.storage.folder import PARTIAL, Folder
from tests.pipeline.storm.checks import (
    TABLES,
    UNREADABLE,
    Problem,
    lease_state,
    leftover_problems,
    manifest_problems,
    row_problems,
    take_snapshot,
    verdict_problems,
)
from tests.pipeline.storm.corpus import Corpus
from tests.pipeline.storm.damage import damage_files
from tests.pipeline.storm.driver_main import FAILURE, DriverPlan
from tests.pipeline.storm.drivers import Driver, Drivers
from tests.pipeline.storm.script import INPUT_CHANGES, Event, write_script

DAY = datetime.date(2026, 1, 31)
LEASE_S = 1.0
_MOST_DRIVERS = 3  # at once
_PLAIN_DRIVERS = 6  # after the trouble; the last one must be done
_PATIENCE_S = 60.0
_TARGET_WAIT_S = 0.2  # for a file to remove, or a driver to kill
# Codes of ends, and the signals that the storm sends.
_USUAL_ENDS = frozenset({0, 1, 2, 4, -signal.SIGKILL, -signal.SIGTERM})
# What an earlier driver can still do that was suspended right before a step (docs/guarantees.md).
# The next command puts it right.
_LATE_STEPS = frozenset({"extra", "manifests"})
_FAULT = "this is a fault of"  # in messages of what can only be a fault of the program


@dataclass
class Result:
    """What happened in a round.

    ends: number of drivers by exit code (negative: a signal). n_judged, n_unjudged: drivers that
    ended with code 0, and whether what they left could be judged.
    """

    seed: int
    folder: Path
    troubles: Counter[str] = field(default_factory=Counter)
    ends: Counter[int] = field(default_factory=Counter)
    n_judged: int = 0
    n_unjudged: int = 0
    problems: list[tuple[str, Problem]] = field(default_factory=list)

    def __str__(self) -> str:
        troubles = ", ".join(f"{count} {kind}" for kind, count in sorted(self.troubles.items()))
        ends = ", ".join(f"{code}: {count}" for code, count in sorted(self.ends.items()))
        return (
            f"seed {self.seed}: {troubles}; ends {{{ends}}}; done judged {self.n_judged}, "
            f"not {self.n_unjudged}"
        )


def play_round(seed: int, folder: Path, *, remote: str | None, seconds: float) -> Result:
    """Play one round in an empty folder. remote: an address for input and output in its place."""
    chance = random.Random(seed)
    result = Result(seed, folder)
    round_ = _Round(folder, remote or str(folder), chance, result)
    try:
        round_.play(seconds)
    finally:
        round_.drivers.kill_all()
    if _FAULT in (folder / "log").read_text(errors="replace"):
        result.problems.append(("log", Problem("fault", "a driver reports a fault of the program")))
    return result


class _Round:
    def __init__(self, folder: Path, root: str, chance: random.Random, result: Result) -> None:
        self._folder, self._chance, self._result = folder, chance, result
        self._output = Folder(f"{root}/output") / f"run_date={DAY}/run_id=storm"
        self._is_local = self._output.is_local
        self._write_config(root)
        self._corpus = Corpus(Folder(f"{root}/input"), chance)
        self.drivers = Drivers(folder, self._on_end)
        self._failing = False  # whether workers may make rows fail
        self._removed_at = 0.0  # end of the last damage to manifests or published files

    def _write_config(self, root: str) -> None:
        model = self._folder / "model"
        model.mkdir()
        (model / "config.json").write_text('{"model_type": "qwen2_5_omni"}')
        for name in ("model.safetensors", "tokenizer.json", "processor_config.json"):
            (model / name).write_text("{}")
        tree = {
            "input": {"path": f"{root}/input"},
            "output": {"path": f"{root}/output"},
            "model": {"path": str(model), "device": "cpu", "gpus_per_replica": 0},
            "run": {
                "id": "storm",
                "date": DAY.isoformat(),
                "chunk_samples": 2,
                "window_chunks": 3,
                "lease_s": LEASE_S,
                "max_error_fraction": 1.0,
            },
        }
        (self._folder / "run.json").write_text(json.dumps(tree))

    def play(self, seconds: float) -> None:
        """Play the script, then let plain drivers finish the run, and check what they left."""
        script = write_script(self._chance, seconds, LEASE_S)
        if script.finished_first:
            self.drivers.start(DriverPlan())
            self.drivers.wait_for_all(_PATIENCE_S)
        begin = time.monotonic()
        for event in script.events:
            self.drivers.wait_until(begin + event.at_s)
            if self._do_when_possible(event):
                self._result.troubles[event.kind] += 1
        self.drivers.wait_until(begin + script.end_s)
        self._finish()

    def _finish(self) -> None:
        if not self.drivers.wait_for_all(_PATIENCE_S):
            self._report("end", [Problem("stuck", f"drivers are alive after {_PATIENCE_S} s")])
            return
        self._finish_with(DriverPlan(), FAILURE)
        if self._failing and not self._result.problems:
            self._finish_with(DriverPlan(retry=True), None)

    def _finish_with(self, plan: DriverPlan, failure: str | None) -> None:
        """Start drivers until one is done, and check what it left. failure: as in row_problems."""
        for _ in range(_PLAIN_DRIVERS):
            driver = self.drivers.start(plan)
            if not self.drivers.wait_for_all(_PATIENCE_S):
                break
            if driver.process.exitcode == 0:
                leftovers = self._check_end(failure)
                if leftovers and "lease" not in self._marks(driver):
                    # A driver that was killed after the run was finished may leave files. They are
                    # deleted by the next one that has work to do.
                    self._output.delete(VERDICT)
                    continue
                self._report("end", leftovers)
                return
        self._report("end", [Problem("stuck", f"{_PLAIN_DRIVERS} plain drivers are not done")])

    def _check_end(self, failure: str | None) -> list[Problem]:
        """Report problems with what the last driver left; returns the files that are left over."""
        shards = self._corpus.present()
        try:
            found = take_snapshot(self._output)
        except UNREADABLE as error:
            self._report("end", [Problem("unreadable", repr(error))])
            return []
        problems = row_problems(found, [shards], failure) + manifest_problems(found)
        self._report("end", problems + verdict_problems(found, len(shards)))
        return leftover_problems(found)

    def _do_when_possible(self, event: Event) -> bool:
        """Do what an event says, if need be a little later; whether it was possible then."""
        end = time.monotonic() + _TARGET_WAIT_S
        while not self._do(event):
            # Chunk files and drivers come and go.
            if event.kind in ("start", *INPUT_CHANGES) or time.monotonic() >= end:
                return False
            self.drivers.wait_until(time.monotonic() + _TARGET_WAIT_S / 10)
        return True

    def _do(self, event: Event) -> bool:
        """Do what an event says; whether it was possible."""
        if event.kind == "start":
            return self._start(event)
        if event.kind in INPUT_CHANGES:
            return self._corpus.change(event.kind, event.pick)
        if event.kind.startswith(("remove", "truncate", "replace")):
            return self._damage(event)
        alive = self.drivers.alive
        if not alive:
            return False
        driver = alive[event.pick % len(alive)]
        if event.kind == "stop":
            driver.send(signal.SIGSTOP, group=not event.pick % 2)
            driver.resume_at = time.monotonic() + event.for_s
        else:
            sent = signal.SIGTERM if event.kind == "terminate" else signal.SIGKILL
            driver.send(sent, group=event.kind == "kill")
        return True

    def _start(self, event: Event) -> bool:
        if len(self.drivers.alive) >= _MOST_DRIVERS:
            return False
        # A process with a client of S3 cannot be forked.
        plan = replace(event.driver, apart=event.driver.apart and self._is_local)
        self._failing |= plan.failing > 0
        driver = self.drivers.start(plan)
        if plan.signal == signal.SIGSTOP:
            driver.resume_at = time.monotonic() + event.for_s
        told = {
            "break-lease": plan.break_lease,
            "delayed before the lease": plan.delay_s,
            "apart from its worker": plan.apart,
            "stops itself": plan.signal == signal.SIGSTOP,
            "kills itself": plan.signal == signal.SIGKILL,
            "with failing rows": plan.failing,
            "run.retry": plan.retry,
        }
        self._result.troubles.update(f"start, {what}" for what, value in told.items() if value)
        return True

    def _damage(self, event: Event) -> bool:
        how, _, what = event.kind.partition(" ")
        tables = TABLES if event.pick % 5 == 0 else [TABLES[event.pick // 5 % len(TABLES)]]
        places = {"manifests": [MANIFESTS], "parts": [CHUNK_FILES], "verdict": [VERDICT]}
        wanted = places.get(what, tables)
        names = [name for name in self._output.tree("") if name.partition("/")[0] in wanted]
        names = [name for name in names if not name.endswith(PARTIAL)]
        if not names:
            return False
        if event.pick % 2:
            names = [names[event.pick % len(names)]]
        damage_files(self._output, names, how)
        if what in ("manifests", "published"):
            self._removed_at = time.monotonic()
        return True

    def _on_end(self, driver: Driver) -> None:
        code = driver.process.exitcode
        assert code is not None
        self._result.ends[code] += 1
        who = f"driver {driver.number}"
        if code not in _USUAL_ENDS:
            self._report(who, [Problem("crash", f"exit code {code}")])
        if code != 0:
            return
        paused = self.drivers.pause()
        try:
            problems = self._judge(driver)
        finally:
            for other in paused:
                other.send(signal.SIGCONT)
        if problems is None:
            self._result.n_unjudged += 1
        else:
            self._result.n_judged += 1
            self._report(who, problems)

    def _judge(self, driver: Driver) -> list[Problem] | None:
        """Problems with what a driver left that said done; None if others may be the cause."""
        marks = self._marks(driver)
        epoch = marks["lease"][1] if "lease" in marks else None
        # From then on it had nothing left to do but to look whether all is there.
        since = max([driver.started, *(at for at, _ in marks.values())])
        if self._removed_at > since or not self._had_run_alone(driver, epoch):
            return None
        candidates = self._corpus.candidates(since, time.monotonic())
        if candidates is None:
            return None
        try:
            found = take_snapshot(self._output)
            problems = row_problems(found, candidates, FAILURE) + manifest_problems(found)
        except UNREADABLE as error:
            problems = [Problem("unreadable", repr(error))]
        if not self._had_run_alone(driver, epoch):
            return None
        if self.drivers.others(driver, since):
            problems = [item for item in problems if item.kind not in _LATE_STEPS]
        return problems

    def _had_run_alone(self, driver: Driver, epoch: int | None) -> bool:
        """Whether no later driver has changed anything. epoch: None if it did not have the lease.

        Without the lease it recognised a finished run.
        """
        return driver.alone if epoch is None else lease_state(self._output) == (epoch, True)

    def _marks(self, driver: Driver) -> dict[str, tuple[float, int]]:
        """The last mark of each kind: its time and value."""
        file = self._folder / f"marks{driver.number}"
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        return {
            what: (float(at), int(value)) for what, at, value in (line.split() for line in lines)
        }

    def _report(self, who: str, problems: list[Problem]) -> None:
        self._result.problems += [(who, problem) for problem in problems]
