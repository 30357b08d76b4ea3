from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from omnitrace_core.errors import ConfigError
from pipeline.config import RunConfig, fingerprint, load_config, with_absolute_paths
from tests.conftest import ROOT

CONFIGS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "configs").rglob("*.yaml"))


@pytest.fixture
def config_file(tmp_path: Path) -> str:
    path = tmp_path / "run.yaml"
    path.write_text("input: {path: in}\noutput: {path: out}\nmodel: {path: model}\n")
    return str(path)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_loads(name: str) -> None:
    assert isinstance(load_config(str(ROOT / name)), RunConfig)


def test_expected_configs_exist() -> None:
    wanted = {"quickstart", "qwen2_5_omni", "paper/qwen2_5_omni"}
    assert wanted <= {name.removeprefix("configs/").removesuffix(".yaml") for name in CONFIGS}


def test_paper_config_has_the_settings_of_the_paper() -> None:
    config = load_config(str(ROOT / "configs/paper/qwen2_5_omni.yaml"))
    assert config.curation.pools == "per_modality"
    assert config.curation.pool_min == 0
    assert config.decode.no_repeat_ngram_size == 3
    assert (config.media.video_fps, config.media.video_total_pixels) == (2.0, 4_200_000)


def test_every_field_is_described() -> None:
    def undescribed(model: type, path: str) -> list[str]:
        missing = []
        for name, field in model.model_fields.items():  # type: ignore[attr-defined]
            inner = field.annotation
            if isinstance(inner, type) and hasattr(inner, "model_fields"):
                missing += undescribed(inner, f"{path}{name}.")
            elif not field.description:
                missing.append(f"{path}{name}")
        return missing

    assert undescribed(RunConfig, "") == []


def test_overrides_are_yaml(config_file: str) -> None:
    config = load_config(
        config_file,
        [
            "trace.signals=[attmean,attraw]",
            "run.id=7",
            "run.date=2026-01-02",
            "model.revision=null",
            "units.grid=[2, 5]",
            "media.video_sound=false",
            "input.path=s3://b/x=y",
        ],
    )
    assert config.trace.signals == ("attmean", "attraw")
    assert config.run.id == "7"
    assert config.run.date == datetime.date(2026, 1, 2)
    assert config.units.grid == (2, 5)
    assert config.media.video_sound is False
    assert config.input.path == "s3://b/x=y"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("curation.pools=separate", r"curation\.pools='separate'.*'joint' or 'per_modality'"),
        (
            "curation.pool=joint",
            r"curation\.pool: unknown key; did you mean pool\w+\? valid: alpha,",
        ),
        ("curatoin.pools=joint", r"curatoin: unknown key; did you mean curation\?"),
        ("run.chunk_samples=0", r"run\.chunk_samples=0: .*greater than or equal to 1"),
        ("run.max_error_fraction=2", r"run\.max_error_fraction=2: "),
        ("run.id=a/b", r"run\.id='a/b'"),
        ("run.retry=[media_missing,lost]", r"\['lost'\]; give none, errors, or .* internal, inv"),
        ("run.retry=all", r"run\.retry='all': .*\['all'\]; give none, errors, or a list of these"),
        ("run.retry=[]", r"run\.retry=\[\]: .*give none, errors, or a list of error codes"),
        ("run.retry=1", r"run\.retry=1: .*give none, errors, or a list of error codes"),
        ("trace.signals=[]", r"trace\.signals is empty"),
        ("model=tiny", r"model='tiny'"),
        ("model.path.name=x", r"override model\.path\.name: path is a value, not a section"),
        ("nonsense", r"'nonsense' is not of the form key=value"),
        ("run.id=caf\udce9", r"^override 'run\.id=caf\\udce9' is not UTF-8"),
        ("run.\udce9=1", r"^override 'run\.\\udce9=1' is not UTF-8"),
        ("\udce9", r"'\\udce9' is not UTF-8"),
        (
            "run.id=a\1b",
            r"^override run\.id: 'a\\x01b' is not valid YAML: .* #x0001.*, position 1$",
        ),
        ("run.id=[", r"override run\.id: '\[' is not valid YAML"),
        ("input.path=s3://key:secret@bucket/x", "a path must not hold credentials"),
    ],
)
def test_bad_override_is_named(config_file: str, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(config_file, [override])


def test_missing_section_is_named(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("input: {path: in}\noutput: {path: out}\n")
    with pytest.raises(ConfigError, match=r"model: missing"):
        load_config(str(path))


@pytest.mark.parametrize(
    ("value", "retry"),
    [
        ("none", "none"),
        ("errors", "errors"),
        ("quarantined", ("quarantined",)),
        ("[out_of_memory, internal, internal]", ("internal", "out_of_memory")),
    ],
)
def test_retry_is_not_in_the_fingerprint(config_file: str, value: str, retry: object) -> None:
    config = load_config(config_file, [f"run.retry={value}"])
    assert config.run.retry == retry
    assert fingerprint(config, "model") == fingerprint(load_config(config_file), "model")
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "", "\x00"])
def test_file_that_is_not_a_config(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        load_config(str(path))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    "override",
    [
        "input.path=else",
        "output.path=else",
        "run.id=x",
        "run.date=2026-01-01",
        "run.chunk_samples=5",
        "run.max_error_fraction=1",
        "ray.decode_actors=9",
        "model.replicas=3",
        "model.batch_tokens=5",
        "model.device=cuda",
        "media.isolate=false",
        "media.decode_timeout_s=5",
        "media.decode_memory_mib=1000",
        "asr.threads=4",
        "asr.retries=0",
        "asr.timeout_s=9",
    ],
)
def test_fingerprint_ignores_what_cannot_change_records(config_file: str, override: str) -> None:
    plain = fingerprint(load_config(config_file), "weights")
    assert fingerprint(load_config(config_file, [override]), "weights") == plain


