"""A chat prompt as tokens, with the place of every token in the sample's own parts.

The model's chat template is rendered once with a private marker for each text part; what comes back
is markup, text parts and media placeholders in order. Each stretch between special tokens is
tokenized in one piece, as the model's processor would, so token boundaries are canonical; text of a
sample never becomes a special token, whatever it contains.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from omnitrace_core.errors import TraceError
from omnitrace_core.positions import PromptMap, Stream
from omnitrace_core.records import Part, Sample

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = re.compile("\ue000([0-9]+)\ue001")


@dataclass(frozen=True, slots=True)
class Placed:
    """Tokens with their places: what a media part contributes to the prompt.

    token_ids, stream: n entries; lo, hi: n entries in seconds; box: n rows in original pixels.
    after: tokens that follow the special token with which the template closes the placeholder.
    """

    token_ids: Sequence[int]
    stream: Sequence[int]
    lo: Sequence[float]
    hi: Sequence[float]
    box: Sequence[Sequence[float]]
    after: Placed | None = None


@dataclass(slots=True)
class _Prompt:
    token_ids: list[int] = field(default_factory=list)
    stream: list[int] = field(default_factory=list)
    part: list[int] = field(default_factory=list)
    lo: list[float] = field(default_factory=list)
    hi: list[float] = field(default_factory=list)
    box: list[Sequence[float]] = field(default_factory=list)

    def add(
        self,
        token_id: int,
        stream: int = Stream.NONE,
        part: int = -1,
        lo: float = 0.0,
        hi: float = 0.0,
        box: Sequence[float] = (0.0, 0.0, 0.0, 0.0),
    ) -> None:
        self.token_ids.append(token_id)
        self.stream.append(stream)
        self.part.append(part if stream != Stream.NONE else -1)
        self.lo.append(lo)
        self.hi.append(hi)
        self.box.append(box)


def build_prompt(
    sample: Sample,
    tokenizer: PreTrainedTokenizerBase,
    chat_template: str,
    placeholders: Mapping[str, str],
    place_media: Callable[[int, Part], Placed],
) -> tuple[list[int], PromptMap]:
    """Token ids of the whole prompt, generation prompt included, and where each of them lies.

    placeholders: media placeholder token by part type, as the template writes it.
    place_media: tokens that replace the placeholder of a media part.

    Raises:
        TraceError: the template dropped, reordered or rewrote a part.
    """
    rendered = _render(sample, tokenizer, chat_template)
    specials = _special_tokens(tokenizer)
    media = [(index, part) for index, part in enumerate(sample.parts) if part.type != "text"]
    prompt = _Prompt()
    run: list[tuple[str, int]] = []  # pieces of text up to the next special token, with their part
    remaining = iter(media)
    pending: tuple[int, Placed] | None = None
    seen_text = 0
    for piece, is_text_part in _pieces(rendered, specials):
        if is_text_part:
            index = int(piece)
            run.append((sample.parts[index].text, index))
            seen_text += 1
        elif piece not in specials:
            run.append((piece, -1))
        else:
            _flush(run, prompt, tokenizer)
            if piece in placeholders.values():
                pending = _add_media(
                    prompt, next(remaining, None), piece, placeholders, place_media
                )
            else:
                prompt.add(specials[piece])
                if pending is not None:
                    _add_placed(prompt, *pending)
                    pending = None
    _flush(run, prompt, tokenizer)
    if seen_text != len(sample.parts) - len(media) or next(remaining, None) is not None:
        raise TraceError(
            f"sample {sample.sample_id!r}: the model's chat template did not render every "
            "part once; check the roles of the messages against the template"
        )
    return prompt.token_ids, _as_map(prompt)


def _render(sample: Sample, tokenizer: PreTrainedTokenizerBase, chat_template: str) -> str:
    conversation: list[Any] = []
    index = 0
    for message in sample.messages:
        content = []
        for part in message.content:
            mark = f"\ue000{index}\ue001"
            content.append({"type": part.type, part.type: mark if part.type == "text" else ""})
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
    for k, chunk in enumerate(_MARK.split(rendered)):
        if k % 2:
            pieces.append((chunk, True))
        else:
            pieces.extend((text, False) for text in re.split(f"({names})", chunk) if text)
    return pieces


def _flush(run: list[tuple[str, int]], prompt: _Prompt, tokenizer: PreTrainedTokenizerBase) -> None:
    """Tokenize the collected text in one piece; each token goes to the part most of it lies in."""
    if not run:
        return
    text = "".join(piece for piece, _ in run)
    owner = np.concatenate([np.full(len(piece), part) for piece, part in run])
    start = np.concatenate(
        [np.full(len(piece), at) for (piece, _), at in zip(run, _starts(run), strict=True)]
    )
    run.clear()
    encoded = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True
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
            token_id, Stream.TEXT, part, float(inside[0] - base), float(inside[-1] + 1 - base)
        )


def _starts(run: Sequence[tuple[str, int]]) -> list[int]:
    starts, at = [], 0
    for piece, _ in run:
        starts.append(at)
        at += len(piece)
    return starts


def _add_media(
    prompt: _Prompt,
    entry: tuple[int, Part] | None,
    token: str,
    placeholders: Mapping[str, str],
    place_media: Callable[[int, Part], Placed],
) -> tuple[int, Placed] | None:
    """Add a media part's tokens; returns what must follow its closing marker."""
    if entry is None or placeholders[entry[1].type] != token:
        raise TraceError(
            f"the model's chat template put {token} where the sample has "
            f"{'no part' if entry is None else 'part ' + str(entry[0]) + ', ' + entry[1].type}"
        )
    index, part = entry
    placed = place_media(index, part)
    _add_placed(prompt, index, placed)
    return None if placed.after is None else (index, placed.after)


def _add_placed(prompt: _Prompt, index: int, placed: Placed) -> None:
    columns = zip(placed.token_ids, placed.stream, placed.lo, placed.hi, placed.box, strict=True)
    for token_id, stream, lo, hi, box in columns:
        prompt.add(token_id, stream, index, lo, hi, box)


def _as_map(prompt: _Prompt) -> PromptMap:
    return PromptMap(
        stream=np.asarray(prompt.stream, dtype=np.int8),
        part=np.asarray(prompt.part, dtype=np.int32),
        lo=np.asarray(prompt.lo, dtype=np.float64),
        hi=np.asarray(prompt.hi, dtype=np.float64),
        box=np.asarray(prompt.box, dtype=np.float32).reshape(-1, 4),
    )
