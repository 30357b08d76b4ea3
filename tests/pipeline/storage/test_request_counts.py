"""How many requests to S3 things cost."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.storage.folder import Folder
from tests.pipeline.storage.faulty_proxy import Proxy


def test_listings_cost_one_request_per_thousand(
    s3_folder: str, proxy: Proxy, s3_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{index:04}.txt" for index in range(1050)]
    with monkeypatch.context() as direct, ThreadPoolExecutor(8) as pool:
        direct.setenv("AWS_ENDPOINT_URL", s3_address)
        filled = Folder(f"{s3_folder}/many")
        list(pool.map(lambda name: filled.write(f"a/{name}", b"1"), names))
    storage = Folder(filled.root)
    for list_all in (lambda: storage.names("a"), lambda: [n[2:] for n in storage.tree("")]):
        proxy.clear()
        assert list_all() == names
        assert proxy.asked == {"ListObjectsV2": 2}
    proxy.clear()
    storage.delete_many([f"a/{name}" for name in names])
    assert proxy.asked == {"DeleteObjects": 2}
    assert storage.tree("") == []


def test_single_operations_cost_single_requests(s3_folder: str, proxy: Proxy) -> None:
    storage = Folder(s3_folder)
    storage.write("a", b"1")
    for do, asked in (
        (lambda: storage.read("a"), {"GetObject": 1}),
        (lambda: storage.read_tagged("a"), {"GetObject": 1}),
        (lambda: storage.write("b", b"1"), {"PutObject": 1}),
        (lambda: storage.create("c", b"1"), {"PutObject": 1}),
        (lambda: storage.identity("a"), {"HeadObject": 1}),
        (lambda: storage.names("nothing"), {"ListObjectsV2": 1}),
    ):
        proxy.clear()
        do()
        assert proxy.asked == asked
