"""Several threads that hold a lock together, and one that holds it alone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from stages.guards.shared_lock import SharedLock


def test_shared_holders_overlap_and_an_exclusive_one_is_alone() -> None:
    lock = SharedLock()
    counting = threading.Lock()
    n_shared = peak = 0
    exclusive = False
    violations: list[str] = []

    def work(number: int) -> None:
        nonlocal n_shared, peak, exclusive
        if number % 3:
            with lock.shared():
                with counting:
                    n_shared += 1
                    peak = max(peak, n_shared)
                    if exclusive:
                        violations.append("shared beside exclusive")
                time.sleep(0.002)
                with counting:
                    n_shared -= 1
        else:
            with lock.exclusive():
                with counting:
                    if exclusive or n_shared:
                        violations.append("exclusive beside another")
                    exclusive = True
                time.sleep(0.001)
                with counting:
                    exclusive = False

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(120)))
    assert violations == []
    assert peak > 1
    assert n_shared == 0
