"""Registered models: versions, aliases, and whether their files work."""
