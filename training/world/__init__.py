"""A seeded world of samples whose responses rest on known evidence."""
