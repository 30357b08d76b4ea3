"""Files by their address, S3 with retries, and which web addresses are allowed."""
