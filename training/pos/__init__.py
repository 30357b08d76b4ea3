"""Training of the small English tagger and sentence splitter that ships with OmniTrace."""
