"""Programs that measure. Each prints a table and writes its raw numbers as JSON."""
