"""Names of the files that a run writes; no other file is ever deleted.

A folder of a run can be a link, and then other files may lie in it.
"""

from __future__ import annotations

import re

from pipeline.run_folder.attempt_log import ATTEMPTS
from pipeline.run_folder.chunk_files import CHUNK_FILES
from pipeline.run_folder.table_files import STAGED

# As `disk.partial_path` makes them.
_PARTIAL = r"\..+\.[0-9a-f]+\.partial"
_NAMES = {
    CHUNK_FILES: r"[0-9a-f]{32}\.arrow",
    # Of a chunk or of a worker, and the stage.
    ATTEMPTS: r"[0-9a-f]*\.\w+\.json",
    STAGED: r"\d{6,}\.shard-\d{5,}\.\w+",
}


def is_partial(file: str) -> bool:
    """Whether this is the temporary file of a writer. file: its name without folder."""
    return re.fullmatch(_PARTIAL, file) is not None


def own_files(subfolder: str) -> re.Pattern[str]:
    """The names of a run's files in one of its folders of temporary files, locks included."""
    name = _NAMES[subfolder]
    return re.compile(rf"{name}|\.{name}\.lock|{_PARTIAL}")
