"""The planted world: seeded samples whose right responses rest on known evidence."""
