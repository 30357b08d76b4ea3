"""Build the rows of the published tables from curated samples."""
