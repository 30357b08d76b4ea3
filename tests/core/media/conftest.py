"""What tests of several files start from."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.core.media.web_server import BODY, Web, response, serve_web


@pytest.fixture
def web() -> Iterator[Web]:
    """A web of one server with BODY at URL."""
    with serve_web() as web:
        web.responses["/a.png"] = response(200, BODY)
        yield web
