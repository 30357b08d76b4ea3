"""Files in S3, with atomic and conditional writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omnitrace_core.storage.conditions import Condition, if_absent, if_tag
from pipeline.storage.store import ABSENT, Entry, Store, VersionConflict


class S3Store(Store):
    """Files in S3. The server checks the condition of a write, so conditional writes are atomic."""

    is_conditional = True

    def version(self, path: str) -> str:
        """The ETag. One request, while `info` would also look for a folder of this name."""
        tag: str | None = self.fs.tag_of(path)
        return ABSENT if tag is None else tag

    def entries(self, path: str, deep: bool) -> dict[str, Entry]:
        """As `Store.entries`; one request per 1,000 files."""
        try:
            found: dict[str, Entry] = self.fs.list_objects(path, deep)
        except FileNotFoundError:  # the bucket
            return {}
        return found

    def read(self, path: str) -> bytes:
        """A whole file. Raises: FileNotFoundError."""
        return self.read_tagged(path)[0]

    def read_tagged(self, path: str) -> tuple[bytes, str]:
        """A whole file and its ETag, from one response. Raises: FileNotFoundError."""
        tagged: tuple[bytes, str] = self.fs.read_tagged(path)
        return tagged

    def upload(self, source: Path, path: str, if_version: str | None) -> None:
        """One request, or a multipart upload. Raises: VersionConflict."""
        condition: Condition = {}
        if if_version is not None:
            condition = if_absent() if if_version == ABSENT else if_tag(if_version)
        if self.fs.upload(source, path, condition) is None:
            raise VersionConflict(path)

    def create(self, path: str, content: bytes) -> bool:
        """Write a file if there is none of this name; returns whether it was written."""
        return self.fs.put_content(path, content, if_absent()) is not None

    def swap(
        self, path: str, content: bytes, tag: str, within_s: float | None = None
    ) -> str | None:
        """Replace a file if it still has this ETag; returns the new one, or None if it has not."""
        new: str | None = self.fs.put_content(path, content, if_tag(tag), within_s)
        return new

    def delete(self, paths: Sequence[str]) -> None:
        """Delete files, 1,000 per request."""
        self.fs.delete_all(paths)
