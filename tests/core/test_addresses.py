"""How messages show addresses: short and without secrets."""

from __future__ import annotations

import pytest

from omnitrace_core.addresses import media_name, scrub, shown_address
from omnitrace_core.records import Part

ARN = "arn:aws:s3:us-east-1:123456789012:accesspoint"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://a.example/b.png", "https://a.example/b.png"),
        ("https://a.example/b.png?sig=x#y", "https://a.example/b.png?…"),
        ("https://a.example#y", "https://a.example?…"),
        ("https://me:word@a.example/@b", "https://…@b"),
        ("https:/me:word@a.example/b?sig=x", "https:/…@a.example/b?…"),
        ("s3://key:wo/rd@bucket/a.png", "s3://…@bucket/a.png"),
        ("s3://key:/rd@bucket/a.png", "s3://…@bucket/a.png"),
        ("s3://key:12/rd@bucket/a.png", "s3://…@bucket/a.png"),
        ("s3://key:p@a/rd@bucket/a.png", "s3://…@bucket/a.png"),
        ("s3://key:wo?rd@bucket/a.png", "s3://…?…"),
        ("s3://key:12/?rd@bucket/a.png", "s3://…?…"),
        ("zip://x::s3://key:/rd@bucket/a.zip", "zip://x::s3://…@bucket/a.zip"),
        ("https:///me:word@host/x", "https:///…@host/x"),
        ("https://[::1]:443/x", "https://[::1]:443/x"),
        (f"s3://{ARN}/point/a@b", f"s3://{ARN}/point/a@b"),
        ("s3://key:a::b@bucket/a.png", "s3://bucket/a.png"),
        ("s3://bucket/2020-01-01T10:00@cam.png", "s3://bucket/2020-01-01T10:00@cam.png"),
        ("https://a.example:443/b@2x.png", "https://…@2x.png"),
        ("https://a.example:443/b.png", "https://a.example:443/b.png"),
        ("hf://datasets/a/b@main/c.png", "hf://datasets/a/b@main/c.png"),
        ("abfs://box@account/a.png", "abfs://box@account/a.png"),
        ("abfs://me:word@account/a.png", "abfs://account/a.png"),
        ("zip://a.png::s3://me:word@b/c.zip?x=1::y", "zip://a.png::s3://b/c.zip?…"),
        ("me:word@host/a.png", "…@host/a.png"),
        ("s3:me:word@bucket/a.png", "s3:…@bucket/a.png"),
        ("//me:word@host/a.png", "//…@host/a.png"),
        ("unknown+x://me@host/a#b", "unknown+x://host/a?…"),
        ("a\ud800b", "a\\ud800b"),
        ("simplecache::HTTPS://a.example/b?sig=x", "simplecache::HTTPS://a.example/b?…"),
        ("s3://bucket/what?.png", "s3://bucket/what?…"),
        ("/files/what?.png", "/files/what?.png"),
        ("https://a.example/" + "x" * 300 + "?y", "https://a.example/" + "x" * 182 + "…?…"),
    ],
)
def test_shown(uri: str, shown: str) -> None:
    assert shown_address(uri) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("GET https://me:word@host/a?sig=x: 403", "GET https://host/a?…: 403"),
        ("url 'hf://a/b@main/c?token=x'.", "url 'hf://a/b@main/c?…'."),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer …"),
        ("{'x-amz-security-token': 'AbCdEf123'}", "{'x-amz-security-token': '…'}"),
        ("password=hunter22, user=me", "password=…, user=me"),
        ("login me:word22@host failed", "login …@host failed"),
        ("the value of-the-environment", "the value …"),
        ("signed with /slashes/first", "signed with …"),
        ("the account's key is a1b2c3d4e5", "the account's key is …"),
        ("Name=x;AccountKey=0a1b2c3d==;Suffix=y", "Name=x;AccountKey=…;Suffix=y"),
        ("se=2030&sig=AbCdEf123%3D&sp=r", "se=2030&sig=…&sp=r"),
        ("SharedKey account:AbCdEf123=", "SharedKey …"),
        ('{"private_key": "-----BEGIN PRIVATE KEY-----\\nAbCd ef"}', '{"private_key": "…'),
        ("see /usr/local/../../usr for more", None),
        ("hf://datasets/a/b@main/c and abfs://box@account/x", None),
        ("set AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN)", None),
        ("check its credentials (InvalidAccessKeyId)", None),
        ("12:30: token is missing; see s3://bucket/a.png", None),
    ],
)
def test_scrubbed(text: str, shown: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SERVICE_TOKEN", "of-the-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "/slashes/first")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", "AccountName=x;AccountKey=a1b2c3d4e5")
    monkeypatch.setenv("MY_CREDENTIALS", "/usr/local/../../usr")  # a path that is there
    assert scrub(text) == (text if shown is None else shown)


@pytest.mark.parametrize("piece", ["a", "a:", "a-", "token=", "a:/", "@a:"])
def test_long_texts_take_little_time(piece: str) -> None:
    """Some of these took hours with expressions that begin anywhere."""
    assert len(scrub(piece * (10**6 // len(piece)))) < 200_000


def test_inline_media_have_no_address() -> None:
    assert media_name(Part("image", data=b"x", uri="a.png")) == "inline image"
    assert media_name(Part("audio")) == "inline audio"
    assert media_name(Part("video", uri="https://a.example/v?sig=x")) == "https://a.example/v?…"
