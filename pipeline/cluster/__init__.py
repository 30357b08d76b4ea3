"""The Ray that a run works on: start a local one, find its processes, notice that it is gone."""
