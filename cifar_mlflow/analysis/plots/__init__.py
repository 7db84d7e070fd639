"""Figures, as PNG and as SVG."""
