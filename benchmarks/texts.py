"""Reading texts: one by one and together, with either matrix product; with and without torch.

Run from the repository's root: `OMP_NUM_THREADS=1 python -m benchmarks.texts`. Texts are those of
samples of the planted world, prompts and questions. Each line is a process of its own: milliseconds
of processor time per sample for reading (the least of some rounds, nothing remembered between
them), and for loading seconds of processor time and peak memory. Ratios are to the first line: the
products that come with spaCy, texts one by one, torch imported by spaCy. Last, whether all ways
read the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time

from omnitrace_core.text.language import (
    BUILTIN,
    Language,
    load_language,
    load_language_without_torch,
)
from training.world.records import Text
from training.world.tasks import make_sample

WAYS = ("blis", "numpy", "together", "lean")
_TASKS = ("text_where", "text_who", "text_summary", "text_both")


def texts(n_samples: int) -> list[str]:
    """The text parts of some samples."""
    samples = (make_sample(_TASKS[i % len(_TASKS)], 4, f"texts-{i}") for i in range(n_samples))
    return [part.text for sample in samples for part in sample.parts if isinstance(part, Text)]


def measure(way: str, n_samples: int, rounds: int) -> dict[str, float | str]:
    """One way, in this process."""
    begun = time.process_time()
    # Not the one that this process may know: it is changed.
    loaded = (
        load_language_without_torch(BUILTIN)
        if way == "lean"
        else load_language.__wrapped__(BUILTIN)
    )
    if way == "blis":
        _with_blis(loaded)
    load_s = time.process_time() - begun
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    asked = texts(n_samples)
    taken = []
    for _ in range(rounds):
        language = Language(loaded.name, loaded.nlp)
        begun = time.process_time()
        if way in ("together", "lean"):
            language.analyse_batch(asked)
        found = [language.analyse(text) for text in asked]
        taken.append(time.process_time() - begun)
    digest = hashlib.sha256(repr(found).encode()).hexdigest()
    read_ms = 1e3 * min(taken) / n_samples
    return {"read_ms": read_ms, "load_s": load_s, "peak_mib": peak_mib, "digest": digest}


def _with_blis(language: Language) -> None:
    """As spaCy would load the pipeline by itself."""
    from thinc.api import NumpyOps

    models = [part.model for _, part in language.nlp.pipeline if hasattr(part, "model")]
    for layer in (layer for model in models for layer in model.walk()):
        layer.ops = NumpyOps(use_blis=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.way:
        print(json.dumps(measure(asked.way, asked.samples, asked.rounds)))
        return
    size = ["--samples", str(asked.samples), "--rounds", str(asked.rounds)]
    found = {}
    for way in WAYS:
        command = [sys.executable, "-m", "benchmarks.texts", "--way", way, *size]
        told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        found[way] = json.loads(told)
    first = found[WAYS[0]]
    print(f"{'way':10}{'ms/sample':>10}{'ratio':>7}{'load s':>8}{'ratio':>7}{'MiB':>6}{'ratio':>7}")
    for way, item in found.items():
        cells = (
            f"{item[name]:{width}}{item[name] / first[name]:7.2f}"
            for name, width in (("read_ms", "10.2f"), ("load_s", "8.2f"), ("peak_mib", "6.0f"))
        )
        print(f"{way:10}{''.join(cells)}")
    print("all read the same:", len({item["digest"] for item in found.values()}) == 1)


if __name__ == "__main__":
    main()