@pytest.mark.parametrize(
    "override",
    [
        "model.dtype=bfloat16",
        "decode.max_new_tokens=5",
        "trace.signals=[attraw]",
        "trace.store=none",
        "units.bin_s=2",
        "spans.level=clause",
        "curation.gamma=1",
        "media.video_fps=1",
        "media.web_hosts=[media.example.com]",
        "media.max_heard_s=300",
        "asr.engine=given",
        "asr.batch_s=1",
        "asr.min_chunk_s=1",
    ],
)
def test_fingerprint_depends_on_what_can_change_records(config_file: str, override: str) -> None:
    plain = fingerprint(load_config(config_file), "weights")
    assert fingerprint(load_config(config_file, [override]), "weights") != plain
    assert fingerprint(load_config(config_file), "other weights") != plain


def test_fingerprint_depends_on_what_an_automatic_dtype_becomes(config_file: str) -> None:
    def of(*overrides: str) -> str:
        return fingerprint(load_config(config_file, overrides), "weights")

    assert of("model.gpus_per_replica=1") != of()
    fixed = "model.dtype=bfloat16"
    assert of("model.gpus_per_replica=1", fixed) == of(fixed)


def test_fingerprint_depends_on_the_composition_of_sampled_batches(config_file: str) -> None:
    sampled = "decode.do_sample=true"
    plain = fingerprint(load_config(config_file, [sampled]), "weights")
    for override in ("model.batch_tokens=5", "run.chunk_samples=5"):
        other = fingerprint(load_config(config_file, [sampled, override]), "weights")
        assert other != plain


def test_local_paths_become_absolute_for_workers(
    config_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    local = load_config(
        config_file,
        ["model.path=here", "spans.pipeline=here", "media.roots=[media]", "asr.model=here"],
    )
    absolute = with_absolute_paths(local)
    assert (absolute.asr.model, absolute.asr.punc_model) == (str(tmp_path / "here"), None)
    assert absolute.model.path == absolute.spans.pipeline == str(tmp_path / "here")
    assert absolute.media.roots == (str(tmp_path / "media"),)
    named = load_config(config_file, ["model.path=org/model", "spans.pipeline=en_core_web_sm"])
    kept = with_absolute_paths(named)
    assert (kept.model.path, kept.spans.pipeline) == ("org/model", "en_core_web_sm")


def test_head_weights_count_by_their_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records have the name as the config has it; workers get the absolute path."""
    fingerprints = []
    for folder, weights in (("a", "[[1, 2]]"), ("b", "[[1, 2]]"), ("c", "[[2, 1]]")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "w.json").write_text(weights)
        monkeypatch.chdir(tmp_path / folder)
        config = RunConfig.model_validate(
            {
                "input": {"path": "/in"},
                "output": {"path": "/out"},
                "model": {"path": "/model"},
                "trace": {"signals": ["heads:w.json"]},
            }
        )
        fingerprints.append(fingerprint(config, "model"))
        trace = with_absolute_paths(config).trace
        assert trace.signals == ("heads:w.json",)
        assert trace.head_files == {"heads:w.json": str(tmp_path / folder / "w.json")}
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
