"""Build a chat prompt as tokens, with the place of every token in the sample's parts.

The model's chat template is rendered once, with a private marker in place of each text part. The
result is a sequence of markup, text parts and media placeholders. Text between two special tokens
is tokenized in one piece, as the model's processor does it, so token boundaries are the same. Text
of a sample never becomes a special token, whatever it contains.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from omnitrace_core.errors import TraceError
from omnitrace_core.positions import PositionKind, PromptMap
from omnitrace_core.records import Part, Sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Stands for a text part in the rendered template; private-use characters around the part's index.
_MARKER = re.compile("\ue000([0-9]+)\ue001")


@dataclass(frozen=True, slots=True)
class PlacedTokens:
    """The tokens of a media part, with their places in the part.

    token_ids, stream: n entries; lo, hi: n entries, in seconds; box: n boxes, in pixels of the
    original. after: tokens that follow the special token by which the template closes the
    placeholder.
    """

    token_ids: Sequence[int]
    stream: Sequence[int]
    lo: Sequence[float]
    hi: Sequence[float]
    box: Sequence[Sequence[float]]
    after: PlacedTokens | None = None


@dataclass(slots=True)
class _PromptBuilder:
    """Collects the columns of a `PromptMap`, token by token."""

    token_ids: list[int] = field(default_factory=list)
    stream: list[int] = field(default_factory=list)
    part: list[int] = field(default_factory=list)
    lo: list[float] = field(default_factory=list)
    hi: list[float] = field(default_factory=list)
    box: list[Sequence[float]] = field(default_factory=list)

    def add(
        self,
        token_id: int,
        stream: int = PositionKind.NONE,
        part: int = -1,
        lo: float = 0.0,
        hi: float = 0.0,
        box: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
    ) -> None:
        self.token_ids.append(token_id)
        self.stream.append(stream)
        self.part.append(part if stream != PositionKind.NONE else -1)
        self.lo.append(lo)
        self.hi.append(hi)
        self.box.append(box)


def build_prompt(
    sample: Sample,
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str,
    placeholders: Mapping[str, str],
    place_media: Callable[[int, Part], PlacedTokens],
) -> tuple[list[int], PromptMap]:
    """Token ids of the whole prompt, with the generation prompt, and the place of each token.

    placeholders: the placeholder token of each media part type, as the template writes it.
    place_media: (part index, part) -> the tokens that replace the part's placeholder.

    Raises:
        TraceError: the template dropped, reordered or rewrote a part.
        SampleError: `place_media` raised it.
    """
    rendered = _render(sample, tokenizer, chat_template)
    specials = _special_tokens(tokenizer)
    media = [(index, part) for index, part in enumerate(sample.parts) if part.type != "text"]
    prompt = _PromptBuilder()
    texts: list[_Text] = []  # up to the next special token
    remaining = iter(media)
    pending: tuple[int, PlacedTokens] | None = None
    n_text_parts = 0
    for piece, is_text_part in _pieces(rendered, specials):
        if is_text_part:
            index = int(piece)
            texts.append((sample.parts[index].text, index))
            n_text_parts += 1
        elif piece not in specials:
            texts.append((piece, -1))
        else:
            _flush(texts, prompt, tokenizer)
            if piece in placeholders.values():
                pending = _add_media(
                    prompt, next(remaining, None), piece, placeholders, place_media
                )
            else:
                prompt.add(specials[piece])
                if pending is not None:
                    _add_placed(prompt, *pending)
                    pending = None
    _flush(texts, prompt, tokenizer)
    if n_text_parts != len(sample.parts) - len(media) or next(remaining, None) is not None:
        raise TraceError(
            f"sample {sample.sample_id!r}: the model's chat template did not render every part "
            "exactly once; check the roles of the messages against the template"
        )
    return prompt.token_ids, _as_map(prompt)


# A text and the index of its part, -1 for markup.
_Text = tuple[str, int]


def _render(sample: Sample, tokenizer: PreTrainedTokenizerBase, chat_template: str) -> str:
    """The chat template, rendered with a marker for each text part."""
    conversation: list[Any] = []
    index = 0
    for message in sample.messages:
        content = []
        for part in message.content:
            marker = f"\ue000{index}\ue001"
            content.append({"type": part.type, part.type: marker if part.type == "text" else ""})
            index += 1
        conversation.append({"role": message.role, "content": content})
    rendered = tokenizer.apply_chat_template(
        conversation, chat_template=chat_template, tokenize=False, add_generation_prompt=True
    )
    return str(rendered)


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    decoder = tokenizer.added_tokens_decoder
    return {token.content: token_id for token_id, token in decoder.items() if token.special}


def _pieces(rendered: str, specials: Mapping[str, int]) -> list[tuple[str, bool]]:
    """The rendered template as (text, False), (special token, False) and (part index, True)."""
    names = "|".join(re.escape(token) for token in sorted(specials, key=len, reverse=True))
    pieces: list[tuple[str, bool]] = []
    for k, piece in enumerate(_MARKER.split(rendered)):
        if k % 2:  # split returns the captured part indices at odd places
            pieces.append((piece, True))
        else:
            pieces.extend((text, False) for text in re.split(f"({names})", piece) if text)
    return pieces


def _flush(texts: list[_Text], prompt: _PromptBuilder, tokenizer: PreTrainedTokenizerBase) -> None:
    """Tokenize the collected texts in one piece, add the tokens, and empty the list.

    A token belongs to the part that has most of its characters.
    """
    if not texts:
        return
    joined = "".join(text for text, _ in texts)
    owner = np.concatenate([np.full(len(text), part) for text, part in texts])
    start = np.concatenate(
        [np.full(len(text), at) for (text, _), at in zip(texts, _starts(texts), strict=True)]
    )
    texts.clear()
    encoded = tokenizer(
        joined, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True
    )
    for token_id, (lo, hi) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        parts, counts = np.unique(owner[lo:hi], return_counts=True)
        part = int(parts[counts.argmax()]) if parts.size else -1
        if part < 0:
            prompt.add(token_id)
            continue
        inside = lo + np.flatnonzero(owner[lo:hi] == part)
        base = int(start[inside[0]])
        prompt.add(
            token_id, PositionKind.TEXT, part, float(inside[0] - base), float(inside[-1] + 1 - base)
        )


def _starts(texts: Sequence[_Text]) -> list[int]:
    """Where each text begins in the joined text."""
    starts, at = [], 0
    for text, _ in texts:
        starts.append(at)
        at += len(text)
    return starts


def _add_media(
    prompt: _PromptBuilder,
    entry: tuple[int, Part] | None,
    token: str,
    placeholders: Mapping[str, str],
    place_media: Callable[[int, Part], PlacedTokens],
) -> tuple[int, PlacedTokens] | None:
    """Add a media part's tokens. Returns its index and the tokens for behind the closing marker."""
    if entry is None or placeholders[entry[1].type] != token:
        raise TraceError(
            f"the model's chat template has {token} where the sample has "
            f"{'no part' if entry is None else 'part ' + str(entry[0]) + ', ' + entry[1].type}"
        )
    index, part = entry
    placed = place_media(index, part)
    _add_placed(prompt, index, placed)
    return None if placed.after is None else (index, placed.after)


def _add_placed(prompt: _PromptBuilder, index: int, placed: PlacedTokens) -> None:
    columns = zip(placed.token_ids, placed.stream, placed.lo, placed.hi, placed.box, strict=True)
    for token_id, stream, lo, hi, box in columns:
        prompt.add(token_id, stream, index, lo, hi, box)


def _as_map(prompt: _PromptBuilder) -> PromptMap:
    return PromptMap(
        stream=np.asarray(prompt.stream, dtype=np.int8),
        part=np.asarray(prompt.part, dtype=np.int32),
        lo=np.asarray(prompt.lo, dtype=np.float64),
        hi=np.asarray(prompt.hi, dtype=np.float64),
        box=np.asarray(prompt.box, dtype=np.float32).reshape(-1, 4),
    )
