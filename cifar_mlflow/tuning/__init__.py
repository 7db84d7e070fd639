"""Tuning: which configuration comes next, and where it runs; knows Optuna and processes, not torch and not MLflow."""
