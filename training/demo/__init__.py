"""The demo: a small corpus of our own making, and a readable view of a finished run."""
