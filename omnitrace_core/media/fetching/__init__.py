"""Read the bytes of a media part from local files, object stores and the web."""
