"""Run, track, compare and promote image-classification experiments with MLflow."""

# The one place of the version: pyproject.toml reads it from here, as a clone that was never installed does.
__version__ = "0.1.0"
