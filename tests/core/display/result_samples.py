"""Results made by hand, of any size, with any texts."""

from __future__ import annotations

from typing import Literal

import numpy as np

from omnitrace_core import (
    Attribution,
    Message,
    Part,
    Sample,
    Segmentation,
    Source,
    SourceUnit,
    Span,
    TokenTrace,
    TraceResult,
)


def made_result(
    *,
    sample_id: str = "lamp",
    span_texts: tuple[str, ...] = ("The lamp is red.", "It stands in the hall."),
    unit_text: str = "The lamp is red.",
    transcript: str = "it stands there",
    uri: str = "media/hall.wav",
    n_sources: int = 2,
    outcome: Literal["supported", "unsupported"] = "supported",
    notes: tuple[str, ...] = (),
) -> TraceResult:
    """Spans with `n_sources` sources each, which alternate between a text, a sound and an image."""
    kinds = (
        SourceUnit(0, "sentence", "text", 0, text=unit_text, char_start=0, char_end=len(unit_text)),
        SourceUnit(1, "audio_chunk", "audio", 1, start_s=1.5, end_s=3.25, transcript=transcript),
        SourceUnit(2, "image_cell", "image", 2, box=(0.0, 0.0, 120.0, 80.4)),
    )
    parts = (Part("text", text=unit_text), Part("audio", uri=uri), Part("image", data=b"12345"))
    spans: list[Attribution] = []
    response = ""
    for index, text in enumerate(span_texts):
        start = len(response)
        response += f"{text} "
        sources = tuple(
            Source(kinds[k % 3], mass=0.5 / (k + 1), share=0.4, run=0.2, score=0.3, rank=k + 1)
            for k in range(n_sources)
        )
        span = Span(index, text, start, start + len(text), 0, 1)
        spans.append(Attribution(span, outcome, 0.42, {"text": 0.6, "markup": 0.001}, sources))
    trace = TokenTrace(
        response=response.rstrip(" "),
        token_ids=(1,),
        tokens=(response,),
        char_spans=((0, len(response)),),
        logprobs=np.zeros(1, np.float32),
        finish_reason="stop",
        n_prompt_tokens=10,
        folds={},
        notes=notes,
    )
    sample = Sample(sample_id, (Message("user", parts),))
    segmentation = Segmentation(tuple(item.span for item in spans), ("NOUN",))
    return TraceResult(sample, kinds, trace, segmentation, tuple(spans))
