"""Counts in texts for people."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """The number with its noun: `1 shard`, `2 shards`; the noun's plural ends in s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
