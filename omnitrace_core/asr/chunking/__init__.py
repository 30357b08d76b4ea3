"""From the speech segments of an engine to speech chunks of 5 to 60 s."""
