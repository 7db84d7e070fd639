"""Everything that is written to or read from MLflow: knows MLflow, and nothing of torch."""
