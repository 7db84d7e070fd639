"""What a set of runs says, and how sure one may be: statistics, comparison, and their rendering.

This wing knows numbers only: neither MLflow nor torch.
"""
