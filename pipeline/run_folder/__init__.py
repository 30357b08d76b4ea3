"""What lies in a run's folder: lease, parts, attempts, manifests, tables, verdict."""
