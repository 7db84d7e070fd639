"""Run, track, compare and promote image-classification experiments with MLflow."""

__version__ = "0.1.0"
