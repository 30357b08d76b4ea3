"""The sound of a file: its samples, each at its own time, as a waveform at the model's rate."""
