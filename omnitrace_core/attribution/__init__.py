"""Find the sources of each span from folds: curation, heat maps, and scores against references."""
