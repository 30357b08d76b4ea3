"""This machine: its device and precision for torch and transformers, and what it may lack."""
