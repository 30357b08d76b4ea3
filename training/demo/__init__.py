"""The demo: a small corpus made for this project, and a readable view of a finished run."""
