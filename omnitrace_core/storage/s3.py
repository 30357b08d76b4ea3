"""S3, as s3fs reads it, with retries in one place and writes that only succeed on a condition."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import uuid
from collections.abc import AsyncIterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from botocore.exceptions import ClientError
from fsspec.asyn import sync_wrapper
from s3fs import S3FileSystem
from s3fs.errors import translate_boto_error

from omnitrace_core.errors import StoreCredentials, StoreUnavailable
from omnitrace_core.storage import s3_retries
from omnitrace_core.storage.conditions import Condition
from omnitrace_core.storage.s3_retries import answer_code, persist

_log = logging.getLogger(__name__)

# A file of up to this size is one PUT; above it, parts of this size (or of what makes 10,000 parts,
# S3's limit), so many at a time.
PART_BYTES = 32 << 20
_MAX_PARTS = 10_000
_PARALLEL = 4
_KEYS_PER_DELETE = 1000
# Names who wrote an object: see `RetryingS3._is_ours`.
_WRITE_ID = "omnitrace-write"


class RetryingS3(S3FileSystem):
    """Every request goes through `persist`; a response's body is read within it.

    So whatever s3fs does by requests (open, info, cat, listings) survives what `persist` does.
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

    async def _call_s3(self, method: str, *more: Any, **kwargs: Any) -> Any:
        address = _address(kwargs)

        async def request() -> Any:
            answer = await S3FileSystem._call_s3(self, method, *more, **kwargs)
            if method == "get_object":
                stream = answer["Body"]
                try:
                    answer["Body"] = _Body(await stream.read())
                finally:
                    stream.close()
            return answer

        try:
            return await persist(request, address)
        except FileNotFoundError as error:
            known = {"NoSuchBucket": "no such bucket; create it or correct the address"}
            told = known.get(answer_code(error), "no such object")
            raise FileNotFoundError(f"{address}: {told}") from error
        except StoreCredentials:
            raise
        except PermissionError as error:
            told = f"{address}: the store refuses ({answer_code(error)}: {error})"
            raise PermissionError(told) from error

    call_s3 = sync_wrapper(_call_s3)

    # --- listing and deleting ---------------------------------------------------------------

    async def _listed(self, path: str, deep: bool) -> dict[str, dict[str, Any]]:
        """The objects below a folder by their name in it, with what listings tell of them.

        One request per 1,000 keys. deep: also those in folders below.
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

    listed = sync_wrapper(_listed)

    async def _pages(self, request: dict[str, str]) -> AsyncIterator[dict[str, Any]]:
        while True:
            page = await self._call_s3("list_objects_v2", **request)
            yield page
            if not page.get("IsTruncated"):
                return
            request = {**request, "ContinuationToken": page["NextContinuationToken"]}

    async def _delete_all(self, paths: Sequence[str]) -> None:
        """Delete objects of one bucket, 1,000 a request; those that are gone are no error."""
        places = [self.split_path(path)[:2] for path in paths]
        for start in range(0, len(places), _KEYS_PER_DELETE):
            bucket = places[start][0]
            left = [key for _, key in places[start : start + _KEYS_PER_DELETE]]
            await persist(partial(self._delete_batch, bucket, left), f"s3://{bucket}")

    delete_all = sync_wrapper(_delete_all)

    async def _delete_batch(self, bucket: str, keys: list[str]) -> None:
        """An answer to this can be an error for some of the keys, of each a code of its own."""
        order = {"Objects": [{"Key": key} for key in keys], "Quiet": True}
        answer = await self._call_s3("delete_objects", Bucket=bucket, Delete=order)
        failed = [item for item in answer.get("Errors", []) if item.get("Code") != "NoSuchKey"]
        if failed:
            raise translate_boto_error(ClientError({"Error": failed[0]}, "DeleteObjects"))

    async def _isfile(self, path: str) -> bool:
        return await self._type(path) == "file"

    async def _isdir(self, path: str) -> bool:
        return await self._type(path) == "directory"

    async def _type(self, path: str) -> str | None:
        """s3fs takes every error for a no; here only one that says so."""
        try:
            return str((await self._info(path))["type"])
        except FileNotFoundError:
            return None

    # --- reading ----------------------------------------------------------------------------

    async def _read_tagged(self, path: str) -> tuple[bytes, str]:
        bucket, key, _ = self.split_path(path)
        answer = await self._call_s3("get_object", Bucket=bucket, Key=key)
        return await answer["Body"].read(), _tag(answer)

    read_tagged = sync_wrapper(_read_tagged)

    async def _get_file(self, rpath: str, lpath: str, *args: Any, **kwargs: Any) -> None:
        """Copy an object into a local file, a stretch at a time, all of one version."""
        bucket, key, _ = self.split_path(rpath)
        head = await self._call_s3("head_object", Bucket=bucket, Key=key)
        with open(lpath, "wb") as file:
            for start in range(0, head["ContentLength"], PART_BYTES):
                answer = await self._call_s3(
                    "get_object",
                    Bucket=bucket,
                    Key=key,
                    Range=f"bytes={start}-{start + PART_BYTES - 1}",
                    IfMatch=head["ETag"],
                )
                file.write(await answer["Body"].read())

    async def _tag_of(self, path: str) -> str | None:
        """The ETag of an object, if there is one."""
        bucket, key, _ = self.split_path(path)
        try:
            return _tag(await self._call_s3("head_object", Bucket=bucket, Key=key))
        except FileNotFoundError:
            return None

    tag_of = sync_wrapper(_tag_of)

    # --- writing ----------------------------------------------------------------------------

    async def _put_content(
        self, path: str, content: bytes, condition: Condition, within_s: float | None = None
    ) -> str | None:
        """Write an object in one request; returns its tag, or None if the condition is not met.

        condition: `if_absent()`, `if_tag(tag)`, or none. within_s: bound on all tries together.
        """
        put = self._put(path, io.BytesIO(content), len(content), condition)
        try:
            return await asyncio.wait_for(put, within_s)
        except TimeoutError as error:
            raise StoreUnavailable(
                f"s3://{path.removeprefix('s3://')}: object storage did not answer within "
                f"{within_s:g} s; check the network and AWS_ENDPOINT_URL"
            ) from error

    put_content = sync_wrapper(_put_content)

    async def _upload(self, source: Path, path: str, condition: Condition) -> str | None:
        """Write a file of any size; returns its tag, or None if the condition is not met."""
        with source.open("rb") as file:
            return await self._put(path, file, os.fstat(file.fileno()).st_size, condition)

    upload = sync_wrapper(_upload)

    async def _put(self, path: str, file: BinaryIO, size: int, condition: Condition) -> str | None:
        bucket, key, _ = self.split_path(path)
        place = {"Bucket": bucket, "Key": key}
        write_id = uuid.uuid4().hex
        mark = {**place, "Metadata": {_WRITE_ID: write_id}}
        try:
            if size <= PART_BYTES:
                answer = await self._call_s3("put_object", **mark, Body=file.read(), **condition)
            else:
                answer = await self._put_parts(place, mark, file, size, condition)
        except OSError as error:
            if isinstance(error, StoreUnavailable) or not _is_conflict(error, condition):
                raise
            return await self._ours(place, write_id, error, condition)
        return _tag(answer)

    async def _ours(
        self, place: dict[str, str], write_id: str, error: OSError, condition: Condition
    ) -> str | None:
        """The tag of the object if it is what this very write put there.

        A request whose answer was lost and that was made again, by `persist` or by aiohttp on its
        own, is refused because of what it did itself the first time; only the mark tells.
        """
        try:
            head = await self._call_s3("head_object", **place)
        except FileNotFoundError:
            head = {}
        if head.get("Metadata", {}).get(_WRITE_ID) == write_id:
            return _tag(head)
        if not condition or (not head and answer_code(error) == "NoSuchUpload"):
            raise error
        return None

    async def _put_parts(
        self,
        place: dict[str, str],
        mark: dict[str, Any],
        file: BinaryIO,
        size: int,
        condition: Condition,
    ) -> dict[str, Any]:
        upload = await self._call_s3("create_multipart_upload", **mark)
        ours = {**place, "UploadId": upload["UploadId"]}
        length = max(PART_BYTES, -(-size // _MAX_PARTS))
        try:
            parts = await self._send_parts(ours, file, range(0, size, length), length)
            done: dict[str, Any] = await self._call_s3(
                "complete_multipart_upload", **ours, MultipartUpload={"Parts": parts}, **condition
            )
        except BaseException as error:
            # Parts of an upload that is not completed are kept, and paid for, until it is aborted.
            if not isinstance(error, StoreUnavailable):
                await self._abort(ours)
            raise
        return done

    async def _send_parts(
        self, ours: dict[str, str], file: BinaryIO, starts: range, length: int
    ) -> list[dict[str, Any]]:
        """Memory: `_PARALLEL` parts."""
        sent: list[dict[str, Any]] = []
        for first in range(0, len(starts), _PARALLEL):
            numbers = range(first + 1, min(first + _PARALLEL, len(starts)) + 1)
            bodies = [file.read(length) for _ in numbers]
            answers = await asyncio.gather(
                *(
                    self._call_s3("upload_part", **ours, PartNumber=number, Body=body)
                    for number, body in zip(numbers, bodies, strict=True)
                )
            )
            sent += [
                {"PartNumber": number, "ETag": answer["ETag"]}
                for number, answer in zip(numbers, answers, strict=True)
            ]
        return sent

    async def _abort(self, ours: dict[str, str]) -> None:
        try:
            await self._call_s3("abort_multipart_upload", **ours)
        except FileNotFoundError:
            return  # completed, or gone
        except OSError as error:
            # What went wrong before this is what is told.
            _log.warning("an upload that failed could not be aborted: %s", error)


class _Body:
    """What was read of a response, behind the face that s3fs expects."""

    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)

    async def read(self, size: int = -1) -> bytes:
        return self._content.read(size)

    def close(self) -> None:
        self._content.close()


def _tag(answer: dict[str, Any]) -> str:
    return str(answer["ETag"]).strip('"')


def _is_conflict(error: OSError, condition: Condition) -> bool:
    """Whether the condition was not met, or the upload to complete is no longer there."""
    code = answer_code(error)
    met = {"PreconditionFailed", "412", "NoSuchUpload"}
    if "IfMatch" in condition:
        met |= {"NoSuchKey", "404"}
    return code in met


def _address(request: dict[str, Any]) -> str:
    return "s3://" + "/".join(filter(None, (request.get("Bucket"), request.get("Key"))))
