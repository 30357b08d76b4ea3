"""Limit the cost of one sample's failure to that sample."""
