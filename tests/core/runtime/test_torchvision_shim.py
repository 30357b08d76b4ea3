"""The shim that makes transformers' vision classes importable."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.slow
def test_torchvision_can_be_imported_beside_a_cpu_only_torch() -> None:
    code = (
        "import sys\n"
        "from omnitrace_core.runtime.torchvision_shim import enable_transformers_vision\n"
        "assert 'torch' not in sys.modules, 'importing the shim must not load torch'\n"
        "enable_transformers_vision(); enable_transformers_vision()\n"
        "import torch, torchvision\n"
        "assert torch.ops.torchvision.nms\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
