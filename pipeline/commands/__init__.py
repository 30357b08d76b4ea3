"""The verbs of the command line, beyond starting a run, and what they print."""
