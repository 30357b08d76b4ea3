"""Cut a sample into source units, and find the unit of each prompt position."""
