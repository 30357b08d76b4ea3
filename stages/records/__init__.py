"""From traced rows to the rows of the published tables."""
