"""A trial that has ended, and one of whose runs was lost: it is trained again, and to its end."""

from pathlib import Path

from cifar_mlflow.config.sweep import parse_spec
from cifar_mlflow.jobs.sweeping.plan import Plan
from cifar_mlflow.records import RunRecord, TrialOutcome
from cifar_mlflow.tuning.study import TuningStudy


def test_a_lost_run_of_an_ended_trial_is_not_pruned(tmp_path):
    values = {"name": "s", "base": {"dataset": "digits", "epochs": 4}, "space": {"activation": ["relu"]}}
    spec = parse_spec({**values, "repeats": 2, "pruner": "successive_halving"}, Path("/"))

    def opened(known=()):
        study = TuningStudy(spec, tmp_path / "journal.log")
        return Plan(spec, study, lambda config: config.run_fingerprint("data"), known)

    plan, done = opened(), []
    while planned := plan.next():
        plan.finish(planned, TrialOutcome("FINISHED", 70.0))
        done.append(planned)
    assert [planned.prunable for planned in done] == [True, False]
    kept = RunRecord("id", "n", "FINISHED", 1, metrics={"final_val_accuracy": 70.0},
                     tags={"run_fingerprint": done[1].fingerprint})  # fmt: skip
    again = opened([kept]).next()
    assert (again.fingerprint, again.prunable) == (done[0].fingerprint, False)
