"""Put the model of a training run into the package: `python -m training.tiny.ship RUN`.

Writes the weights as float16 safetensors, with the log of the accuracies beside them. The model
card, README.md in the same folder, is written by hand.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omnitrace_core.backends.shipped import SHIPPED
from training.tiny.build import save_thinker
from training.tiny.planted_thinker import SIZES
from training.tiny.train import LOG

NAME = "omnitrace-tiny"


def ship(run: Path, dest: Path) -> Path:
    """Write the model of a training run's folder to `dest`, and keep other files there."""
    import torch

    from omnitrace_core.backends import load_backend
    from omnitrace_core.options import ModelOptions

    backend = load_backend(ModelOptions(path=str(run), dtype="float32", device="cpu"))
    model: Any = backend.model
    tokenizer: Any = backend.tokenizer  # the run's own: words of the world may have changed since
    save_thinker(dest, model.to(dtype=torch.float16), tokenizer, SIZES)
    shutil.copy(run / LOG, dest / LOG)
    for path in dest.iterdir():
        path.chmod(0o644)  # weights are written for the owner alone
    return dest


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        description="Put the model of a training run into the package."
    )
    parser.add_argument("run", type=Path, help="folder that training.tiny.train wrote")
    parser.add_argument("--dest", type=Path, default=SHIPPED[NAME])
    args = parser.parse_args(argv)
    dest = ship(args.run, args.dest)
    n_bytes = sum(path.stat().st_size for path in dest.rglob("*") if path.is_file())
    print(f"{dest}: {n_bytes:,} bytes")


if __name__ == "__main__":
    main()
