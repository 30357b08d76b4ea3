"""Frames of videos: their times, which of them are sampled, and their pixels."""
