"""Registered models: versions, aliases, and whether their files work; all raise TrackingError as the store does."""
