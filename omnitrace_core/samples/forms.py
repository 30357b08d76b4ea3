"""Turn every accepted input form into a sample row (`rows.SampleRow`).

The forms are recognised by their keys:
- sample rows: the columns of a row; a part's options may also be keys of the part itself;
- chat (OpenAI): `messages` whose content is text or a list of `text`, `image_url`, `input_audio`,
  `video_url` parts; batch lines (`custom_id`, `body`) are unfolded first;
- Qwen: `{"type": "video", "video": address, "fps": 2}`, and the same for image and audio; a list
  in place of the address of a video is its frames, and `fps` (or `sample_fps`) their rate;
- the reference format (the paper's release): `prompt`, `question`, `answer`. It becomes one user
  message: the prompt as an instruction (`evidence` false), then the question's parts in order.

Rules for all forms:
- The id is the first of `sample_id`, `id`, `custom_id` that is set; numbers become text.
- If the last message is text of the assistant, it is the response, unless `response` is set.
- Text of system messages is an instruction unless its part sets `evidence` itself; the role
  `developer` means `system`.
- Media are addresses, bytes, data: URIs, base64 (`data` of a part or of `input_audio`), or a
  mapping that holds one of these under `url`, `uri`, `path`, `data` or `bytes`; in such a mapping
  bytes take precedence over an address.
- A block without a type, `{"text": ..., "image": [...]}`, is several parts.
- Extra top-level keys with scalar values are added to `metadata` as text, but do not replace its
  keys. Extra keys with nested values, and unknown keys of a part, are left out.
- Values that cannot be understood or stored are described in `metadata["ingest_error"]`, which
  makes the sample an error when it is checked.
"""

from __future__ import annotations

from collections.abc import Mapping

from omnitrace_core.errors import InvalidSample
from omnitrace_core.samples.content import ContentReader, DraftMessage
from omnitrace_core.samples.fitting import fit, fit_row
from omnitrace_core.samples.rows import INGEST_ERROR, SampleRow
from omnitrace_core.samples.values import any_text, as_list, is_missing, scalar_text, shorten

ID_KEYS: tuple[str, ...] = ("sample_id", "id", "custom_id")

_SAMPLE_KEYS: tuple[str, ...] = tuple(SampleRow.__annotations__)
_LOOSE_MEDIA = ("image", "images", "audio", "audios", "video", "videos")
_MAX_PROBLEMS_CHARS = 2_000


def normalise(obj: Mapping[str, object], base: str = "") -> dict[str, object]:
    """Any accepted form as a sample row with every key; a missing value is None.

    base: folder or URL prefix that relative media addresses are resolved against.
    `messages` is a list and `metadata` a dict, possibly empty. The row can always be stored;
    `parse.to_sample` decides whether it is a valid sample.

    Raises:
        InvalidSample: obj is not a mapping.
    """
    if not isinstance(obj, Mapping):
        raise InvalidSample(
            f"a sample must be a mapping with `messages` or `question`, not {shorten(obj)}"
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
    """A row for an input record that is not a mapping; it becomes an error row with `reason`."""
    row, _ = fit_row({"messages": [], "metadata": {INGEST_ERROR: reason}})
    return dict(row)


def _unfold_batch_line(obj: Mapping[str, object]) -> dict[str, object]:
    """The fields of a line of an OpenAI batch file, whose chat is under `body`."""
    fields = {str(key): value for key, value in obj.items()}
    body = fields.get("body")
    if isinstance(body, Mapping) and fields.get("messages") is None:
        inner = {str(key): value for key, value in body.items()}
        return {**inner, **{key: value for key, value in fields.items() if value is not None}}
    return fields


def _sample_id(fields: Mapping[str, object], problems: list[str]) -> tuple[str, str | None]:
    """The key that holds the id, and the id as text; None if it is missing or not a scalar."""
    for key in ID_KEYS:
        value = fields.get(key)
        if is_missing(value):
            continue
        if isinstance(value, float) and value.is_integer():
            value = int(value)  # tables with gaps turn whole numbers into floats: 12.0 is the id 12
        text = None if isinstance(value, bool) else scalar_text(value)
        if text is None:
            problems.append(f"{key} is {shorten(value)}, not text")
        return key, text
    return "sample_id", None


def _messages(
    fields: Mapping[str, object], reader: ContentReader
) -> tuple[list[DraftMessage], set[str]]:
    """The dialogue, and the top-level keys it was read from."""
    for key in _LOOSE_MEDIA:
        # Their place among the messages is unknown, and a trace without them would mislead.
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
    """Remove and return the assistant's last message if it is text; otherwise None."""
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
    own = fit(fields.get("metadata"), "map", "metadata", problems)
    metadata: dict[str, object] = {}
    for key, value in fields.items():
        if key not in used and (text := scalar_text(value)) is not None:
            metadata[key] = text
    return metadata | (own if isinstance(own, dict) else {})


def _finish(draft: Mapping[str, object], problems: list[str]) -> dict[str, object]:
    """The fitted row; all problems become one line of its metadata."""
    row, misfits = fit_row(draft)
    metadata = row["metadata"] or {}
    found = problems + misfits
    if found:
        earlier = [metadata[INGEST_ERROR]] if INGEST_ERROR in metadata else []
        metadata[INGEST_ERROR] = "; ".join(earlier + found)[:_MAX_PROBLEMS_CHARS]
    row["metadata"] = metadata
    return dict(row)
