"""Plan a run: its input, its identity, and its chunks."""
