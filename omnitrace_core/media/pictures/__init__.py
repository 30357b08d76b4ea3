"""Pictures, read with Pillow, and bounds on the work that one can cause."""
