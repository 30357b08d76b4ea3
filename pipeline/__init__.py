"""The command line and the runs on Ray: configuration, planning, driver, run folder."""
