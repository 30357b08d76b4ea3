"""Getting a part's bytes: local files, object stores, the web."""
