"""`omnitrace trace`: small jobs without Ray, with the published release's flags."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cli import main

LAMP = {
    "id": "lamp",
    "prompt": "Answer briefly.\n",
    "question": [{"text": "The lamp is red. What is red?"}],
    "answer": "the lamp",
    "response": "It is the lamp.",
    "task": "qa",
}


def trace(tmp_path: Path, samples: object, *flags: str) -> tuple[int, list[dict[str, object]]]:
    source, output = tmp_path / "in.json", tmp_path / "deep" / "out.json"
    source.write_text(json.dumps(samples))
    code = main(["trace", str(source), "--output_path", str(output), *flags])
    return code, json.loads(output.read_text())


def test_traces_and_writes_json(tmp_path: Path, tiny_model: str) -> None:
    code, (record,) = trace(tmp_path, [LAMP], "--model", tiny_model)
    assert code == 0
    assert record["sample_id"] == "lamp"
    assert record["response"] == "It is the lamp."
    assert record["reference_answer"] == "the lamp"
    assert record["metadata"] == {"task": "qa"}
    (span,) = record["spans"]  # type: ignore[misc]
    assert span["sources"][0]["modality"] == "text"


def test_one_bad_sample_does_not_cost_the_others(tmp_path: Path, tiny_model: str) -> None:
    bad = {"id": "gone", "question": [{"image": "gone.png"}, {"text": "Who?"}]}
    code, records = trace(tmp_path, [LAMP, bad, 7, LAMP], "--model", tiny_model)
    assert code == 4
    assert [record["status"] for record in records] == ["ok", "error", "error", "ok"]
    assert records[1]["error_code"] == "media_missing"
    assert str(tmp_path / "gone.png") in str(records[1]["message"])
    assert "not an object" in str(records[2]["message"])


def test_limit_and_jsonl(tmp_path: Path, tiny_model: str) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({**LAMP, "id": str(k)}) + "\n" for k in range(3)))
    flags = ["--questions_path", str(source), "--method", "attraw", "--limit", "2"]
    assert main(["trace", *flags, "--model", tiny_model, "--output_path", str(output)]) == 0
    assert [json.loads(line)["sample_id"] for line in output.read_text().splitlines()] == ["0", "1"]


def test_real_samples_with_the_releases_flags(
    tmp_path: Path, shared_data: Path, tiny_model: str
) -> None:
    output = tmp_path / "out.json"
    files = ["--questions_path", str(shared_data / "samples.json"), "--output_path", str(output)]
    how = ["--model", tiny_model, "--method", "attmean", "--max-new-tokens", "8"]
    flags = ["--use_asr_for_audio", "--qwen-video-fps", "1.0", "--video-max-pixels", "400000"]
    code = main(["trace", *files, *how, *flags])
    records = json.loads(output.read_text())
    assert code == 0
    assert [record["status"] for record in records] == ["ok"] * 5
    frames = [u for u in records[4]["units"] if u["kind"] == "video_bin"]
    assert len(frames) == 5  # 11 s at one frame a second, in pairs
    assert {u["kind"] for u in records[3]["units"] if u["modality"] == "audio"} == {"audio_chunk"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["trace"], "needs a JSON file"),
        (["trace", "no/such.json", "--model", "x"], "no/such.json"),
        (["trace", "samples.json"], "needs a model"),
        (["trace", "{input}", "--model", "{model}", "--qwen-video-fps", "0"], "video_fps=0"),
        (["trace", "{input}", "--model", "{model}", "--max-new-tokens", "0"], "max_new_tokens=0"),
        (["trace", "{input}", "--model", "{folder}"], "no config.json"),
        (["trace", "{input}", "--model", "{model}", "--output_path", "{folder}"], "cannot be"),
    ],
)
def test_usage_errors_exit_2(
    flags: list[str],
    message: str,
    tmp_path: Path,
    tiny_model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.json").write_text(json.dumps([LAMP]))
    places = {"input": "in.json", "model": tiny_model, "folder": str(tmp_path)}
    assert main([flag.format(**places) for flag in flags]) == 2
    assert message in capsys.readouterr().err
