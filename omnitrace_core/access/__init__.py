"""Rules for addresses: what is valid, and what the settings allow. Nothing here opens anything."""
