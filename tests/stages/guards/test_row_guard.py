from __future__ import annotations

import logging

import pytest

from omnitrace_core.errors import ConfigError, InternalError, MediaMissing
from stages.guards.row_guard import RowError, guarded


def _raise(error: BaseException) -> None:
    raise error


def test_value_passes_through() -> None:
    assert guarded("stage", "row", lambda: 7) == 7


def test_sample_error_keeps_its_code() -> None:
    error = guarded("decode_media", "row", lambda: _raise(MediaMissing("no x.png")))
    assert error == RowError("decode_media", "media_missing", "no x.png")


@pytest.mark.parametrize("message", ["part 0: no/\x1b[31m.png", "two\nlines", "a\ttab"])
def test_messages_are_recorded_as_they_were_raised(message: str) -> None:
    error = guarded("decode_media", "row", lambda: _raise(MediaMissing(message)))
    assert error == RowError("decode_media", "media_missing", message)
    error = guarded("decode_media", "row", lambda: _raise(InternalError(message)))
    assert error == RowError("decode_media", "internal", f"InternalError: {message}")


def test_unexpected_error_is_recorded_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        error = guarded("decode_media", "s:3", lambda: _raise(ZeroDivisionError("by zero")))
    assert error == RowError("decode_media", "internal", "ZeroDivisionError: by zero")
    assert "s:3" in caplog.text
    assert "Traceback" in caplog.text


def test_fatal_error_is_raised() -> None:
    with pytest.raises(ConfigError, match="broken"):
        guarded("stage", "row", lambda: _raise(ConfigError("broken")))


def test_interrupt_is_not_swallowed() -> None:
    with pytest.raises(KeyboardInterrupt):
        guarded("stage", "row", lambda: _raise(KeyboardInterrupt()))
