from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from omnitrace_core.printable import PrintableFormatter
from pipeline.cli import main
from tests.pipeline.made_runs import write_input
from tests.stages.damaged_files import break_footer, damage, full_row, write_groups

HEAVY = (
    "ray",
    "torch",
    "transformers",
    "spacy",
    "pyarrow",
    "numpy",
    "pydantic",
    "fsspec",
    "decord",
)


@pytest.fixture
def config(tmp_path: Path, tiny_model: str) -> str:
    write_input(tmp_path / "input", a=["1", "2", "1"])
    path = tmp_path / "run.yaml"
    path.write_text(
        f"input: {{path: {tmp_path}/input}}\n"
        f"output: {{path: {tmp_path}/output}}\n"
        f"model: {{path: {tiny_model}}}\n"
    )
    return str(path)


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys\n"
        "from pipeline.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in ("ingest", "validate", "run", "curate", "trace", "inspect"):
        assert verb in done.stdout


def test_module_is_the_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "run", str(tmp_path / "none.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("omnitrace: the config ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "argv", [[], ["fly"], ["run"], ["run", "x.yaml", "--fast"], ["inspect", "x"]]
)
def test_wrong_usage(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == 2
    assert "usage: omnitrace" in capsys.readouterr().err


def test_dry_run_prints_everything_and_writes_nothing(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", config, "--dry-run", "run.chunk_samples=2", "trace.signals=[attraw]"]) == 0
    printed = capsys.readouterr().out
    assert "chunk_samples: 2" in printed
    assert "- attraw" in printed
    assert "  allow: []" in printed
    assert "reads   3 samples in 1 shard" in printed
    assert "does    2 chunks of up to 2 samples; 0 of 1 shard published already" in printed
    assert "error rows for 1 repeat of an earlier sample_id" in printed
    assert f"{tmp_path}/output/run_date=" in printed
    assert not (tmp_path / "output").exists()


def test_validate(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", config]) == 0
    printed = capsys.readouterr().out
    assert "run.yaml is valid" in printed
    assert "reads   3 samples" in printed
    assert "media   local: every path; stores: none; web: none" in printed
    assert "warning media.roots is empty" in printed
    assert [path for path in (tmp_path / "output").rglob("*") if path.is_file()] == []


def test_validate_reports_damaged_samples(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard = write_groups(tmp_path / "input" / "b.parquet", [full_row(str(i)) for i in range(6)], 2)
    damage(shard, "sample_id", 0)
    damage(shard, "messages", 2)
    assert main(["validate", config]) == 4
    printed = capsys.readouterr().out
    assert "run.yaml is valid, but its input is damaged" in printed
    assert "reads   9 samples in 2 shards" in printed
    assert "damage  4 samples in 2 row groups of 1 shard cannot be decoded" in printed
    assert f"{shard}, row group 0 (rows 0 to 1), 2 samples lost: " in printed
    assert f"{shard}, row group 2 (rows 4 to 5), 2 samples lost: " in printed
    # What the scan finds is said without reading the samples, too.
    found = "note    error rows for 2 samples in 1 row group whose sample_ids cannot be decoded"
    for command, code in ((["validate", "--quick", config], 4), (["run", config, "--dry-run"], 0)):
        assert main(command) == code
        printed = capsys.readouterr().out
        assert found in printed
        assert "damage " not in printed
        assert ("but its input is damaged" in printed) == (code == 4)


@pytest.mark.parametrize("flags", [[], ["--quick"]])
def test_validate_reports_all_that_is_damaged_at_once(
    flags: list[str], config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [full_row(str(i)) for i in range(6)]
    pages = write_groups(tmp_path / "input" / "b.parquet", rows, 2)
    damage(pages, "messages", 2)
    footers = [tmp_path / "input" / f"{name}.parquet" for name in ("0", "c", "d")]
    for footer in footers:
        break_footer(write_groups(footer, rows, 2))
    assert main(["validate", *flags, config]) == 2
    printed = capsys.readouterr()
    assert "3 shards cannot be read:" in printed.err
    for footer in footers:
        assert f"{footer} is not a readable Parquet file" in printed.err
    found = f"{pages}, row group 2 (rows 4 to 5), 2 samples lost: "
    assert (found in printed.out) == (not flags)


@pytest.mark.parametrize("verb", ["validate", "run"])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("curation.gamma=much", "curation.gamma='much'"),
        ("trace.signals=[attention]", "'attention'"),
        ("model.device=cuda", "model.device='cuda' and model.gpus_per_replica=0"),
        (
            "asr.engine=ear",
            "asr.engine='ear'; valid engines: given, paraformer, scribe, vad",
        ),
        (
            ["units.audio=chunks", "asr.engine=paraformer"],
            "asr.engine=paraformer needs asr.model: a directory, or hub-id@commit",
        ),
        (
            ["units.audio=chunks", "asr.engine=whisper", "asr.model=openai/whisper-tiny"],
            "asr.model='openai/whisper-tiny' is not a local directory, and a hub id needs its",
        ),
        (
            [
                "units.audio=chunks",
                f"asr.model=a/b@{'0' * 40}",
                "asr.engine=whisper",
                "asr.language=xx",
            ],
            "asr.language='xx': this Whisper takes null (it detects the language), af (afrikaans)",
        ),
        (
            ["units.audio=chunks", "asr.engine=paraformer", "asr.language=zh"],
            "asr.language='zh': paraformer takes no language, it transcribes those that its model ",
        ),
        (
            ["units.audio=chunks", "asr.embedding=/no/such/model"],
            "asr.embedding='/no/such/model' is not a local directory",
        ),
        (
            ["units.audio=chunks", "asr.device=cuda"],
            "asr.device='cuda' and ray.audio_gpus=0: an actor uses only GPUs that are reserved",
        ),
        ("spans.pipeline=/no/such/pipe", "spans.pipeline='/no/such/pipe' cannot be loaded"),
        ("model.path=/no/such/model", "model.path='/no/such/model' is not a local directory"),
        ("model.backend=gpt", "model.backend='gpt' is unknown"),
        ("input.path=/no/such/input", "does not exist; `omnitrace ingest"),
    ],
)
def test_errors_are_reported_before_any_work(
    verb: str,
    override: str | list[str],
    message: str,
    config: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    overrides = [override] if isinstance(override, str) else override
    assert main([verb, config, *overrides]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("omnitrace: ")
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert not (tmp_path / "output").exists()


def test_parquet_of_another_schema(
    config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pq.write_table(pa.table({"prompt": ["x"]}), tmp_path / "input" / "b.parquet")
    assert main(["run", config]) == 2
    printed = capsys.readouterr().err
    assert "b.parquet cannot be read as samples: column sample_id is missing" in printed
    assert "`omnitrace ingest SOURCE DEST`" in printed
    assert not (tmp_path / "output").exists()


def test_unusable_outputs(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", config, f"output.path={tmp_path}/input/out"]) == 2
    assert "lies inside input.path" in capsys.readouterr().err
    assert main(["validate", config, f"output.path={config}"]) == 2
    assert "is a file; give a folder" in capsys.readouterr().err
    assert main(["validate", config, f"output.path={config}/below"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_verbose_prints_the_traceback(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "-v", config, "input.path=/no/such/input"]) == 2
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert printed.rstrip().splitlines()[-1].startswith("omnitrace: input.path=")


def test_errors_reach_the_terminal_without_control_characters(
    config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = "/no/\x1b[2J\nomnitrace: done\u202e"
    for flags in ([], ["-v"]):
        assert main(["validate", *flags, config, f"input.path={hostile}"]) == 2
        printed = capsys.readouterr().err
        assert all(line.isprintable() for line in printed.splitlines())
        assert "\nomnitrace: done" not in printed
    with pytest.raises(SystemExit):
        main(["inspect", "a", "b", hostile])
    printed = capsys.readouterr().err
    assert all(line.isprintable() for line in printed.splitlines())
    assert "\nomnitrace: done" not in printed


def test_unexpected_error_is_a_crash_without_control_characters(
    config: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(_: object) -> None:
        raise ValueError("odd \x1b[2J")

    monkeypatch.setattr("pipeline.driver.plan_run.plan_run", broken)
    assert main(["run", config]) == 1
    (record,) = caplog.records
    assert "please report it" in PrintableFormatter().format(record)
    assert r"ValueError: odd \x1b[2J" in PrintableFormatter().format(record)
    assert capsys.readouterr().out == ""


def test_sigterm_while_planning_ends_the_command(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planning a corpus of 10^9 rows takes hours."""

    def planning(_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it goes on")

    monkeypatch.setattr("pipeline.driver.plan_run.plan_run", planning)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["run", config]) == 4
    assert "interrupted by SIGTERM" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


def test_ingest_then_plan(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "chat.jsonl").write_text(
        '{"id": "q1", "messages": [{"role": "user", "content": "Why?"}]}\n'
    )
    dest = str(tmp_path / "shards")
    assert main(["ingest", str(tmp_path / "chat.jsonl"), dest]) == 0
    assert "1 sample from 1 file -> 1 shard:" in capsys.readouterr().out
    assert main(["run", config, f"input.path={dest}", "--dry-run"]) == 0
    assert "reads   1 sample in 1 shard" in capsys.readouterr().out
    assert main(["ingest", str(tmp_path / "none.jsonl"), dest]) == 2
