"""Every accepted input form, turned into one: the plain-dict row of a sample.

The forms, told apart by their keys:
- our own: the columns of a sample row; a part's options may also stand flat beside its type;
- chat (OpenAI): `messages` whose content is text or a list of `text`, `image_url`, `input_audio`,
  `video_url` parts; batch lines (`custom_id`, `body`) are unfolded first;
- Qwen: `{"type": "video", "video": address, "fps": 2}`, and the same for image and audio;
- the reference format (the paper's release): `prompt`, `question`, `answer`. It becomes one user
  message: the prompt as an instruction (`evidence` false), then the question's parts in order.

Rules that hold for all of them:
- The id is the first of `sample_id`, `id`, `custom_id` that is given; numbers become text.
- A text that closes the dialogue in the assistant's name is the response, unless `response` is set.
- Text of system messages is an instruction unless its part sets `evidence` itself; the role
  `developer` means `system`.
- Media are addresses, bytes, data: URIs, base64 (`data` of a part or of `input_audio`), or a
  mapping that holds one of these under `url`, `uri`, `path`, `data` or `bytes`; in such a mapping
  bytes win over an address. An untyped block `{"text": ..., "image": [...]}` is several parts.
- Extra top-level keys with scalar values join `metadata` as text (`metadata` itself wins); nested
  ones, and keys of a part that are none of ours, are left out.
- What cannot be understood or stored is described in `metadata["ingest_error"]`, and the strict
  reader turns it into this sample's error.
"""

from __future__ import annotations

from collections.abc import Mapping

from omnitrace_core.errors import InvalidSample
from omnitrace_core.samples.content import ContentReader, DraftMessage
from omnitrace_core.samples.fitting import fit, fit_row
from omnitrace_core.samples.rows import INGEST_ERROR, SampleRow
from omnitrace_core.samples.values import any_text, as_list, clip, is_missing, scalar_text

ID_KEYS: tuple[str, ...] = ("sample_id", "id", "custom_id")

_SAMPLE_KEYS: tuple[str, ...] = tuple(SampleRow.__annotations__)
_LOOSE_MEDIA = ("image", "images", "audio", "audios", "video", "videos")
_MAX_PROBLEMS_CHARS = 2_000


def normalise(obj: Mapping[str, object], base: str = "") -> dict[str, object]:
    """Any accepted form as a row in the shape of a sample: all keys there, None where absent.

    base: folder or URL prefix that relative media addresses are resolved against.
    `messages` is a list and `metadata` a dict, possibly empty. The row can always be stored;
    `parse.to_sample` decides whether it is a valid sample.

    Raises:
        InvalidSample: obj is no mapping at all.
    """
    if not isinstance(obj, Mapping):
        raise InvalidSample(
            f"a sample must be a mapping with `messages` or `question`, not {clip(obj)}"
        )
    fields = _unfold_batch_line(obj)
    problems: list[str] = []
    row: dict[str, object] = {name: fields.get(name) for name in _SAMPLE_KEYS}
    used = {*_SAMPLE_KEYS, "body"}

    id_key, row["sample_id"] = _sample_id(fields, problems)
    used.add(id_key)
    messages, keys = _messages(fields, ContentReader(base, problems))
    used |= keys
    if row["response"] is None:
        row["response"] = _take_response(messages)
    row["messages"] = messages
    if row["reference_answer"] is None:
        row["reference_answer"] = fields.get("answer")
        used.add("answer")
    row["reference_answer"] = any_text(row["reference_answer"])
    row["metadata"] = _metadata(fields, used, problems)
    return _finish(row, problems)


def rejected_row(reason: str) -> dict[str, object]:
    """The row of an input record that is no mapping; it becomes an error row that says `reason`."""
    row, _ = fit_row({"messages": [], "metadata": {INGEST_ERROR: reason}})
    return dict(row)


def _unfold_batch_line(obj: Mapping[str, object]) -> dict[str, object]:
    """A line of an OpenAI batch file has its chat under `body`."""
    fields = {str(key): value for key, value in obj.items()}
    body = fields.get("body")
    if isinstance(body, Mapping) and fields.get("messages") is None:
        inner = {str(key): value for key, value in body.items()}
        return {**inner, **{key: value for key, value in fields.items() if value is not None}}
    return fields


def _sample_id(fields: Mapping[str, object], problems: list[str]) -> tuple[str, str | None]:
    """The key that holds the id, and the id as text; None if it is missing or no scalar."""
    for key in ID_KEYS:
        value = fields.get(key)
        if is_missing(value):
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # tables with gaps turn whole numbers into floats: 12.0 is the id 12
        text = None if isinstance(value, bool) else scalar_text(value)
        if text is None:
            problems.append(f"{key} is {clip(value)}, not text")
        return key, text
    return "sample_id", None


def _messages(
    fields: Mapping[str, object], reader: ContentReader
) -> tuple[list[DraftMessage], set[str]]:
    """The dialogue, and the top-level keys it was made of."""
    for key in _LOOSE_MEDIA:
        # They have no place among the messages, and a model that never meets them would mislead.
        if not is_missing(fields.get(key)) and as_list(fields[key]) != []:
            reader.problems.append(
                f"{key} stands beside the messages; move it into the content, "
                'for example as {"image": address}'
            )
    if fields.get("messages") is not None:
        return reader.messages(fields["messages"]), set()
    if not is_missing(fields.get("question")):
        return reader.question(fields.get("prompt"), fields["question"]), {"prompt", "question"}
    return [], set()


def _take_response(messages: list[DraftMessage]) -> str | None:
    """Remove and return the assistant's closing text; None if the dialogue does not end so."""
    if not messages or messages[-1]["role"] != "assistant":
        return None
    content = messages[-1]["content"]
    texts = [part["text"] for part in content if isinstance(part["text"], str)]
    if not content or len(texts) < len(content) or any(p["type"] != "text" for p in content):
        return None
    messages.pop()
    return "".join(texts)


def _metadata(
    fields: Mapping[str, object], used: set[str], problems: list[str]
) -> dict[str, object]:
    given = fit(fields.get("metadata"), "map", "metadata", problems)
    metadata: dict[str, object] = {}
    for key, value in fields.items():
        if key not in used and (text := scalar_text(value)) is not None:
            metadata[key] = text
    return metadata | (given if isinstance(given, dict) else {})


def _finish(draft: Mapping[str, object], problems: list[str]) -> dict[str, object]:
    """The storable row; problems, old and new, become one line of its metadata."""
    row, misfits = fit_row(draft)
    metadata = row["metadata"] or {}
    found = problems + misfits
    if found:
        earlier = [metadata[INGEST_ERROR]] if INGEST_ERROR in metadata else []
        metadata[INGEST_ERROR] = "; ".join(earlier + found)[:_MAX_PROBLEMS_CHARS]
    row["metadata"] = metadata
    return dict(row)
