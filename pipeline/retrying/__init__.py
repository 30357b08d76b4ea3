"""`run.retry`: trace published error rows again, and publish their shards again."""
