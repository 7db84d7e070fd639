"""Reading back from the tracking store; every function that asks it raises TrackingError if it cannot be read."""
