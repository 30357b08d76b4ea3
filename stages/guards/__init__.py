"""Keeping one sample's failure from costing more than that sample."""
