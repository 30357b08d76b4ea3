"""Fixtures of the stages' tests."""

from __future__ import annotations

import threading

import pytest


class Exits:
    """Records the exit codes with which the process would have ended."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self._ended = threading.Event()

    def end(self, code: int) -> None:
        """Replaces `os._exit`."""
        self.codes.append(code)
        self._ended.set()

    def wait(self) -> None:
        """Wait for the first exit."""
        assert self._ended.wait(20)


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Exits:
    """The exits of passed deadlines; the process itself goes on."""
    exits = Exits()
    monkeypatch.setattr("stages.guards.deadline.os._exit", exits.end)
    return exits
