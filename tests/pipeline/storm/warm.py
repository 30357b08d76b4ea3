"""Imported once by the process that drivers are forked from: what takes seconds in each of them."""

from __future__ import annotations

from omnitrace_core.text.language import BUILTIN, load_language_without_torch
from pipeline.driver import finished_run, plan_run
from tests.pipeline.storm import round as storm_round

# The command line imports these when it needs them; children also import the storm's main module.
IMPORTED = (finished_run, plan_run, storm_round)
load_language_without_torch(BUILTIN)
