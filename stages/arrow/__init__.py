"""Chunks as Arrow tables: schemas, encoders, decoders."""
