"""What users configure: a training, a sweep, and the files that describe them."""
