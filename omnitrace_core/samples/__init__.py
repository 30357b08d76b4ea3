"""From any accepted input form to a `Sample`."""
