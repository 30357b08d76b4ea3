"""A folder on any store, with atomic and conditional writes."""
