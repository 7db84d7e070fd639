"""What is written to the tracking store is kept on disk until it has arrived."""
