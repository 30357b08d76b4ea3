"""Checks of a run's folder, and the deletion of what does not belong to its plan."""
