"""Writing to the tracking store."""
