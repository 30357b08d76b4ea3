"""What each verb of the command line does beyond starting a run."""
