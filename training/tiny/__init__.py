"""A tiny Qwen2.5-Omni thinker: the real architecture, seeded random weights, a few megabytes."""
