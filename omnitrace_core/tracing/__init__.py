"""Trace samples with a model: generate or replay responses, read signals, fold them into units."""
