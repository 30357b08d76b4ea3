"""How messages show addresses: short and without secrets."""

from __future__ import annotations

import pytest

from omnitrace_core.addresses import media_name, shown_address
from omnitrace_core.records import Part


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://a.example/b.png", "https://a.example/b.png"),
        ("https://a.example/b.png?sig=x#y", "https://a.example/b.png?…"),
        ("https://a.example#y", "https://a.example?…"),
        ("https://me:word@a.example/@b", "https://a.example/@b"),
        ("simplecache::HTTPS://a.example/b?sig=x", "simplecache::HTTPS://a.example/b?…"),
        ("s3://bucket/what?.png", "s3://bucket/what?.png"),
        ("/files/what?.png", "/files/what?.png"),
        ("https://a.example/" + "x" * 300 + "?y", "https://a.example/" + "x" * 182 + "…?…"),
    ],
)
def test_shown(uri: str, shown: str) -> None:
    assert shown_address(uri) == shown


def test_inline_media_have_no_address() -> None:
    assert media_name(Part("image", data=b"x", uri="a.png")) == "inline image"
    assert media_name(Part("audio")) == "inline audio"
    assert media_name(Part("video", uri="https://a.example/v?sig=x")) == "https://a.example/v?…"
