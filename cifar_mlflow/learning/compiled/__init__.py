"""Layers whose arithmetic is compiled C code, for processors."""
