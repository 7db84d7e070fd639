"""`python -m cifar_mlflow`, the form that MLproject calls."""

from cifar_mlflow.cli import main

main()
