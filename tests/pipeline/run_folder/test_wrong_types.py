"""A field of a wrong type in a stored JSON file is an error that names the file, and no crash."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from omnitrace_core.errors import ConfigError, RunError
from pipeline.driver.finished_run import finished_verdict
from pipeline.driver.run import run
from pipeline.planning.identified_run import identify_run
from pipeline.retrying.state import next_retry
from pipeline.run_folder.checks.retired_numbers import RETIRED, RetiredNumbers
from pipeline.run_folder.lease_file import LEASE, read_lease
from pipeline.run_folder.manifests import manifest_name, read_manifests
from pipeline.run_folder.planned_run import PlannedRun
from pipeline.run_folder.stored_run import find_run
from pipeline.run_folder.verdict import VERDICT, VerdictFile
from tests.pipeline.made_runs import DAY, Worker, config_for, planned_run

WRONG: list[object] = [{"a": [None]}, [[{}]], "x"]


def _read_verdict(planned: PlannedRun) -> None:
    VerdictFile(planned.folder, 9)
    next_retry(planned)
    finished_verdict(identify_run(planned.config, lambda: DAY))


READERS: dict[str, Callable[[PlannedRun], object]] = {
    manifest_name(0): lambda planned: read_manifests(planned.folder),
    VERDICT: _read_verdict,
    "run.json": lambda planned: find_run(planned.folder.root),
    LEASE: lambda planned: read_lease(planned.folder),
    RETIRED: lambda planned: RetiredNumbers(planned.folder, 9, lambda: None),
}
# Texts may have any value; nobody reads these back.
TEXTS = {"owner", "host", "machine", "started", "plan", "reason", "inputs", "files", "key"}
TEXTS |= {"shard", "uri", "identity", "fingerprint", "run_id", "run_date", "started_at"}
IGNORED = {
    "run.json": {"started_at", "plan", "versions", "times", "totals", "n_shards_with_totals"}
    | {"n_rows", "n_ok", "n_error", "n_spans", "by_code", "by_stage", "n_shards", "n_published"},
    RETIRED: {"epoch"},
}


@pytest.mark.parametrize("name", READERS)
def test_field_of_a_wrong_type_names_the_file(folder: Path, name: str) -> None:
    config = config_for(folder, run={"retry": "errors"})
    planned = planned_run(config)
    run(planned, Worker(planned.folder))
    content = json.loads(planned.folder.read(name))

    def refused(changed: object) -> bool:
        planned.folder.write(name, json.dumps(changed).encode())
        try:
            READERS[name](planned)
        except (RunError, ConfigError) as error:
            return name in str(error)
        return False

    assert not refused(content)
    wholes: tuple[object, ...] = ([], "x", 3, None)
    for whole in wholes:
        assert refused(whole), whole
    for field in content.keys() - IGNORED.get(name, set()):
        for wrong in WRONG:
            if isinstance(wrong, str) and field in TEXTS:
                continue
            if isinstance(wrong, dict) and field in ("totals", "times"):
                continue  # other fields are those of another version
            assert refused({**content, field: wrong}), (field, wrong)
    for nested in {"totals", "times"} & content.keys() - IGNORED.get(name, set()):
        for field in content[nested].keys() - {"started_at", "ended_at", "driver_started_at"}:
            assert refused({**content, nested: {**content[nested], field: "x"}}), field


def test_a_command_on_wrong_types_says_which_file_to_delete(folder: Path) -> None:
    config = config_for(folder)
    planned = planned_run(config)
    run(planned, Worker(planned.folder))
    whole = planned.folder.read(manifest_name(0))
    broken = json.loads(whole)
    broken["totals"]["model_s"] = "much"
    planned.folder.write(manifest_name(0), json.dumps(broken).encode())
    with pytest.raises(RunError, match=r"00000.json is not a manifest \(model_s.*much.*delete it"):
        planned_run(config)
    planned.folder.write(manifest_name(0), whole)
    broken = json.loads(planned.folder.read(VERDICT))
    broken["retry"] = "x"
    planned.folder.write(VERDICT, json.dumps(broken).encode())
    with pytest.raises(RunError, match=r"verdict.json is not a verdict \(.*'x'\); delete it"):
        run(planned_run(config), Worker(planned.folder))
    planned.folder.delete(VERDICT)
    assert run(planned_run(config), Worker(planned.folder)).finished
