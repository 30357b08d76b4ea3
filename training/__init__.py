"""Training of the models, and the corpora, for OmniTrace's tests and its demo; not installed."""
