"""Reading back from the tracking store."""
