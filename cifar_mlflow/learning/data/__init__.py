"""Datasets, their augmentation, and images from files."""
