"""From any accepted input form to a row, and from a checked row to a `Sample`."""
