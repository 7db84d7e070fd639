"""The parts of a promotion."""
