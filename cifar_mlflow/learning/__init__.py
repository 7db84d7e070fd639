"""Data, networks, training and evaluation: knows torch, and nothing of MLflow."""
