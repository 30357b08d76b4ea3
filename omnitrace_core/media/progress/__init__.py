"""Report the progress of fetching and decoding to the process that waits for it."""
