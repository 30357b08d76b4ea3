"""What `trace`, `stream` and a backend's `prepare` take: one sample or several, in any form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from omnitrace_core.errors import InvalidSample
from omnitrace_core.records import ReadySample, Sample
from omnitrace_core.samples.parse import parse_any, with_default_id

# A mapping in any accepted form, its record, or a sample whose media are decoded already.
SampleInput = Mapping[str, object] | Sample | ReadySample


def is_single(samples: SampleInput | Sequence[SampleInput]) -> bool:
    """Whether this is one sample. A text is, too: an invalid one, rather than its characters."""
    return isinstance(samples, Mapping | Sample | ReadySample | str | bytes)


def as_sequence(samples: SampleInput | Sequence[SampleInput]) -> Sequence[SampleInput]:
    """Several samples as they are; a single one as a sequence of one."""
    return [samples] if is_single(samples) else samples  # type: ignore[list-item,return-value]


def parse_input(sample: SampleInput, number: int) -> Sample | ReadySample:
    """A sample of any accepted form; records pass through.

    number: counted from 1; a mapping without an id is named `sample-<number>`.

    Raises:
        InvalidSample: it is not a valid sample; see `to_sample`.
    """
    if isinstance(sample, Sample | ReadySample):
        return sample
    if not isinstance(sample, Mapping):
        raise InvalidSample(
            f"sample {number} is a {type(sample).__name__}; give a mapping with `messages` or "
            "`question`, or a Sample"
        )
    return parse_any(with_default_id(sample, f"sample-{number}"))
