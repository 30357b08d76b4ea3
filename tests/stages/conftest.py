"""Fixtures of the stages' tests."""

from __future__ import annotations

import threading

import pytest


class Exits:
    """What a process that ends itself would have ended with."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self._ended = threading.Event()

    def end(self, code: int) -> None:
        """In place of `os._exit`."""
        self.codes.append(code)
        self._ended.set()

    def wait(self) -> None:
        """Until the first end."""
        assert self._ended.wait(20)


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Exits:
    """Of a process whose deadline passed: it goes on, here."""
    exits = Exits()
    monkeypatch.setattr("stages.guards.deadline.os._exit", exits.end)
    return exits
