"""A storm: drivers that are killed, stopped and doubled while input and output change."""
