"""Give up on object storage after few retries. Python runs this at its start (PYTHONPATH)."""

from __future__ import annotations

from typing import Any

from tests.pipeline.when_imported import when_imported


def _shorten(module: Any) -> None:
    module.RETRIES = module.Retries(tries=4, total_s=10, first_wait_s=0.05, longest_wait_s=0.2)


when_imported("omnitrace_core.storage.s3_retries", _shorten)
