"""A misbehaving decoder in a child process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from omnitrace_core.media.isolation.isolated_decoder import IsolatedDecoder
from omnitrace_core.options import MediaOptions
from tests.core.media.isolation.decoding_children import MISBEHAVING, RULES


@pytest.fixture(scope="module")
def misbehaving() -> Iterator[IsolatedDecoder]:
    """One decoder for most tests: what a test does to its child must not affect the next test."""
    options = MediaOptions(decode_timeout_s=20, decode_memory_mib=300)
    with IsolatedDecoder(options, RULES, MISBEHAVING) as isolated:
        yield isolated
