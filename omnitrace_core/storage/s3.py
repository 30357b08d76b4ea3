"""S3 through s3fs, with retries in one place and conditional writes."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from botocore.exceptions import ClientError
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error

from omnitrace_core.addresses import scrub, shown_address
from omnitrace_core.errors import StoreCredentials, StoreUnavailable
from omnitrace_core.storage import s3_retries, s3_writes
from omnitrace_core.storage.conditions import Condition
from omnitrace_core.storage.s3_retries import error_code, with_retries
from omnitrace_core.storage.s3_writes import ObjectWrite, etag_of

_KEYS_PER_DELETE = 1000


class RetryingS3(S3FileSystem):
    """An S3 file system that makes every request, with the reading of its body, by `with_retries`.

    So all operations of s3fs (open, info, cat, listings) are retried alike.
    """

    retries = 1

    def __init__(self, **kwargs: Any) -> None:
        bounds = s3_retries.RETRIES
        config = {
            "connect_timeout": bounds.connect_timeout_s,
            "read_timeout": bounds.read_timeout_s,
            "retries": {"mode": "standard", "total_max_attempts": 1},
        }
        super().__init__(config_kwargs=config, **kwargs)

    def split_path(self, path: str) -> tuple[str, str, str | None]:
        """Bucket and key; `?versionId=` is part of the key, as every `?` is."""
        place, mark, rest = path.partition("?versionId=")
        bucket, key, version = super().split_path(place)
        return bucket, key + mark + rest, version

    async def _call_s3(self, method: str, *more: Any, **kwargs: Any) -> Any:
        address = _address(kwargs)

        async def request() -> Any:
            response = await S3FileSystem._call_s3(self, method, *more, **kwargs)
            if method == "get_object":
                stream = response["Body"]
                try:
                    response["Body"] = _Body(await stream.read())
                finally:
                    stream.close()
            return response

        try:
            return await with_retries(request, address)
        except FileNotFoundError as error:
            known = {"NoSuchBucket": "no such bucket; create it or correct the address"}
            problem = known.get(error_code(error), "no such object")
            raise FileNotFoundError(f"{shown_address(address)}: {problem}") from error
        except StoreCredentials:
            raise
        except PermissionError as error:
            raise PermissionError(
                f"{shown_address(address)}: the store refuses access "
                f"({error_code(error)}: {scrub(str(error))})"
            ) from error

    call_s3 = sync_wrapper(_call_s3)

    async def _list_objects(self, path: str, deep: bool) -> dict[str, dict[str, Any]]:
        """The objects of a folder: their path relative to it, and their entry in the listing.

        One request per 1,000 keys. deep: also list the folders below.
        """
        bucket, key, _ = self.split_path(path)
        prefix = f"{key.rstrip('/')}/" if key else ""
        request = {"Bucket": bucket, "Prefix": prefix, "Delimiter": "" if deep else "/"}
        found: dict[str, dict[str, Any]] = {}
        async for page in self._pages(request):
            for item in page.get("Contents", []):
                name = item["Key"][len(prefix) :]
                if name and not name.endswith("/"):
                    found[name] = {**item, "size": item["Size"], "type": "file"}
        return found

    list_objects = sync_wrapper(_list_objects)

    async def _pages(self, request: dict[str, str]) -> AsyncIterator[dict[str, Any]]:
        while True:
            page = await self._call_s3("list_objects_v2", **request)
            yield page
            if not page.get("IsTruncated"):
                return
            request = {**request, "ContinuationToken": page["NextContinuationToken"]}

    async def _delete_all(self, paths: Sequence[str]) -> None:
        """Delete objects of one bucket, 1,000 per request; missing objects are ignored."""
        keys = [self.split_path(path)[:2] for path in paths]
        for start in range(0, len(keys), _KEYS_PER_DELETE):
            bucket = keys[start][0]
            batch = [key for _, key in keys[start : start + _KEYS_PER_DELETE]]
            await with_retries(partial(self._delete_batch, bucket, batch), f"s3://{bucket}")

    delete_all = sync_wrapper(_delete_all)

    async def _delete_batch(self, bucket: str, keys: list[str]) -> None:
        """Delete up to 1,000 keys; the response may hold an error code for each key."""
        request = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        response = await self._call_s3("delete_objects", Bucket=bucket, Delete=request)
        failed = [item for item in response.get("Errors", []) if item.get("Code") != "NoSuchKey"]
        if failed:
            raise translate_boto_error(ClientError({"Error": failed[0]}, "DeleteObjects"))

    async def _isfile(self, path: str) -> bool:
        return await self._type(path) == "file"

    async def _isdir(self, path: str) -> bool:
        return await self._type(path) == "directory"

    async def _type(self, path: str) -> str | None:
        """The type of what lies at a path, None if nothing does.

        s3fs itself would take any error for a missing object.
        """
        try:
            return str((await self._info(path))["type"])
        except FileNotFoundError:
            return None

    async def _read_tagged(self, path: str) -> tuple[bytes, str]:
        bucket, key, _ = self.split_path(path)
        response = await self._call_s3("get_object", Bucket=bucket, Key=key)
        return await response["Body"].read(), etag_of(response)

    read_tagged = sync_wrapper(_read_tagged)

    async def _get_file(self, rpath: str, lpath: str, *args: Any, **kwargs: Any) -> None:
        """Copy an object into a local file, one byte range at a time, all of the same version."""
        bucket, key, _ = self.split_path(rpath)
        head = await self._call_s3("head_object", Bucket=bucket, Key=key)
        with open(lpath, "wb") as file:
            step = s3_writes.PART_BYTES
            for start in range(0, head["ContentLength"], step):
                response = await self._call_s3(
                    "get_object",
                    Bucket=bucket,
                    Key=key,
                    Range=f"bytes={start}-{start + step - 1}",
                    IfMatch=head["ETag"],
                )
                file.write(await response["Body"].read())

    async def _tag_of(self, path: str) -> str | None:
        """The ETag of an object, None if there is no object."""
        bucket, key, _ = self.split_path(path)
        try:
            return etag_of(await self._call_s3("head_object", Bucket=bucket, Key=key))
        except FileNotFoundError:
            return None

    tag_of = sync_wrapper(_tag_of)

    async def _put_content(
        self, path: str, content: bytes, condition: Condition, within_s: float | None = None
    ) -> str | None:
        """Write an object in one request; return its ETag, or None if the condition fails.

        condition: `if_absent()`, `if_tag(tag)`, or empty. within_s: limit of all tries together.
        """
        put = self._write_object(path, io.BytesIO(content), len(content), condition)
        try:
            return await asyncio.wait_for(put, within_s)
        except TimeoutError as error:
            raise StoreUnavailable(
                f"s3://{path.removeprefix('s3://')}: object storage did not answer within "
                f"{within_s:g} s; check the network and AWS_ENDPOINT_URL"
            ) from error

    put_content = sync_wrapper(_put_content)

    async def _upload(self, source: Path, path: str, condition: Condition) -> str | None:
        """Write a file of any size; return its ETag, or None if the condition fails."""
        with source.open("rb") as file:
            return await self._write_object(path, file, os.fstat(file.fileno()).st_size, condition)

    upload = sync_wrapper(_upload)

    async def _write_object(
        self, path: str, file: BinaryIO, size: int, condition: Condition
    ) -> str | None:
        bucket, key, _ = self.split_path(path)
        return await ObjectWrite(self._call_s3, bucket, key, condition).run(file, size)


class _Body:
    """A response body that is already in memory, with the interface that s3fs expects."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    async def read(self, size: int = -1) -> bytes:
        return self._content.read(size)

    def close(self) -> None:
        self._content.close()


def _address(request: dict[str, Any]) -> str:
    return "s3://" + "/".join(filter(None, (request.get("Bucket"), request.get("Key"))))
