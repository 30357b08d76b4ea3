"""Memory of the tracing benchmark: measure the peak, and estimate what eager attention needs."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.tracing_model import Size

# Written to /proc/self/clear_refs, it resets the peak of the resident set.
_RESET_PEAK = "5"
# For glibc: return every larger block to the system as soon as it is free. By default glibc keeps
# some blocks, how many depends on chance, and the peak of the same case varies by a third.
RETURN_FREED = {"MALLOC_MMAP_THRESHOLD_": "131072"}
_WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}


class Memory:
    """Peak memory of this process: on a CPU its resident set (Linux), else what torch allocated.

    The peak is `VmHWM`: like `ru_maxrss`, but not inherited from a larger parent process.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self.built_bytes = 0

    def start(self) -> None:
        """Reset the peak; store the present memory in `built_bytes`."""
        if self._device == "cpu":
            Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
            self.built_bytes = _bytes_of("/proc/self/status", "VmRSS")
            return
        import torch

        torch.cuda.reset_peak_memory_stats()
        self.built_bytes = torch.cuda.memory_allocated()

    def peak_bytes(self) -> int:
        """The peak since `start`, including the model."""
        if self._device == "cpu":
            return _bytes_of("/proc/self/status", "VmHWM")
        import torch

        return torch.cuda.max_memory_allocated()


def free_bytes(device: str) -> int:
    """Available memory."""
    if device == "cpu":
        return _bytes_of("/proc/meminfo", "MemAvailable")
    import torch

    return torch.cuda.mem_get_info()[0]


def eager_bytes(size: Size, prompt: int, tokens: int, dtype: str) -> int:
    """Peak of one sample's generation with `output_attentions`, including weights."""
    width = _WIDTH[dtype]
    entries = prompt * prompt + sum(prompt + step for step in range(1, tokens))
    kept = size.layers * size.heads * entries * width
    # Of the layer being computed: scores, scores with the mask added, and the softmax in float32.
    at_work = size.heads * prompt * prompt * (2 * width + 4)
    projections = 2 * size.hidden**2 * (size.heads + size.key_heads) // size.heads
    per_layer = projections + 3 * size.hidden * size.ffn
    weights = size.layers * per_layer + 2 * size.vocabulary * size.hidden
    return kept + at_work + weights * width


def _bytes_of(file: str, field: str) -> int:
    found = re.search(rf"^{field}:\s*(\d+) kB", Path(file).read_text(), re.MULTILINE)
    if found is None:
        raise RuntimeError(f"{file} has no {field}; on a CPU this benchmark needs Linux")
    return int(found[1]) * 1024
