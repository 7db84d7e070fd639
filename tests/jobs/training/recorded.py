"""What a run has left in the store."""

from pathlib import Path


def artifacts(client, run):
    return {entry.path for entry in client.list_artifacts(run.info.run_id)}


def artifact(client, run, name):
    return Path(client.download_artifacts(run.info.run_id, name))


def models(client, run):
    """Weights (last, best) to the logged model."""
    found = [client.get_logged_model(output.model_id) for output in run.outputs.model_outputs]
    return {model.tags["weights"]: model for model in found}
