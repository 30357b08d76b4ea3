"""How many requests to S3 each operation needs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.storage.folder import Folder
from tests.pipeline.storage.faulty_proxy import Proxy


@pytest.mark.slow
def test_listings_need_one_request_per_thousand_files(
    s3_folder: str, proxy: Proxy, s3_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{index:04}.txt" for index in range(1050)]
    with monkeypatch.context() as direct, ThreadPoolExecutor(8) as pool:
        direct.setenv("AWS_ENDPOINT_URL", s3_address)
        filled = Folder(f"{s3_folder}/many")
        list(pool.map(lambda name: filled.write(f"a/{name}", b"1"), names))
    folder = Folder(filled.root)
    for list_all in (lambda: folder.names("a"), lambda: [n[2:] for n in folder.tree("")]):
        proxy.clear()
        assert list_all() == names
        assert proxy.requests == {"ListObjectsV2": 2}
    proxy.clear()
    folder.delete_many([f"a/{name}" for name in names])
    assert proxy.requests == {"DeleteObjects": 2}
    assert folder.tree("") == []


def test_single_operations_need_one_request(s3_folder: str, proxy: Proxy) -> None:
    folder = Folder(s3_folder)
    folder.write("a", b"1")
    for operation, requests in (
        (lambda: folder.read("a"), {"GetObject": 1}),
        (lambda: folder.read_tagged("a"), {"GetObject": 1}),
        (lambda: folder.write("b", b"1"), {"PutObject": 1}),
        (lambda: folder.create("c", b"1"), {"PutObject": 1}),
        (lambda: folder.identity("a"), {"HeadObject": 1}),
        (lambda: folder.names("nothing"), {"ListObjectsV2": 1}),
    ):
        proxy.clear()
        operation()
        assert proxy.requests == requests
