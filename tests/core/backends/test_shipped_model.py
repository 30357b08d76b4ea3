"""The shipped model: found by its name, small, and correct about its synthetic world."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.planted_cases import answer
from omnitrace_core import OmniTracer
from omnitrace_core.attribution.curation import curate
from omnitrace_core.attribution.scores import f1
from omnitrace_core.backends import decoder_shape, list_backends, load_backend, media_rules
from omnitrace_core.backends.shipped import SHIPPED, model_location
from omnitrace_core.errors import BackendError, UnknownName
from omnitrace_core.options import (
    CurationOptions,
    DecodeOptions,
    ModelOptions,
    SpanOptions,
    TraceOptions,
)
from omnitrace_core.text.spans import Segmenter
from omnitrace_core.tracing.batch_tracer import BatchTracer
from pipeline.planning.model_files import check_model_files, model_identity

pytestmark = pytest.mark.slow

NAME = "omnitrace-tiny"
MOST_BYTES = 12_000_000


@pytest.fixture(scope="module")
def tracer() -> BatchTracer:
    return BatchTracer(
        ModelOptions(path=NAME, device="cpu"),
        DecodeOptions(max_new_tokens=48),
        TraceOptions(signals=("attboth", "attmean")),
    )


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    known = list_backends()
    assert known == ("auto", "qwen2_5_omni")
    with pytest.raises(UnknownName, match="'gpt' is unknown; valid: " + ", ".join(known)):
        load_backend(ModelOptions(path=NAME, backend="gpt"))


def test_it_is_found_by_its_name_alone() -> None:
    options = ModelOptions(path=NAME)
    assert decoder_shape(options).num_hidden_layers == 3
    assert media_rules(options).factor == 28
    assert load_backend(ModelOptions(path=NAME, device="cpu")).name == "qwen2_5_omni"
    assert model_location("some/where") == "some/where"


def test_missing_files_of_a_shipped_model_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(SHIPPED, NAME, tmp_path)
    with pytest.raises(BackendError, match="install the package again"):
        media_rules(ModelOptions(path=NAME))


def test_its_identity_is_that_of_its_folder() -> None:
    options = ModelOptions(path=NAME)
    check_model_files(options)
    assert model_identity(options) == model_identity(ModelOptions(path=str(SHIPPED[NAME])))


def test_it_is_small_and_described() -> None:
    files = [path for path in SHIPPED[NAME].rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    assert "planted" in (SHIPPED[NAME] / "README.md").read_text(encoding="utf-8")
    assert not list(SHIPPED[NAME].glob("checkpoint*"))


@pytest.mark.parametrize(
    "task",
    [
        *("text_where", "text_who", "text_summary", "text_both"),
        *("image_lookup", "image_regions", "conflict"),
        *("audio_after", "audio_choice", "video_lookup", "mixed"),
    ],
)
def test_it_answers_and_its_sources_are_the_planted_ones(tracer: BatchTracer, task: str) -> None:
    """A model that guesses would be right once in four."""
    segmenter = Segmenter(SpanOptions())
    options = CurationOptions()
    right, scores = [], []
    for case in answer(tracer, segmenter, task, 4, "shipped", 12):
        fold = case.trace.folds["attboth"]
        found = curate(fold, case.ready.units, case.segmentation, options)
        right += [span is not None for span in case.spans]
        scores += [
            f1([source.unit.unit_id for source in found[span].sources], evidence)
            for span, evidence in zip(case.spans, case.evidence, strict=True)
            if span is not None
        ]
    assert sum(right) >= 0.9 * len(right)
    assert sum(scores) >= 0.8 * len(scores)


def test_omnitracer_finds_it() -> None:
    result = OmniTracer(NAME, signals=("attboth",)).trace(
        {
            "sample_id": "hall",
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {
                            "type": "text",
                            "text": "Anna brought the lamp to the hall. "
                            "Boris brought the key to the tower.",
                        },
                        {"type": "text", "text": "Where is the key?", "evidence": False},
                    ],
                }
            ],
        }
    )
    assert result.response == "The key is in the tower."
    assert [source.unit.text for source in result.spans[0].sources] == [
        "Boris brought the key to the tower."
    ]
