"""Run a decoder once over a response and read every signal from its attention."""
