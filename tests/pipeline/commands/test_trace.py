"""`omnitrace trace`: small files without Ray, with the flags of the published release."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from omnitrace_core.media.fetching import fetch
from pipeline.cli import main
from tests.core.asr import tiny_speech
from tests.core.media.web_server import response, serve_web
from tests.core.media_files import DATA, image_bytes

LAMP = {
    "id": "lamp",
    "prompt": "Answer briefly.\n",
    "question": [{"text": "The lamp is red. What is red?"}],
    "answer": "the lamp",
    "response": "It is the lamp.",
    "task": "qa",
}


def trace(tmp_path: Path, samples: object, *flags: str) -> tuple[int, list[dict[str, Any]]]:
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
    (span,) = record["spans"]
    assert span["sources"][0]["modality"] == "text"


def test_one_bad_sample_does_not_cost_the_others(tmp_path: Path, tiny_model: str) -> None:
    bad = {"id": "gone", "question": [{"image": "gone.png"}, {"text": "Who?"}]}
    code, records = trace(tmp_path, [LAMP, bad, 7, LAMP], "--model", tiny_model)
    assert code == 4
    assert [record["status"] for record in records] == ["ok", "error", "error", "ok"]
    assert records[1]["error_code"] == "media_missing"
    assert str(tmp_path / "gone.png") in str(records[1]["message"])
    assert "not an object" in str(records[2]["message"])


def test_prints_json_in_the_encoding_of_stdout(
    tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "in.json"
    source.write_text(json.dumps([{**LAMP, "answer": "r\u00e9verb\u00e8re \U0001f4a1"}]))
    printed = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(printed, encoding="ascii"))
    assert main(["trace", str(source), "--output_path", "-", "--model", tiny_model]) == 0
    sys.stdout.flush()
    (record,) = json.loads(printed.getvalue())
    assert record["reference_answer"] == "r\u00e9verb\u00e8re \U0001f4a1"


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


TALK = {"id": "talk", "question": [{"audio": "talk.flac"}, {"text": "What is said?"}]}


def units_of(record: dict[str, object], kind: str) -> list[dict[str, object]]:
    return [u for u in record["units"] if u["kind"] == kind]  # type: ignore[attr-defined]


@pytest.fixture
def talk(tmp_path: Path) -> dict[str, object]:
    shutil.copy(DATA / "two_sentences.flac", tmp_path / "talk.flac")
    return {**TALK, "response": "An angel."}


def test_speech_by_default_and_by_another_engine(
    tmp_path: Path, tiny_model: str, talk: dict[str, object]
) -> None:
    how = ["--model", tiny_model]
    _, (bins,) = trace(tmp_path, [talk], *how)
    assert not units_of(bins, "audio_chunk")
    n_bins = len(units_of(bins, "audio_bin"))
    _, (chunks,) = trace(tmp_path, [talk], *how, "--use_asr_for_audio")
    assert [unit["transcript"] for unit in units_of(chunks, "audio_chunk")] == ["", ""]
    # The pauses around the two sentences are time bins.
    assert 3 <= len(units_of(chunks, "audio_bin")) < n_bins
    folder = tiny_speech.build_whisper(tmp_path / "whisper")
    whisper = ["asr.engine=whisper", f"asr.model={folder}", "asr.language=en"]
    code, (transcribed,) = trace(tmp_path, [talk], *whisper, *how, "--use_asr_for_audio")
    assert code == 0
    assert units_of(transcribed, "audio_chunk")
    assert all(unit["transcript"] for unit in units_of(transcribed, "audio_chunk"))


def test_overrides_with_the_releases_spelling(
    tmp_path: Path, tiny_model: str, talk: dict[str, object]
) -> None:
    source, output = tmp_path / "in.json", tmp_path / "out.json"
    source.write_text(json.dumps([talk]))
    flags = ["--questions_path", str(source), "--model", tiny_model, "--output_path", str(output)]
    assert main(["trace", *flags, "units.audio=chunks", "asr.max_chunk_s=1"]) == 0
    (record,) = json.loads(output.read_text())
    assert len(units_of(record, "audio_chunk")) > 4


def test_media_from_the_web(
    tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    png = image_bytes(Image.new("RGB", (112, 84)))
    pictures = [
        {
            "id": host,
            "question": [{"image": f"https://{host}.example.com/a.png"}],
            "response": "Hm.",
        }
        for host in ("media", "other")
    ]
    with serve_web() as web:
        web.responses["/a.png"] = response(200, png)
        monkeypatch.setattr(fetch, "WebReader", web.reader)
        how = ["--model", tiny_model]
        code, refused = trace(tmp_path, pictures, *how)
        assert code == 4
        assert {record["error_code"] for record in refused} == {"media_denied"}
        assert web.lookups == []
        one, other = "media.example.com", "other.example.com"
        code, records = trace(tmp_path, pictures, *how, "--web-hosts", one)
        assert [record["status"] for record in records] == ["ok", "error"]
        both = [
            ["--web-hosts", f"{one}, {other}"],
            ["--web-hosts", one, "--web-hosts", other],
            ["--web-hosts=*.example.com"],
            [f"media.web_hosts=[{one},{other}]"],
        ]
        for flags in both:
            code, records = trace(tmp_path, pictures, *how, *flags)
            assert code == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["trace"], "needs a JSON file"),
        (["trace", "no/such.json", "--model", "x"], "no/such.json"),
        (["trace", "samples.json"], "needs a model"),
        (["trace", "{input}", "--model", "{model}", "--qwen-video-fps", "0"], "video_fps=0"),
        (["trace", "{input}", "--model", "{model}", "--max-new-tokens", "0"], "max_new_tokens=0"),
        (["trace", "{input}", "--model", "{folder}"], "no config.json"),
        (["trace", "{input}", "--model", "{model}", "--method", "sight"], "'sight'"),
        (["trace", "{input}", "--model", "{model}", "--web-hosts", "https://a.b"], "web_hosts"),
        (["trace", "{input}", "--model", "{model}", "asr.engine=vad"], "add --use_asr_for_audio"),
        (
            ["trace", "{input}", "--model", "{model}", "ray.quiet=true"],
            "trace takes only asr",
        ),
        (["trace", "{input}", "--model", "{model}", "asr.motor=vad"], "asr.motor: unknown key"),
        (["trace", "{input}", "--model", "{model}", "nonsense"], "not of the form key=value"),
        (["trace", "x", "--questions_path", "{input}", "--model", "{model}"], "form key=value"),
        (
            ["trace", "{input}", "--model", "{model}", "--use_asr_for_audio", "asr.engine=ear"],
            "valid engines: given, paraformer",
        ),
        (
            ["trace", "{input}", "--model", "{model}", "units.audio=chunks", "asr.engine=whisper"],
            "asr.engine=whisper needs asr.model",
        ),
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
