"""Signals: the table, head weights from files, and signals of other packages."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from omnitrace_core.errors import BackendError, ConfigError, SampleError, UnknownName
from omnitrace_core.options import DecodeOptions, ModelOptions, TraceOptions
from omnitrace_core.records import ReadySample, TokenTrace
from omnitrace_core.tracing import signals
from omnitrace_core.tracing.batch_tracer import BatchTracer
from omnitrace_core.tracing.signals import (
    SIGNALS,
    LayerView,
    Signal,
    head_weights,
    list_signals,
    load_signal,
    weighted_heads,
)
from tests.core.oracle import EagerOracle, slow_fold
from tests.core.ready_samples import one_of_each

L, H = 3, 4  # of the tiny model


def trace_one(path: str, sample: ReadySample, *names: str) -> TokenTrace:
    tracer = BatchTracer(
        ModelOptions(path=path, device="cpu"),
        DecodeOptions(max_new_tokens=5),
        TraceOptions(signals=names),
    )
    (trace,) = tracer.trace([sample])
    assert not isinstance(trace, SampleError), trace
    return trace


@pytest.fixture(scope="module")
def sample() -> ReadySample:
    return one_of_each()["image"]


WEIGHTS = np.random.default_rng(0).random((L, H))


def write(folder: Path, ending: str, weights: np.ndarray) -> Path:
    path = folder / f"weights.{ending}"
    if ending == "json":
        path.write_text(json.dumps({"weights": weights.tolist()}))
    elif ending == "npy":
        np.save(path, weights)
    else:
        from safetensors.numpy import save_file

        save_file({"learned": weights.astype(np.float32)}, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["json", "npy", "safetensors"])
def test_head_weights_from_a_file(
    tiny_model: str, sample: ReadySample, tmp_path: Path, ending: str
) -> None:
    name = f"heads:{write(tmp_path, ending, WEIGHTS)}"
    trace = trace_one(tiny_model, sample, name, "attmean")
    backend = BatchTracer(ModelOptions(path=tiny_model, device="cpu")).backend
    eager, unit_index = EagerOracle(backend, tiny_model).forward(sample, trace.token_ids)
    weights = torch.tensor(WEIGHTS / WEIGHTS.sum(), dtype=torch.float32)
    rows = torch.einsum("lhtk,lh->tk", eager.attention, weights)
    expected = slow_fold(rows, unit_index, len(sample.units))
    np.testing.assert_allclose(trace.folds[name].mass, expected.mass, atol=1e-5)
    fold = trace.folds[name]
    np.testing.assert_allclose(
        fold.mass.sum(1) + fold.markup + fold.uncovered + fold.generated, 1.0, atol=1e-5
    )


@pytest.mark.parametrize(
    ("weights", "match"),
    [
        (np.ones(4), "one row per"),
        (-np.ones((L, H)), "none below 0"),
        (np.zeros((L, H)), "not all 0"),
        (np.full((L, H), np.nan), "finite"),
    ],
)
def test_invalid_weights_are_refused(tmp_path: Path, weights: np.ndarray, match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        load_signal(f"heads:{write(tmp_path, 'npy', weights)}")


def test_invalid_weight_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read .*existing"):
        load_signal(f"heads:{tmp_path}/none.npy")
    (tmp_path / "bad.json").write_text("{]")
    with pytest.raises(ConfigError, match=r"as \.json"):
        load_signal(f"heads:{tmp_path}/bad.json")
    (tmp_path / "weights.csv").write_text("1,2")
    with pytest.raises(ConfigError, match=r"do not end in \.json, \.npy, \.safetensors"):
        load_signal(f"heads:{tmp_path}/weights.csv")


def test_weights_of_another_model_are_refused(
    tiny_model: str, sample: ReadySample, tmp_path: Path
) -> None:
    path = write(tmp_path, "npy", np.ones((L + 1, H)))
    with pytest.raises(ConfigError, match=r"weights\.npy.* has 3 layers of 4 heads"):
        trace_one(tiny_model, sample, f"heads:{path}")


def test_the_identity_depends_on_the_bytes(tmp_path: Path) -> None:
    path = write(tmp_path, "npy", WEIGHTS)
    before = head_weights.head_weights_identity(str(path))
    write(tmp_path, "npy", WEIGHTS * 2)
    assert head_weights.head_weights_identity(str(path)) != before


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    known = list_signals()
    assert known == tuple(SIGNALS)
    with pytest.raises(UnknownName, match="unknown; valid: " + ", ".join(known) + ", heads:FILE$"):
        load_signal("attwish")


def largest_head(view: LayerView) -> torch.Tensor | None:
    """The largest weight of any head of the last layer."""
    return view.attention.amax(dim=1) if view.is_last else None


class FakeEntryPoint:
    """Has the attributes of an installed package's entry point."""

    def __init__(self, name: str, loaded: object) -> None:
        self.name, self.value, self._loaded = name, f"package:{name}", loaded

    def load(self) -> object:
        return self._loaded


def test_signals_from_entry_points(
    tiny_model: str, sample: ReadySample, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = [
        FakeEntryPoint("largest", largest_head),
        FakeEntryPoint(
            "upper", weighted_heads(lambda layers, heads: torch.ones(layers, heads).triu())
        ),
        FakeEntryPoint("broken", 3),
    ]
    monkeypatch.setattr(signals, "entry_points", lambda group: points)
    assert list_signals()[-3:] == ("broken", "largest", "upper")
    trace = trace_one(tiny_model, sample, "largest", "upper", "attraw")
    assert (trace.folds["largest"].peak >= trace.folds["attraw"].peak).all()
    with pytest.raises(ConfigError, match="neither a Signal nor a function"):
        load_signal("broken")


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (lambda view: view.attention, "returned rows of shape"),
        (lambda view: -view.attention.mean(1), "must not be below 0"),
        (lambda view: None, "no rows in any layer"),
        (lambda view: view.gradient.mean(1), "check view.is_last first"),
    ],
)
def test_invalid_rows_are_refused(
    tiny_model: str,
    sample: ReadySample,
    monkeypatch: pytest.MonkeyPatch,
    rows: object,
    match: str,
) -> None:
    monkeypatch.setitem(SIGNALS, "invalid", Signal(rows))  # type: ignore[arg-type]
    with pytest.raises(BackendError, match=match):
        trace_one(tiny_model, sample, "invalid")


def test_learned_weights_in_half_precision(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "weights.safetensors"
    save_file({"weights": torch.ones(L, H, dtype=torch.bfloat16)}, path)
    weights = load_signal(f"heads:{path}").weights
    assert weights is not None
    assert weights(L, H).tolist() == [[1.0] * H] * L


@pytest.mark.parametrize("scale", [1e39, 3e38, 1e-42])
def test_only_the_proportions_of_weights_matter(tmp_path: Path, scale: float) -> None:
    weights = load_signal(f"heads:{write(tmp_path, 'npy', WEIGHTS * scale)}").weights
    assert weights is not None
    np.testing.assert_allclose(weights(L, H), WEIGHTS / WEIGHTS.max(), rtol=1e-6)


def test_complex_weights_and_files_without_an_ending_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "complex.npy", WEIGHTS + 1j)
    with pytest.raises(ConfigError, match="complex"):
        load_signal(f"heads:{tmp_path}/complex.npy")
    (tmp_path / "weights").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"do not end in \.json"):
        load_signal(f"heads:{tmp_path}/weights")
