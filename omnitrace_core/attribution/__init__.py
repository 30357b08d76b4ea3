"""From folds to what supports a span: votes, curation, heat maps, scores."""
