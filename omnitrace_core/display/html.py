"""Show a result as HTML in a notebook: the response with its spans; a span opens to its sources.

It needs no script and loads nothing. Every text is made printable and escaped. What a long result
shows is limited, so that a notebook with it stays small.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from omnitrace_core.display.facts import (
    ShownResult,
    count,
    facts_of,
    masses_of,
    media_of,
    notes_of,
    outcome_of,
    place_of,
    words_of,
)
from omnitrace_core.printable import printable
from omnitrace_core.records import Attribution, Sample, Source

MAX_SPANS = 200
MAX_SOURCES = 20
_MAX_NOTES = 50
_MAX_CHARS = 500
# Of a text between spans: without tracing, that is the whole response.
_MAX_GAP_CHARS = 20_000
# Colours with transparency and inherited text colours: readable in light and dark notebooks.
_STYLE = """<style>
.omnitrace-result { max-width: 60em; line-height: 1.45; }
.omnitrace-result .ot-faint { opacity: .65; font-size: .9em; }
.omnitrace-result .ot-text { white-space: pre-wrap; overflow-wrap: anywhere; }
.omnitrace-result details, .omnitrace-result .ot-gap { margin: .2em 0; padding: .15em .6em;
  border-left: 4px solid rgba(128, 128, 128, .35); }
.omnitrace-result details.ot-supported { border-color: rgba(40, 140, 80, .85); }
.omnitrace-result details.ot-unsupported { border-color: rgba(210, 110, 30, .85); }
.omnitrace-result summary { cursor: pointer; }
.omnitrace-result table { border-collapse: collapse; margin: .4em 0; }
.omnitrace-result th, .omnitrace-result td { text-align: left; vertical-align: top;
  padding: .15em .8em .15em 0; }
.omnitrace-result .ot-share { white-space: nowrap; min-width: 8em; }
.omnitrace-result .ot-bar { display: inline-block; height: .6em;
  background: rgba(60, 120, 200, .7); }
</style>"""


def result_html(result: ShownResult) -> str:
    """The whole element, with its own style."""
    pieces = [
        '<div class="omnitrace-result">',
        _STYLE,
        f"<div><b>{_safe(_short(result.sample.sample_id))}</b> "
        f'<span class="ot-faint">{_safe(" | ".join(facts_of(result)))}</span></div>',
        *_response(result),
        *_notes(notes_of(result)),
        "</div>",
    ]
    return "\n".join(pieces)


def _response(result: ShownResult) -> Iterator[str]:
    """Each span as an element that opens, and the text between spans as it is."""
    at = 0
    text = result.trace.response
    for item in result.spans[:MAX_SPANS]:
        yield from _gap(text[at : item.char_start])
        yield _span(result.sample, item)
        at = item.char_end
    if len(result.spans) > MAX_SPANS:
        yield from _more(len(result.spans) - MAX_SPANS, "more span")
    else:
        yield from _gap(text[at:])


def _gap(text: str) -> Iterator[str]:
    if text.strip():
        shown = _safe(_short(text.strip(), _MAX_GAP_CHARS), lines=True)
        yield f'<div class="ot-gap ot-text">{shown}</div>'


def _notes(notes: Sequence[str]) -> Iterator[str]:
    for note in notes[:_MAX_NOTES]:
        yield f'<div class="ot-faint">note: {_safe(_short(note))}</div>'
    yield from _more(len(notes) - _MAX_NOTES, "more note")


def _more(n: int, thing: str) -> Iterator[str]:
    if n > 0:
        yield f'<div class="ot-faint">... {count(n, thing)}</div>'


def _span(sample: Sample, item: Attribution) -> str:
    facts = f"{outcome_of(item)}, {count(len(item.sources), 'source')}"
    rows = "\n".join(_source(sample, source) for source in item.sources[:MAX_SOURCES])
    table = (
        "<table><tr><th>mass</th><th>share of votes</th><th>source</th><th>text</th></tr>\n"
        f"{rows}</table>{''.join(_more(len(item.sources) - MAX_SOURCES, 'more source'))}"
        if rows
        else '<div class="ot-faint">no source was chosen</div>'
    )
    return (
        f'<details class="ot-{html.escape(item.outcome)}">'
        f'<summary><span class="ot-text">{_safe(_short(item.text), lines=True)}</span> '
        f'<span class="ot-faint">{_safe(facts)}</span></summary>\n{table}\n'
        f'<div class="ot-faint">mass by kind: {_safe(masses_of(item.masses))}</div></details>'
    )


def _source(sample: Sample, source: Source) -> str:
    width = round(min(max(source.share, 0.0), 1.0) * 6, 2)
    media = media_of(sample.parts, source.unit)
    place = _safe(place_of(source.unit))
    if media:
        place += f'<br><span class="ot-faint">{_safe(_short(media))}</span>'
    words = _safe(_short(words_of(source.unit)), lines=True)
    return (
        f'<tr><td>{source.mass:.3f}</td><td class="ot-share">{source.share:.2f} '
        f'<span class="ot-bar" style="width: {width}em"></span></td>'
        f'<td>{place}</td><td class="ot-text">{words}</td></tr>'
    )


def _short(text: str, n_chars: int = _MAX_CHARS) -> str:
    if len(text) <= n_chars:
        return text
    return f"{text[:n_chars]} ... +{count(len(text) - n_chars, 'character')}"


def _safe(text: str, *, lines: bool = False) -> str:
    """Printable, HTML-escaped, and isolated from the surrounding text direction (`<bdi>`)."""
    return f"<bdi>{html.escape(printable(text, lines=lines))}</bdi>"
