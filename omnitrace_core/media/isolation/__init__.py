"""Decoding in a child process that may hang, crash or grow."""
