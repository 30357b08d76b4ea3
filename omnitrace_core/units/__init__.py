"""Source units: how a sample is cut, and which unit each prompt position belongs to."""
