"""What a run adds up to: its records and its times."""
