"""Turn any input form into a `Sample`, or refuse it with the reason.

There are three steps: `forms.normalise` turns any form into a row that can be stored,
`checks.check_row` refuses a row that is not a valid sample, `build.build_sample` builds the record.
"""

from __future__ import annotations

from collections.abc import Mapping

from omnitrace_core.errors import InvalidSample
from omnitrace_core.records import Sample
from omnitrace_core.samples.build import build_sample
from omnitrace_core.samples.checks import check_row
from omnitrace_core.samples.fitting import fit_row
from omnitrace_core.samples.forms import ID_KEYS, normalise
from omnitrace_core.samples.values import shorten


def with_default_id(obj: Mapping[str, object], sample_id: str) -> Mapping[str, object]:
    """The same record, with this id if it has none."""
    if any(obj.get(key) is not None for key in ID_KEYS):
        return obj
    return {**obj, "sample_id": sample_id}


def parse_any(obj: Mapping[str, object] | Sample, base: str = "") -> Sample:
    """A sample from any accepted input form; a Sample is returned as it is.

    base: folder or URL prefix that relative media addresses are resolved against.

    Raises:
        InvalidSample, MissingSampleId, UnknownPartType: see `to_sample`.
    """
    return obj if isinstance(obj, Sample) else to_sample(normalise(obj, base))


def to_sample(row: Mapping[str, object]) -> Sample:
    """The sample that a row describes. row: from `normalise`, or read from a Parquet file.

    Raises:
        InvalidSample, MissingSampleId, UnknownPartType: see `checks.check_row`; also values of
            a wrong type.
    """
    if not isinstance(row, Mapping):
        raise InvalidSample(f"a sample row must be a mapping, not {shorten(row)}")
    fitted, misfits = fit_row(row)
    check_row(fitted, misfits)
    return build_sample(fitted)
