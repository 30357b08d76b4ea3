"""Decode in a child process, so that a hang, a crash or too much memory costs one part."""
