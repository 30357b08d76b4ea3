"""A result as HTML: what it says, and that no text of a sample becomes markup."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from omnitrace_core.display.html import MAX_SOURCES, MAX_SPANS, result_html
from tests.core.display.result_samples import made_result

HOSTILE = "</span></details><script>alert(1)</script><img src=x onerror=alert(1)> \" ' & \x1b[2J"
WITH_TEXT = {"sample_id", "unit_text", "transcript", "uri", "span_texts", "notes"}


class Elements(HTMLParser):
    """Start tags with their attributes, and the text by the element it stands in."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def parsed(html: str) -> Elements:
    elements = Elements()
    elements.feed(html)
    elements.close()
    assert elements.open == []
    return elements


def test_each_span_opens_to_its_sources() -> None:
    html = result_html(made_result(n_sources=3))
    elements = parsed(html)
    assert elements.tags.count("details") == 2
    assert elements.tags.count("tr") == 2 * (1 + 3)
    for shown in (
        "The lamp is red.",
        "supported 0.42, 3 sources",
        "0.500",
        "audio part 1, 1.50-3.25 s",
        "media/hall.wav",
        "it stands there",
        "image part 2, box [0, 0, 120, 80]",
        "5 bytes",
        "mass by kind: text 0.60",
    ):
        assert shown in elements.text


def test_an_unsupported_span_says_so() -> None:
    html = result_html(made_result(outcome="unsupported", n_sources=0))
    assert "unsupported 0.42, 0 sources" in parsed(html).text
    assert "no source was chosen" in html
    assert 'class="ot-unsupported"' in html


def test_it_needs_no_script_and_no_network() -> None:
    elements = parsed(result_html(made_result(uri="https://example.com/a.wav")))
    assert set(elements.tags) == {
        "div", "style", "b", "bdi", "span", "details", "summary", "table", "tr", "th", "td", "br",
    }  # fmt: skip
    assert elements.attributes == {"class", "style"}


@pytest.mark.parametrize("name", sorted(WITH_TEXT))
def test_every_text_is_escaped(name: str) -> None:
    value = (HOSTILE,) if name in ("span_texts", "notes") else HOSTILE
    hostile = result_html(made_result(**{name: value}, n_sources=3))  # type: ignore[arg-type]
    plain = result_html(made_result(**{name: ("x",) if value != HOSTILE else "x"}, n_sources=3))  # type: ignore[arg-type]
    assert parsed(hostile).tags == parsed(plain).tags
    assert "<script" not in hostile
    assert "\x1b" not in hostile
    assert "alert(1)" in parsed(hostile).text


def test_text_outside_of_spans_is_shown() -> None:
    result = made_result(span_texts=("One.",))
    trace = type(result.trace)
    fields = {name: getattr(result.trace, name) for name in trace.__dataclass_fields__}
    whole = trace(**{**fields, "response": "One. <b>Two</b>"})
    shown = result_html(
        type(result)(result.sample, result.units, whole, result.segmentation, result.spans)
    )
    assert "<b>Two</b>" in parsed(shown).text


def test_the_signature_of_an_address_is_not_shown() -> None:
    shown = result_html(made_result(uri="https://user:pass@example.com/a.wav?X-Signature=secret"))
    assert "example.com/a.wav" in shown
    assert "secret" not in shown
    assert "pass" not in shown


def test_long_texts_of_sources_are_clipped_with_a_count() -> None:
    shown = result_html(made_result(unit_text="x" * 1_234))
    assert "+734 characters" in shown
    assert max(map(len, re.findall("x+", shown))) == 500


def test_a_long_result_shows_its_start_and_counts_the_rest() -> None:
    shown = result_html(
        made_result(span_texts=("x" * 1_234,) * 300, n_sources=300, notes=("y" * 1_234,) * 70)
    )
    elements = parsed(shown)
    assert len(shown) < 2_000_000
    assert elements.tags.count("details") == MAX_SPANS == 200
    assert elements.tags.count("tr") == MAX_SPANS * (1 + MAX_SOURCES) == 200 * 21
    assert "300 spans" in elements.text
    assert "supported 0.42, 300 sources" in elements.text
    for rest in ("... 100 more spans", "... 280 more sources", "... 20 more notes"):
        assert rest in elements.text
    assert max(map(len, re.findall("x+|y+", shown))) == 500


def test_a_response_without_spans_is_shown_whole() -> None:
    result = made_result(span_texts=())
    trace = dataclasses.replace(result.trace, response="word " * 3_000)
    shown = parsed(result_html(dataclasses.replace(result, trace=trace))).text
    assert shown.count("word") == 3_000


def test_a_result_shows_itself_in_a_notebook() -> None:
    result = made_result()
    assert result._repr_html_() == result_html(result)
