"""Memory of the tracing benchmark: the most that was held, and what eager attention would need."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks.tracing_model import Size

# Written to /proc/self/clear_refs, it starts the peak of the resident set anew.
_RESET_PEAK = "5"
# For glibc: every larger block is given back as soon as it is free. By default it keeps blocks for
# later, more or less of them by chance, and the peak of one and the same case varies by a third.
GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072"}
_WIDTH = {"float32": 4, "bfloat16": 2, "float16": 2}


class Memory:
    """Peak memory of this process: on a CPU its resident set (Linux), else what torch allocated.

    The peak is `VmHWM`: what `ru_maxrss` tells, but not inherited from a larger parent process.
    """

    def __init__(self, device: str) -> None:
        self._device = device
        self.built_bytes = 0

    def start(self) -> None:
        """Count the peak from now on; what is held now is `built_bytes`."""
        if self._device == "cpu":
            Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
            self.built_bytes = _bytes_of("/proc/self/status", "VmRSS")
            return
        import torch

        torch.cuda.reset_peak_memory_stats()
        self.built_bytes = torch.cuda.memory_allocated()

    def peak_bytes(self) -> int:
        """The most that was held since `start`, model and all."""
        if self._device == "cpu":
            return _bytes_of("/proc/self/status", "VmHWM")
        import torch

        return torch.cuda.max_memory_allocated()


def free_bytes(device: str) -> int:
    """Memory that can still be taken."""
    if device == "cpu":
        return _bytes_of("/proc/meminfo", "MemAvailable")
    import torch

    return torch.cuda.mem_get_info()[0]


def eager_bytes(size: Size, prompt: int, tokens: int, dtype: str) -> int:
    """What one sample's generation with `output_attentions` holds at most, weights included."""
    width = _WIDTH[dtype]
    entries = prompt * prompt + sum(prompt + step for step in range(1, tokens))
    kept = size.layers * size.heads * entries * width
    # Of the layer at work: scores, the same with the mask added, and the softmax in float32.
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
