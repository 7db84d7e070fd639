"""A tracking server that goes away while a sweep runs."""

import time
from pathlib import Path

import pytest
from mlflow import MlflowClient
from proxy import proxy_before
from through_outages import LONG

QUICK = Path(__file__).parents[3] / "experiments" / "quick.yaml"
SPEC = """
name: through-an-outage
base: {{dataset: {dataset}, epochs: 3, batch_size: 8, scheduler: none, precision: float32}}
space:
  activation: [relu, elu, silu]
  learning_rate: [0.002, 0.01]
workers: 1
log_models: false
"""


@pytest.mark.parametrize(
    ("spec", "mode"),
    [("tiny", "refuse"), *(pytest.param("quick.yaml", mode, marks=LONG) for mode in ("refuse", "hang", "500"))],
)
def test_a_sweep_goes_on_without_its_server(server, work, tiny, spawn, monkeypatch, spec, mode):
    # Under a name of its own in each mode, since the server is the same.
    text = (
        SPEC.format(dataset=tiny)
        if spec == "tiny"
        else QUICK.read_text().replace("name: quick", f"name: outage-{mode}")
    )
    name = f"outage-{spec}-{mode}".replace(".", "-")
    path = work / "spec.yaml"
    path.write_text(f"{text}experiment: {name}\n")
    with proxy_before(server) as proxy:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.address)
        client = MlflowClient(server)
        sweep = spawn("sweep", path)
        deadline = time.monotonic() + 120
        while not finished_trials(client, name):
            assert sweep.poll() is None, sweep.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        proxy.switch(mode)
        time.sleep(4 if spec == "tiny" else 30)
        assert sweep.poll() is None, sweep.communicate()
        proxy.switch("pass")
        _, stderr = sweep.communicate(timeout=300)
    assert sweep.returncode == 0, stderr
    trials = finished_trials(client, name)
    assert len(trials) == len({run.data.tags["run_fingerprint"] for run in trials}) == (6 if spec == "tiny" else 12)
    for run in trials:
        assert [point.step for point in client.get_metric_history(run.info.run_id, "val_loss")] == [1, 2, 3]
    experiment = client.get_experiment_by_name(name).experiment_id
    assert {run.info.status for run in client.search_runs([experiment])} == {"FINISHED"}


def finished_trials(client, experiment):
    found = client.get_experiment_by_name(experiment)
    condition = "tags.kind = 'trial' and attributes.status = 'FINISHED'"
    return client.search_runs([found.experiment_id], condition) if found else []
