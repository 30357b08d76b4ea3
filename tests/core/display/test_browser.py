"""A result in a real browser: its spans open, and no text of a sample becomes script or element."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from omnitrace_core.display import result_html
from tests.core.display.result_samples import made_result

ATTACK = (
    "</bdi></td></table></details></style></div><script>document.title='taken'</script>"
    "<img src=x onerror=\"document.title='taken'\"><b onmouseover='x()'>\x00\u202e"
)
# Opens every span, and writes what the page then holds into its title.
PROBE = """<script>
  for (const span of document.querySelectorAll("details")) span.open = true;
  const shown = document.querySelectorAll("td").length;
  const foreign = document.querySelectorAll("img, b[onmouseover]").length;
  setTimeout(() => { document.title += ` cells=${shown} foreign=${foreign}`; }, 200);
</script>"""


@pytest.mark.browser
def test_hostile_texts_do_nothing(tmp_path: Path) -> None:
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if browser is None:
        pytest.skip("no chromium in PATH")
    result = made_result(
        sample_id=ATTACK,
        span_texts=(ATTACK, ATTACK),
        unit_text=ATTACK,
        transcript=ATTACK,
        uri=ATTACK,
        n_sources=3,
        notes=(ATTACK,),
    )
    page = tmp_path / "page.html"
    page.write_text(
        f"<meta charset=utf-8><title>quiet</title>{result_html(result)}{PROBE}", encoding="utf-8"
    )
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=2000",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "<title>quiet cells=24 foreign=0</title>" in done.stdout
