"""Models that cannot be loaded because of the machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from omnitrace_core.backends import media_rules
from omnitrace_core.backends.loading import load_model, load_processor
from omnitrace_core.errors import NodeFault
from omnitrace_core.options import ModelOptions
from tests.lost_mount import lost_mount

LOADS: dict[str, Callable[[ModelOptions], object]] = {
    "config": media_rules,
    "processor": load_processor,
    "weights": lambda options: load_model("Qwen2_5OmniThinkerForConditionalGeneration", options),
}


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_model_on_a_lost_mount_is_the_machines(
    tmp_path: Path, load: Callable[[ModelOptions], object]
) -> None:
    options = ModelOptions(path=str(tmp_path / "lost" / "model"))
    with (
        lost_mount(tmp_path / "lost"),
        pytest.raises(NodeFault, match="does not answer on this machine"),
    ):
        load(options)
