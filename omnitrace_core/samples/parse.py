"""From rows to samples, strictly: what is not a valid sample is refused with its reason.

`normalise` (see `input_forms` for the accepted forms) is the lenient half: it turns any form into a
row that can be stored. `to_sample` is the strict half: it checks such a row and builds the record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from omnitrace_core.errors import InvalidSample, MissingSampleId, UnknownPartType
from omnitrace_core.records import PART_TYPES, Message, Modality, Part, Sample
from omnitrace_core.samples.forms import ID_KEYS, normalise, rejected_row
from omnitrace_core.samples.parts import default_evidence
from omnitrace_core.samples.row_checks import read_labels, read_options, read_segments
from omnitrace_core.samples.row_shape import (
    INGEST_ERROR,
    MessageRow,
    PartRow,
    SampleRow,
    clip,
    fit_row,
)

__all__ = ["ID_KEYS", "ROLES", "named", "normalise", "parse_any", "rejected_row", "to_sample"]

ROLES: tuple[str, ...] = ("system", "user", "assistant", "tool")


def named(obj: Mapping[str, object], name: str) -> Mapping[str, object]:
    """The same record with `name` for its id if it has none: small jobs need not number theirs."""
    if any(obj.get(key) is not None for key in ID_KEYS):
        return obj
    return {**obj, "sample_id": name}


def parse_any(obj: Mapping[str, object] | Sample, base: str = "") -> Sample:
    """A sample from any accepted input form; a Sample passes through.

    base: folder or URL prefix that relative media addresses are resolved against.

    Raises:
        InvalidSample, MissingSampleId, UnknownPartType: see `to_sample`.
    """
    return obj if isinstance(obj, Sample) else to_sample(normalise(obj, base))


def to_sample(row: Mapping[str, object]) -> Sample:
    """The sample that a row in sample shape describes (from `normalise`, or from Arrow).

    Raises:
        MissingSampleId: `sample_id` is null or blank.
        UnknownPartType: a content part is none of `PART_TYPES`.
        InvalidSample: anything else that cannot be asked or replayed, including rows that ingest
            could not understand.
    """
    if not isinstance(row, Mapping):
        raise InvalidSample(f"a sample row must be a mapping, not {clip(row)}")
    fitted, misfits = fit_row(row)
    sample_id = fitted["sample_id"]
    name = f"sample {clip(sample_id)}" if sample_id else "sample without an id"
    metadata = fitted["metadata"] or {}
    reasons = [metadata[INGEST_ERROR]] if INGEST_ERROR in metadata else misfits
    if reasons:
        raise InvalidSample(f"{name}: {'; '.join(reasons)}; correct the input record")
    if sample_id is None or not sample_id.strip():
        raise MissingSampleId(
            f"{name}: sample_id is {sample_id!r}; give every sample a unique, non-empty text under "
            f"{' or '.join(ID_KEYS)}"
        )
    try:
        return _sample(sample_id, fitted, metadata)
    except InvalidSample as exc:
        raise type(exc)(f"{name}: {exc}") from None


def _sample(sample_id: str, row: SampleRow, metadata: Mapping[str, str]) -> Sample:
    messages = _messages(row["messages"])
    response, token_ids = row["response"], row["response_token_ids"]
    if response is not None and not response.strip():
        raise InvalidSample(
            f"response is {clip(response)}; give the text to replay, or null to generate one"
        )
    if token_ids is not None and (not token_ids or any(t is None or t < 0 for t in token_ids)):
        raise InvalidSample(
            f"response_token_ids is {clip(token_ids)}; give the response's token ids, or null"
        )
    if response is None and token_ids is None and messages[-1].role == "assistant":
        raise InvalidSample(
            "the last message is the assistant's and there is no response; give its text as "
            "`response`, or end with the message to be answered"
        )
    options = row["options"] or []
    if not all(options):
        raise InvalidSample(f"options is {clip(options)}; give each option its text")
    parts = [part for message in messages for part in message.content]
    return Sample(
        sample_id=sample_id,
        messages=messages,
        response=response,
        response_token_ids=None if token_ids is None else tuple(cast("list[int]", token_ids)),
        reference_answer=row["reference_answer"],
        options=tuple(cast("list[str]", options)),
        labels=read_labels(row["labels"], parts, response),
        metadata=dict(metadata),
    )


def _messages(rows: list[MessageRow | None] | None) -> tuple[Message, ...]:
    if not rows:
        raise InvalidSample(
            "there are no messages; give `messages` (chat) or `question` (reference format)"
        )
    messages: list[Message] = []
    n_parts = 0
    for i, row in enumerate(rows):
        role = row["role"] if row else None
        if row is None or role not in ROLES:
            raise InvalidSample(f"message {i}: role is {role!r}, not one of {', '.join(ROLES)}")
        content = row["content"]
        if not content:
            raise InvalidSample(f"message {i} ({role}) has no content; give it a part or remove it")
        parts = tuple(_part(part, role, n_parts + k) for k, part in enumerate(content))
        messages.append(Message(role, parts))
        n_parts += len(parts)
    return tuple(messages)


def _part(row: PartRow | None, role: str, index: int) -> Part:
    """index: the part's place among all parts of the sample, as `part_index` counts."""
    where = f"part {index}"
    kind = row["type"] if row else None
    if row is None or kind not in PART_TYPES:
        raise UnknownPartType(
            f"{where} is of type {clip(kind)}; valid types are {', '.join(PART_TYPES)}"
        )
    if kind == "text":
        _check_text_part(row, where)
    else:
        _check_media_part(row, where)
    evidence = row["evidence"]
    return Part(
        type=cast(Modality, kind),
        text=row["text"] or "",
        uri=row["uri"] or "",
        data=row["data"],
        evidence=default_evidence(role, kind) if evidence is None else evidence,
        options=read_options(row["options"], where),
        segments=read_segments(row["segments"], where),
    )


def _check_text_part(row: PartRow, where: str) -> None:
    if not row["text"]:
        raise InvalidSample(f"{where} (text): text is {row['text']!r}; give it words or remove it")
    for name in ("uri", "data", "segments"):
        if row.get(name):
            raise InvalidSample(
                f"{where} (text) has {name} {clip(row.get(name))}; give media a part of their own"
            )


def _check_media_part(row: PartRow, where: str) -> None:
    kind, uri, data = row["type"], row["uri"], row["data"]
    if not uri and data is None:
        raise InvalidSample(f"{where} ({kind}) has neither uri nor data; give one of them")
    if uri and data is not None:
        raise InvalidSample(
            f"{where} ({kind}) has both uri {clip(uri)} and data ({len(data):,} bytes); give one"
        )
    if row["text"]:
        raise InvalidSample(
            f"{where} ({kind}) has text {clip(row['text'])}; make it a text part of its own"
        )
    if kind == "image" and row["segments"]:
        raise InvalidSample(f"{where} (image) has speech segments; only audio and video have them")
