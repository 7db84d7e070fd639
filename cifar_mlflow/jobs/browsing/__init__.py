"""Looking at what there is: the latest runs, one run by epoch, MLflow's own pages."""
