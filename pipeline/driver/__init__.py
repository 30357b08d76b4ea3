"""Drive one run from its plan to its verdict."""
