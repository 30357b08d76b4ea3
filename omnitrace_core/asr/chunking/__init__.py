"""Join an engine's speech segments to speech chunks of 5 to 60 s."""
