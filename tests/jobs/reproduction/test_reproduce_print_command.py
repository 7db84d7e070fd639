"""`reproduce --print-command`: the command that trains a run again."""

import shlex

from support import DIVERGING

from cifar_mlflow.jobs.reproduce import EPOCH_METRICS


def test_it_gives_an_identical_run_when_it_is_pasted(cifar, client, runs, trained, run_id):
    outcome = cifar("reproduce", run_id, "--print-command")
    assert outcome.code == 0
    assert len(runs()) == 1
    (line,) = outcome.stdout.splitlines()
    words = shlex.split(line)
    command = words[words.index("cifar-mlflow") :]
    assert cifar(*command[1:]).code == 0
    pasted = next(run for run in runs() if run.info.run_id != run_id)
    assert pasted.data.tags["run_fingerprint"] == trained.data.tags["run_fingerprint"]
    for name in EPOCH_METRICS:
        first, second = ([point.value for point in client().get_metric_history(run.info.run_id, name)]
                         for run in (trained, pasted))  # fmt: skip
        assert first == second, name


def test_it_names_the_commit_and_what_is_no_default(cifar, client, run_id, tiny):
    client().set_tag(run_id, "git_commit", "0123456789abcdef")
    client().set_tag(run_id, "git_dirty", "false")
    outcome = cifar("reproduce", run_id, "--print-command")
    assert outcome.stdout == (
        "git checkout 0123456789abcdef && cifar-mlflow train --scheduler none --batch-size 8 --epochs 3 --seed 0 "
        f"--dataset {tiny} --device cpu --precision float32 --threads 1\n"
    )
    assert outcome.stderr == ""


def test_it_is_quoted_for_a_shell(cifar, runs, write_npz):
    path = write_npz("it's mine.npz")
    assert cifar("train", "--dataset", path, *DIVERGING).code == 5
    outcome = cifar("reproduce", runs()[0].info.run_id, "--print-command", "--threads", 2)
    words = shlex.split(outcome.stdout)
    assert words[words.index("--dataset") + 1] == str(path)
    assert words[words.index("--threads") + 1] == "2"


def test_it_says_what_it_cannot_promise(cifar, client, run_id):
    client().set_tag(run_id, "git_commit", "0123456789abcdef")
    client().set_tag(run_id, "git_dirty", "true")
    outcome = cifar("reproduce", run_id, "--print-command")
    assert "warning: the run had changes that are not in the commit 0123456789abcdef" in outcome.stderr
    client().set_tag(run_id, "git_commit", "unknown: the package was not run from a git checkout")
    outcome = cifar("reproduce", run_id, "--print-command")
    assert "warning: the commit of the run is unknown" in outcome.stderr
    assert outcome.stdout.startswith("cifar-mlflow train --")
