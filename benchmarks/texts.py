"""Measures the analysis of texts: one by one and in batches, by matrix product, without torch.

Run from the repository's root: `OMP_NUM_THREADS=1 python -m benchmarks.texts`. The texts are
prompts and questions of the planted world. Each line is measured in a new process: the analysis, in
milliseconds of processor time per sample (the best of several rounds, each with an empty cache),
and the loading, in seconds of processor time and peak memory. Ratios compare with the first line:
spaCy's default matrix products, texts one by one, torch imported by spaCy. The last line says
whether all ways give equal analyses.
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
from training.world.samples import Text
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
    # A new one, not the cached one, because it is changed below.
    loaded = (
        load_language_without_torch(BUILTIN)
        if way == "lean"
        else load_language.__wrapped__(BUILTIN)
    )
    if way == "blis":
        _with_blis(loaded)
    load_s = time.process_time() - begun
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sample_texts = texts(n_samples)
    times_s = []
    for _ in range(rounds):
        language = Language(loaded.name, loaded.nlp)
        begun = time.process_time()
        if way in ("together", "lean"):
            language.analyse_batch(sample_texts)
        found = [language.analyse(text) for text in sample_texts]
        times_s.append(time.process_time() - begun)
    digest = hashlib.sha256(repr(found).encode()).hexdigest()
    read_ms = 1e3 * min(times_s) / n_samples
    return {"read_ms": read_ms, "load_s": load_s, "peak_mib": peak_mib, "digest": digest}


def _with_blis(language: Language) -> None:
    """Use the matrix products with which spaCy loads a pipeline by default."""
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
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options.samples, options.rounds)))
        return
    size = ["--samples", str(options.samples), "--rounds", str(options.rounds)]
    found = {}
    for way in WAYS:
        command = [sys.executable, "-m", "benchmarks.texts", "--way", way, *size]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        found[way] = json.loads(output)
    first = found[WAYS[0]]
    print(f"{'way':10}{'ms/sample':>10}{'ratio':>7}{'load s':>8}{'ratio':>7}{'MiB':>6}{'ratio':>7}")
    for way, item in found.items():
        cells = (
            f"{item[name]:{width}}{item[name] / first[name]:7.2f}"
            for name, width in (("read_ms", "10.2f"), ("load_s", "8.2f"), ("peak_mib", "6.0f"))
        )
        print(f"{way:10}{''.join(cells)}")
    print("all analyses equal:", len({item["digest"] for item in found.values()}) == 1)


if __name__ == "__main__":
    main()
