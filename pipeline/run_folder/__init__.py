"""The files of a run's folder: lease, chunk files, attempts, tables, manifests, verdict."""
