"""Which changes of settings make a re-curation look for speech again."""

from __future__ import annotations

import pytest

from omnitrace_core.options import (
    AsrOptions,
    CurationOptions,
    MediaOptions,
    SpanOptions,
    TraceOptions,
    UnitOptions,
)
from stages.settings_change import CurationSettings, SettingsChange


def settings(asr: AsrOptions, units: UnitOptions) -> CurationSettings:
    return CurationSettings(
        TraceOptions(), units, SpanOptions(), CurationOptions(), asr, MediaOptions()
    )


CHUNKS, BINS = UnitOptions(audio="chunks"), UnitOptions(audio="bins")
PLAIN, SHORT = AsrOptions(), AsrOptions(max_chunk_s=5.0)


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        (settings(PLAIN, CHUNKS), settings(PLAIN, CHUNKS), ()),
        (settings(PLAIN, CHUNKS), settings(SHORT, BINS), ()),
        (settings(PLAIN, BINS), settings(PLAIN, CHUNKS), ("units.audio",)),
        # Had units.audio been kept, the other change would not matter.
        (settings(PLAIN, BINS), settings(SHORT, CHUNKS), ("units.audio",)),
        (settings(PLAIN, CHUNKS), settings(SHORT, CHUNKS), ("asr.max_chunk_s",)),
        (
            settings(PLAIN, CHUNKS),
            settings(AsrOptions(engine="given", max_chunk_s=5.0), CHUNKS),
            ("asr.engine", "asr.max_chunk_s"),
        ),
    ],
)
def test_what_makes_it_look_for_speech_is_named(
    old: CurationSettings, new: CurationSettings, names: tuple[str, ...]
) -> None:
    change = SettingsChange(old, new)
    assert change.speech_settings == names
    assert change.finds_speech == bool(names)
