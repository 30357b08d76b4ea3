"""Show a traced sample: as text for a terminal, as HTML for a notebook."""

from omnitrace_core.display.html import result_html
from omnitrace_core.display.plain import result_line, result_text

__all__ = ["result_html", "result_line", "result_text"]
