"""Threads side by side, and one alone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from stages.guards.turns import Turns


def test_some_together_and_one_alone() -> None:
    turns = Turns()
    guard = threading.Lock()
    together = most = 0
    broken: list[str] = []
    alone = False

    def work(number: int) -> None:
        nonlocal together, most, alone
        if number % 3:
            with turns.together():
                with guard:
                    together += 1
                    most = max(most, together)
                    if alone:
                        broken.append("beside one who is alone")
                time.sleep(0.002)
                with guard:
                    together -= 1
        else:
            with turns.alone():
                with guard:
                    if alone or together:
                        broken.append("not alone")
                    alone = True
                time.sleep(0.001)
                with guard:
                    alone = False

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(120)))
    assert broken == []
    assert most > 1
    assert together == 0
