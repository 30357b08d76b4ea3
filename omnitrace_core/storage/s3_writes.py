"""Conditional writes of S3 objects, in one request or as a multipart upload."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from typing import Any, BinaryIO

from omnitrace_core.errors import StoreUnavailable
from omnitrace_core.printable import printable
from omnitrace_core.storage.conditions import Condition
from omnitrace_core.storage.s3_retries import error_code

_log = logging.getLogger(__name__)

# Files up to this size are written by one PUT. Larger files are uploaded in parts of this size, or
# larger if there were more than 10,000 (S3's limit), `_PARALLEL` at a time.
PART_BYTES = 32 << 20
_MAX_PARTS = 10_000
_PARALLEL = 4
# Metadata key of a random id, which shows what write made an object.
_WRITE_ID = "omnitrace-write"


class ObjectWrite:
    """One write of one object.

    call_s3: makes a request by its method name, with retries. condition: as in `conditions.py`.
    """

    def __init__(
        self, call_s3: Callable[..., Awaitable[Any]], bucket: str, key: str, condition: Condition
    ) -> None:
        self._call_s3 = call_s3
        self._condition = condition
        self._write_id = uuid.uuid4().hex
        self._target = {"Bucket": bucket, "Key": key}
        self._marked = {**self._target, "Metadata": {_WRITE_ID: self._write_id}}

    async def run(self, file: BinaryIO, size: int) -> str | None:
        """Write the `size` bytes of a file; return the ETag, or None if the condition fails.

        Raises:
            StoreUnavailable: the store did not answer, after all retries.
            OSError: any other error response.
        """
        try:
            if size <= PART_BYTES:
                response = await self._call_s3(
                    "put_object", **self._marked, Body=file.read(), **self._condition
                )
            else:
                response = await self._put_parts(file, size)
        except OSError as error:
            if isinstance(error, StoreUnavailable) or not self._is_conflict(error):
                raise
            return await self._tag_if_written(error)
        return etag_of(response)

    async def _tag_if_written(self, error: OSError) -> str | None:
        """The object's ETag if this write made it, None if its condition failed.

        If the response to a request is lost, `with_retries` or aiohttp repeats the request, and the
        condition then fails because the first try succeeded. Only the write id shows this.
        """
        try:
            head = await self._call_s3("head_object", **self._target)
        except FileNotFoundError:
            head = {}
        if head.get("Metadata", {}).get(_WRITE_ID) == self._write_id:
            return etag_of(head)
        if not self._condition or (not head and error_code(error) == "NoSuchUpload"):
            raise error
        return None

    async def _put_parts(self, file: BinaryIO, size: int) -> dict[str, Any]:
        """Write a file as a multipart upload, which is aborted if it fails."""
        created = await self._call_s3("create_multipart_upload", **self._marked)
        upload = {**self._target, "UploadId": created["UploadId"]}
        length = max(PART_BYTES, -(-size // _MAX_PARTS))
        try:
            parts = await self._send_parts(upload, file, range(0, size, length), length)
            done: dict[str, Any] = await self._call_s3(
                "complete_multipart_upload",
                **upload,
                MultipartUpload={"Parts": parts},
                **self._condition,
            )
        except BaseException as error:
            # S3 keeps, and charges for, the parts of an incomplete upload until it is aborted.
            if not isinstance(error, StoreUnavailable):
                await self._abort(upload)
            raise
        return done

    async def _send_parts(
        self, upload: dict[str, str], file: BinaryIO, starts: range, length: int
    ) -> list[dict[str, Any]]:
        """Upload all parts; holds `_PARALLEL` parts in memory."""
        sent: list[dict[str, Any]] = []
        for first in range(0, len(starts), _PARALLEL):
            numbers = range(first + 1, min(first + _PARALLEL, len(starts)) + 1)
            bodies = [file.read(length) for _ in numbers]
            responses = await asyncio.gather(
                *(
                    self._call_s3("upload_part", **upload, PartNumber=number, Body=body)
                    for number, body in zip(numbers, bodies, strict=True)
                )
            )
            sent += [
                {"PartNumber": number, "ETag": response["ETag"]}
                for number, response in zip(numbers, responses, strict=True)
            ]
        return sent

    async def _abort(self, upload: dict[str, str]) -> None:
        try:
            await self._call_s3("abort_multipart_upload", **upload)
        except FileNotFoundError:
            return  # completed or aborted before
        except OSError as error:
            # Only logged: the caller raises the error that made the upload fail.
            _log.warning("an upload that failed could not be aborted: %s", printable(error))

    def _is_conflict(self, error: OSError) -> bool:
        """Whether the condition failed, or the upload to complete no longer exists."""
        conflicts = {"PreconditionFailed", "412", "NoSuchUpload"}
        if "IfMatch" in self._condition:
            conflicts |= {"NoSuchKey", "404"}
        return error_code(error) in conflicts


def etag_of(response: dict[str, Any]) -> str:
    """The ETag in a response, without its quotes."""
    return str(response["ETag"]).strip('"')
