"""Open files by fsspec address; S3 with retries and conditional writes."""
