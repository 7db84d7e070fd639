"""Looking at what there is: the latest runs, MLflow's own pages."""
