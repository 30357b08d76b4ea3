"""Turn any accepted input form into a checked row, and a checked row into a `Sample`."""
