"""Read messages, content parts and media values of every accepted form into one shape.

Values are not checked here: a value of an unexpected type is kept, and fitting the row (`fitting`)
reports it. Only a value that would otherwise be lost is reported as a problem here.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypedDict
from urllib.parse import unquote_to_bytes

from omnitrace_core.records import PART_TYPES
from omnitrace_core.samples.rows import PartOptionsRow, PartRow
from omnitrace_core.samples.values import as_bytes, as_list, is_missing, shorten

OPTION_NAMES: tuple[str, ...] = tuple(PartOptionsRow.__annotations__)

_TYPE_OF_KEY = {
    "text": "text",
    "image": "image",
    "image_url": "image",
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
    "video": "video",
    "video_url": "video",
}
_ADDRESS_KEYS = ("uri", "url", "path")
_BYTES_KEYS = ("data", "bytes")
# Qwen's newer name of the rate of a list of frames; the older one is fps.
_LIST_RATE = "sample_fps"
_OTHER_KEYS = frozenset({*PartRow.__annotations__, *OPTION_NAMES, *_ADDRESS_KEYS, *_BYTES_KEYS})


class DraftPart(TypedDict):
    """A part of a row that is not fitted yet: it has every key, its values are unchecked."""

    type: str | None
    text: object
    uri: object
    data: object
    evidence: object
    options: object
    segments: object
    frames: object


class DraftMessage(TypedDict):
    """A message of a row that is not fitted yet."""

    role: object
    content: list[DraftPart]


def default_evidence(role: object, part_type: object) -> bool:
    """Whether a part without `evidence` informs (True) or instructs (False)."""
    return not (role == "system" and part_type == "text")


def resolve_uri(uri: str, base: str) -> str:
    """A relative address under `base`; URLs with a scheme and absolute paths stay as they are."""
    if not base or "://" in uri or os.path.isabs(uri):
        return uri
    if "://" not in base:
        return os.path.join(base, uri)
    # Object stores do not resolve `..` and `.`, so that is done here, within the bucket.
    scheme, _, path = base.partition("://")
    host, _, folder = path.partition("/")
    kept: list[str] = folder.rstrip("/").split("/") if folder.strip("/") else []
    # Not by `normpath`: in a store, `a//b` is another key than `a/b`.
    for name in uri.split("/"):
        if name == "..":
            del kept[-1:]
        elif name != ".":
            kept.append(name)
    return "/".join((f"{scheme}://{host}", *kept))


@dataclass(frozen=True, slots=True)
class ContentReader:
    """Reads messages and parts.

    base: folder or URL prefix of relative media addresses.
    problems: a line is added for each value that is not understood.
    """

    base: str
    problems: list[str]

    def messages(self, value: object) -> list[DraftMessage]:
        """A chat; an entry that is not a message is left out, and reported as a problem."""
        items = as_list(value)
        if items is None:
            self.problems.append(f"messages is {shorten(value)}, not a list of messages")
            return []
        messages: list[DraftMessage] = []
        for i, item in enumerate(items):
            if not isinstance(item, Mapping):
                self.problems.append(f"messages[{i}] is {shorten(item)}, not a message")
                continue
            role = "system" if item.get("role") == "developer" else item.get("role")
            content = self._parts(item.get("content"), role, f"messages[{i}].content")
            messages.append({"role": role, "content": content})
        return messages

    def question(self, prompt: object, question: object) -> list[DraftMessage]:
        """The reference format as one user message: the prompt instructs, the question informs."""
        content: list[DraftPart] = []
        if not is_missing(prompt) and prompt != "":
            content.append({**_text_part(prompt, "user"), "evidence": False})
        content += self._parts(question, "user", "question")
        return [{"role": "user", "content": content}]

    def _parts(self, content: object, role: object, where: str) -> list[DraftPart]:
        if is_missing(content):
            return []
        blocks = [content] if isinstance(content, str | Mapping) else as_list(content)
        if blocks is None:
            self.problems.append(f"{where} is {shorten(content)}, neither text nor a list of parts")
            return []
        parts: list[DraftPart] = []
        for i, block in enumerate(blocks):
            if isinstance(block, str):
                parts.append(_text_part(block, role))
            elif not isinstance(block, Mapping):
                self.problems.append(f"{where}[{i}] is {shorten(block)}, neither text nor a part")
            elif block.get("type") is not None:
                parts += self._typed_block(block, role, f"{where}[{i}]")
            else:
                parts += self._untyped_block(block, role, f"{where}[{i}]")
        return parts

    def _typed_block(
        self, block: Mapping[str, object], role: object, where: str
    ) -> list[DraftPart]:
        name = block["type"]
        kind = _TYPE_OF_KEY.get(name, name) if isinstance(name, str) else shorten(name)
        if kind not in PART_TYPES:
            return [_bare_part(kind)]
        keys = [key for key, of in _TYPE_OF_KEY.items() if of == kind]
        if kind != "text":
            keys += _ADDRESS_KEYS
        if kind == "video":
            keys.append("frames")
        present = [key for key in keys if block.get(key) is not None]
        if len(present) > 1:
            self.problems.append(f"{where} has {' and '.join(present)}; give the {kind} once")
        value = block[present[0]] if present else None
        parts = [self._part(kind, item, block, role, where) for item in _several(value, kind)]
        for part in parts:
            self._add_rest(part, block, where)
        return parts

    def _untyped_block(
        self, block: Mapping[str, object], role: object, where: str
    ) -> list[DraftPart]:
        """One part per key, in the block's order."""
        present = [key for key in block if key in _TYPE_OF_KEY and as_list(block[key]) != []]
        present = [key for key in present if not is_missing(block[key])]
        if not present:
            # The key is the type: {"depth": address} is a part of the unknown type depth.
            types = (str(key) for key in block if key not in _OTHER_KEYS and block[key] is not None)
            part = _bare_part(next(types, None))
            if part["type"] == "video":
                part["frames"] = as_list(block["video"])  # an empty one, which is an error
            return [part]
        return [
            self._part(_TYPE_OF_KEY[key], item, block, role, where)
            for key in present
            for item in _several(block[key], key)
        ]

    def _part(
        self, kind: str, value: object, block: Mapping[str, object], role: object, where: str
    ) -> DraftPart:
        if kind == "text":
            part = _text_part(value, role)
        else:
            part = {**_bare_part(kind), "evidence": True}
            frames = as_list(value) if kind == "video" else None
            if frames is None:
                part["uri"], part["data"] = self._media(value, where)
            else:
                part["frames"] = [
                    self._frame(frame, f"{where}, frame {i}") for i, frame in enumerate(frames)
                ]
            part["options"] = self._options(block, where, is_list=frames is not None)
            part["segments"] = block.get("segments")
        if block.get("evidence") is not None:
            part["evidence"] = block["evidence"]
        return part

    def _add_rest(self, part: DraftPart, block: Mapping[str, object], where: str) -> None:
        """Add inline bytes, and values that contradict the part's type, so that checks see them."""
        if part["type"] != "video":
            part["frames"] = block.get("frames")
        if part["type"] == "text":
            part["uri"], part["data"] = block.get("uri"), block.get("data")
            part["segments"] = block.get("segments")
            return
        part["text"] = block.get("text")
        inline = next((block[key] for key in _BYTES_KEYS if block.get(key) is not None), None)
        if inline is not None:
            uri, part["data"] = self._inline(inline, where)
            part["uri"] = part["uri"] or uri

    def _frame(self, value: object, where: str) -> dict[str, object]:
        uri, data = self._media(value, where)
        return {"uri": uri, "data": data}

    def _options(
        self, block: Mapping[str, object], where: str, *, is_list: bool
    ) -> dict[str, object] | None:
        nested = block.get("options")
        if nested is not None and not isinstance(nested, Mapping):
            self.problems.append(f"{where}.options is {shorten(nested)}, not a mapping")
        items = nested.items() if isinstance(nested, Mapping) else ()
        options = {str(name): value for name, value in items if value is not None}
        for name in sorted(options.keys() - set(OPTION_NAMES)):
            self.problems.append(
                f"{where}.options has no {shorten(name)}; options are {', '.join(OPTION_NAMES)}"
            )
        for name in ("resized_height", "resized_width"):
            if block.get(name) is not None:
                self.problems.append(f"{where}: {name} is not supported; use max_pixels")
        options |= {name: block[name] for name in OPTION_NAMES if block.get(name) is not None}
        rate = block.get(_LIST_RATE) if is_list else None
        if rate is not None and options.setdefault("fps", rate) != rate:
            self.problems.append(
                f"{where}: fps={shorten(options['fps'])} and {_LIST_RATE}={shorten(rate)} are both "
                "the rate of the list of frames; give one"
            )
        return options or None

    def _media(self, value: object, where: str) -> tuple[str | None, bytes | None]:
        """Address and bytes of a media value; at most one of the two is set."""
        if is_missing(value) or value == "":
            return None, None
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if isinstance(value, str):
            if value.startswith("data:"):
                return None, self._data_uri(value, where)
            return resolve_uri(value, self.base), None
        data = as_bytes(value)
        if data is not None:
            return None, data
        if isinstance(value, Mapping):
            inline = next((value[key] for key in _BYTES_KEYS if value.get(key) is not None), None)
            if inline is not None:
                return self._inline(inline, where)
            address = next((value[key] for key in _ADDRESS_KEYS if value.get(key)), None)
            if isinstance(address, str | os.PathLike):
                return self._media(address, where)
        self.problems.append(
            f"{where}: {shorten(value)} is neither an address nor bytes; "
            "give one path, URL, data: URI or the file's bytes"
        )
        return None, None

    def _inline(self, value: object, where: str) -> tuple[str | None, bytes | None]:
        """A `data` value: bytes, base64, or (some servers accept it) a data: URI or a URL."""
        if not isinstance(value, str) or value.startswith("data:") or "://" in value:
            return self._media(value, where)
        return None, self._base64(value.encode("utf-8", "replace"), where)

    def _data_uri(self, uri: str, where: str) -> bytes | None:
        header, comma, payload = uri.partition(",")
        if not comma:
            self.problems.append(f"{where}: {shorten(uri)} is a data: URI without a comma")
            return None
        raw = unquote_to_bytes(payload.encode("utf-8", "replace"))
        return self._base64(raw, where) if header.endswith(";base64") else raw

    def _base64(self, text: bytes, where: str) -> bytes | None:
        packed = b"".join(text.split())
        try:
            return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
        except binascii.Error as exc:
            shown = shorten(text.decode("utf-8", "replace"))
            self.problems.append(f"{where}: {shown} is not valid base64 ({exc}); encode it again")
            return None


def _bare_part(kind: str | None) -> DraftPart:
    return {
        "type": kind,
        "text": None,
        "uri": None,
        "data": None,
        "evidence": None,
        "options": None,
        "segments": None,
        "frames": None,
    }


def _text_part(text: object, role: object) -> DraftPart:
    return {**_bare_part("text"), "text": text, "evidence": default_evidence(role, "text")}


def _several(value: object, key: str) -> Iterable[object]:
    """The values of one key: a list holds several texts, images or audios.

    A list of videos stays one value: it is the frames of one video.
    """
    items = as_list(value) if not key.startswith("video") else None
    return items or [value]
