"""Kill a driver, in this process, just before a change of its storage."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from pipeline.storage.folder import Folder
from tests.stages.chunks import Killed


def die_before_step(patch: pytest.MonkeyPatch, die_at: int | None) -> list[str]:
    """Raise `Killed` before the `die_at`-th change of local storage; returns the changes so far.

    patch: of the context that the driver runs in.
    """
    steps: list[str] = []

    def counted(change: Callable[..., object], kind: str) -> Callable[..., object]:
        def change_or_die(*args: object, **kwargs: object) -> object:
            steps.append(f"{kind} {args[-1]}")
            if die_at is not None and len(steps) == die_at:
                raise Killed
            return change(*args, **kwargs)

        return change_or_die

    patch.setattr("pipeline.storage.local_store.os.replace", counted(os.replace, "write"))
    patch.setattr("pipeline.storage.local_store.os.link", counted(os.link, "write"))
    patch.setattr(Folder, "delete_many", counted(Folder.delete_many, "delete"))
    patch.setattr(Folder, "delete_folder", counted(Folder.delete_folder, "delete"))
    return steps
