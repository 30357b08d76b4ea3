"""Raise whatever a store's client raises as an error of the sample's media, without its secrets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from omnitrace_core.addresses import media_name, scrub
from omnitrace_core.errors import (
    ConfigError,
    MediaDenied,
    MediaError,
    MediaMissing,
    MediaUnavailable,
    OmniTraceError,
    StoreUnavailable,
)
from omnitrace_core.records import Part
from omnitrace_core.runtime.node_faults import doubt_texts

_MAX_REASON_CHARS = 400


@contextmanager
def store_errors(part: Part) -> Iterator[None]:
    """For calls of a store's client alone, which is code of others and may raise anything.

    Their texts may repeat a signed URL or a token, so they are scrubbed.

    Raises:
        MediaMissing, MediaDenied, MediaUnavailable, MediaError: in place of the client's error.
    """
    name = media_name(part)
    try:
        with _doubting_texts():
            yield
    except FileNotFoundError as error:
        raise MediaMissing(f"{name}: no such object") from error
    except ImportError as error:
        raise MediaDenied(
            f"{name}: the package that reads such addresses is not installed ({_reason(error)}); "
            "pip install it on all nodes, or copy the media to another store"
        ) from error
    except PermissionError as error:
        raise MediaDenied(
            f"{name}: the store refuses access ({_reason(error)}); check its credentials"
        ) from error
    except StoreUnavailable as error:
        raise MediaUnavailable(f"{name}: {_reason(error)}") from error
    except ConfigError as error:
        raise MediaMissing(
            f"{name}: this is not a valid address of an object ({_reason(error)})"
        ) from error
    except (OmniTraceError, MemoryError):
        raise
    except Exception as error:
        raise MediaError(
            f"{name}: the store could not be read: {_reason(error)}; check the address, the "
            "store and its credentials"
        ) from error


@contextmanager
def _doubting_texts() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        doubt_texts(error)
        raise


def _reason(error: BaseException) -> str:
    text = error.message if isinstance(error, OmniTraceError) else str(error)
    shown = " ".join(scrub(text).split())
    if not isinstance(error, OmniTraceError | OSError | ImportError):
        shown = f"{type(error).__name__}: {shown}"
    return shown if len(shown) <= _MAX_REASON_CHARS else f"{shown[:_MAX_REASON_CHARS]}…"
