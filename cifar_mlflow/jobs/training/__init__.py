"""What train, resume and reproduce share."""
