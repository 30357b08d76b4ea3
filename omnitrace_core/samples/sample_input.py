"""What `trace`, `stream` and a backend's `prepare` take: one sample or several, in any form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from omnitrace_core.errors import InvalidSample
from omnitrace_core.records import ReadySample, Sample
from omnitrace_core.samples.parse import parse_any, with_default_id

# A mapping in any accepted form, its record, or a sample whose media are decoded already.
SampleInput = Mapping[str, object] | Sample | ReadySample


def is_single(samples: SampleInput | Sequence[SampleInput] | None) -> bool:
    """Whether this is one sample, not several."""
    return isinstance(samples, Mapping | Sample | ReadySample)


def as_sequence(samples: SampleInput | Sequence[SampleInput] | None) -> Sequence[SampleInput]:
    """Several samples as they are; a single one as a sequence of one.

    Raises:
        InvalidSample: it is neither a sample nor a sequence, or a text or bytes, which would be
            taken for a sequence of characters.
    """
    if isinstance(samples, Mapping | Sample | ReadySample):
        return [samples]
    if isinstance(samples, str | bytes) or not isinstance(samples, Iterable):
        raise _not_a_sample(samples, 1)
    return samples


def parse_input(sample: SampleInput, number: int) -> Sample | ReadySample:
    """A sample of any accepted form; records pass through.

    number: counted from 1; a mapping without an id is named `sample-<number>`.

    Raises:
        InvalidSample: it is not a valid sample; see `to_sample`.
    """
    if isinstance(sample, Sample | ReadySample):
        return sample
    if not isinstance(sample, Mapping):
        raise _not_a_sample(sample, number)
    return parse_any(with_default_id(sample, f"sample-{number}"))


def _not_a_sample(value: object, number: int) -> InvalidSample:
    return InvalidSample(
        f"sample {number} is a {type(value).__name__}; give a mapping with `messages` or "
        "`question`, or a Sample"
    )
