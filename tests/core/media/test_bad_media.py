"""Hostile and damaged media: each raises an error with the expected code, or is decoded."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnitrace_core.errors import MediaError
from omnitrace_core.media import decode_part
from omnitrace_core.media_rules import MediaRules
from omnitrace_core.options import MediaOptions
from omnitrace_core.records import Part, PartOptions
from tests.core.media.bad_media import TRACED, BadMedium, bad_media


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> list[BadMedium]:
    root = tmp_path_factory.mktemp("media")
    (root / "inside").mkdir()
    (root / "outside").mkdir()
    return bad_media(root / "inside", root / "outside")


def test_each_case_has_the_expected_code(cases: list[BadMedium]) -> None:
    folder = Path(cases[0].uri).parent
    options = MediaOptions(roots=(str(folder),), web_hosts=("localhost",))
    failures = []
    for case in cases:
        part_options = PartOptions(**case.options)  # type: ignore[arg-type]
        part = Part(case.kind, uri=case.uri, options=part_options)  # type: ignore[arg-type]
        try:
            decode_part(part, options, MediaRules())
            code, message = TRACED, ""
        except MediaError as error:
            code, message = error.code, str(error)
        if code != case.code:
            failures.append((case.name, code, case.code, message))
        elif message:
            assert "hidden" not in message, "a query may hold a secret"
            assert len(message) < 1000
    assert not failures
    assert sum(case.code != TRACED for case in cases) >= 40
    assert len({case.name for case in cases}) == len(cases)
