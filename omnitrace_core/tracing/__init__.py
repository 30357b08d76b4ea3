"""Running a model and reading its signals: replay, tap, signals, folds per unit."""
