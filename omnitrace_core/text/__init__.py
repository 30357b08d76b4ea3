"""Analyse texts with spaCy: sentences, parts of speech, spans of a response."""
