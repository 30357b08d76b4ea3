"""What there is to do: the input, the run's identity, its chunks."""
