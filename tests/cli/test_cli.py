"""The command line: quick to answer, made from the configuration's fields, the same in each of its forms."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.text import as_option

HEAVY = {"torch", "mlflow", "matplotlib", "sklearn", "optuna", "torchvision", "scipy"}
LIST_IMPORTS = """
import sys
from cifar_mlflow import cli
sys.argv = ["cifar-mlflow", *sys.argv[1:]]
try:
    cli.main()
finally:
    print("IMPORTED", *sorted({name.split(".")[0] for name in sys.modules}))
"""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        (["train", "--help"], 0),
        (["evaluate", "--help"], 0),
        (["reproduce", "--help"], 0),
        (["train", "--gamma", "0"], 2),
        (["train", "--config", "none.yaml"], 2),
        (["evaluate"], 2),
        (["predict", "--help"], 0),
        (["predict", "0" * 32, "no.png"], 2),
        (["reproduce"], 2),
        (["nonsense"], 2),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_and_usage_errors_import_nothing_heavy(words, code):
    done = subprocess.run([sys.executable, "-c", LIST_IMPORTS, *words], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    imported = set(re.search(r"IMPORTED (.*)", done.stdout)[1].split())
    assert "pydantic" in imported
    assert not HEAVY & imported


def test_every_field_is_an_option_with_its_default(cifar):
    text = cifar("train", "--help").stdout
    for name, field in TrainingConfig.model_fields.items():
        entry = re.search(rf"^  --{name.replace('_', '-')} .*(\n {{8,}}.*)*", text, re.MULTILINE)
        assert entry, name
        assert " ".join(entry[0].split()).endswith(f"[{as_option(field.default)}]")


def test_the_exit_codes_are_in_the_help(cifar):
    text = " ".join(cifar("--help").stdout.split())
    assert "0 done, 1 a fault of this program, 2 wrong options, 3 data, 4 tracking store" in text


@pytest.fixture
def resolved(cifar, runs, client, tiny):
    """A function that gives the configuration with which `train` would run. (It diverges at once, to be quick.)"""

    def run(*words, config=None):
        before = {found.info.run_id for found in runs()}
        options = ["--dataset", tiny, "--batch-norm", "false"]
        if config is not None:
            Path("run.yaml").write_text(yaml.safe_dump({"learning_rate": 1e30, "optimizer": "sgd", **config}))
            options += ["--config", "run.yaml"]
        else:
            options += ["--learning-rate", "1e30", "--optimizer", "sgd"]
        assert cifar("train", *options, *words).code == 5
        (found,) = [found for found in runs() if found.info.run_id not in before]
        saved = Path(client().download_artifacts(found.info.run_id, "config.yaml"))
        return TrainingConfig.model_validate(yaml.safe_load(saved.read_text()))

    return run


def test_an_option_wins_over_the_file_and_the_file_over_the_default(resolved):
    config = resolved("--seed", "3", config={"seed": 2, "split_seed": 5})
    assert (config.seed, config.split_seed, config.batch_size) == (3, 5, 32)


def test_a_file_all_of_which_is_given_as_options_too_is_told(cifar, work, monkeypatch):
    (work / "file.yaml").write_text("epochs: 5\nseed: 1\n")
    told = "--config: file.yaml has no effect: each of its keys is given as an option too"
    assert told not in cifar("train", "--config", "file.yaml", "--epochs", 2, "--dataset", "absent.npz").stderr
    words = ("--config", "file.yaml", "--epochs", 2, "--seed", 3)
    assert f"warning: {told}" in cifar("train", *words, "--dataset", "absent.npz").stderr
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    outcome = cifar("train", *words)
    assert outcome.code == 2
    assert f"{told}; use -e preset" in outcome.stderr


def test_a_fall_of_the_rate_that_never_comes_is_told_if_it_was_asked_for(cifar, work, monkeypatch):
    told, short = "--scheduler step has no effect", ("train", "--dataset", work / "none.npz", "--epochs", "3")
    (work / "step.yaml").write_text("scheduler: step")
    assert told not in cifar(*short).stderr
    for asked in (("--scheduler", "step"), ("--step-size", "20"), ("--config", "step.yaml")):
        assert told in cifar(*short, *asked).stderr
    # `mlflow run` gives every option, so one with its default value may be nobody's wish.
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    every = [f"--{name}={value}" for name, value in TrainingConfig().as_options().items()]
    assert told not in cifar(*short[:1], *every, *short[1:]).stderr
    assert told in cifar(*short[:1], *every, *short[1:], "--step-size", "7").stderr


def test_dashes_and_underscores_are_alike(resolved):
    assert resolved("--batch_size", "16").batch_size == resolved("--batch-size", "16").batch_size == 16


def test_the_last_of_an_option_given_twice_wins(resolved):
    assert resolved("--seed", "1", "--seed", "2").seed == 2


def test_faults_of_the_file_and_the_options_are_told_together(cifar, work):
    (work / "run.yaml").write_text("epochs: 0\nlernig_rate: 1\n")
    outcome = cifar("train", "--config", "run.yaml", "--gamma", "0", "--colour=red", "stray")
    assert outcome.code == 2
    assert outcome.stderr.splitlines() == [
        "error: 5 faults in the options and run.yaml:",
        "  - --gamma: '0' is refused: must be greater than 0",
        "  - --epochs: 0 is refused: must be greater than or equal to 1",
        "  - --lernig-rate: no such option (did you mean --learning-rate?)",
        "  - --colour: no such option",
        "  - 'stray': every value needs an option before it",
    ]


def test_faults_of_names_and_of_what_excludes_each_other_are_told_with_the_rest(cifar, monkeypatch):
    outcome = cifar(
        "train", "--gamma", "0", "--experiment", " ", "--run-name", "a\tb", "--offline", "--resume", "0" * 32
    )
    assert (outcome.code, outcome.stderr.splitlines()) == (
        2,
        [
            "error: 3 faults in the options:",
            "  - --experiment: must not be empty",
            "  - --run-name: 'a\\tb' is refused: it contains '\\t', which is a control character",
            "  - --offline: --resume needs the tracking store that has the run",
        ],
    )
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    outcome = cifar("train", "--gamma", "0", "--offline")
    assert outcome.stderr.splitlines()[1:] == [
        "  - --gamma: '0' is refused: must be greater than 0",
        "  - --offline: `mlflow run` has made a run on the tracking store already",
    ]


@pytest.mark.parametrize("option", ["--resume", "--config"])
def test_an_empty_value_is_a_value(cifar, runs, option):
    """As of a variable of the shell that was never set: nothing is trained in place of it."""
    assert cifar("train", option, "").code in (2, 6)
    assert runs() == []


def test_the_module_and_the_console_script_are_one_command():
    script = Path(sys.executable).with_name("cifar-mlflow")
    module = [sys.executable, "-m", "cifar_mlflow"]
    for words in (["--version"], ["train", "--epochs", "0"]):
        answers = [
            subprocess.run([*command, *words], capture_output=True, text=True, check=False)
            for command in ([str(script)], module)
        ]
        assert answers[0].stdout == answers[1].stdout
        assert answers[0].stderr == answers[1].stderr
        assert answers[0].returncode == answers[1].returncode


def test_check_makes_a_store_and_says_where(cifar_process, work):
    outcome = cifar_process("check")
    assert (outcome.code, outcome.stdout) == (0, f"tracking to sqlite:///{work}/mlflow.db\n")
    assert (work / "mlflow.db").exists()


def test_download_says_where_cifar10_is(cifar, work):
    (work / "data" / "cifar-10-batches-py").mkdir(parents=True)
    assert cifar("download", "--data-dir", "data").stdout == "data/cifar-10-batches-py\n"


def test_an_error_of_no_known_kind_is_told_in_one_line(cifar, monkeypatch):
    from cifar_mlflow.jobs import train as job

    def broken(*arguments, **options):
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(job, "train", broken)
    outcome = cifar("train")
    assert outcome.code == 1
    assert outcome.stderr == (
        "error: this should not have happened (ZeroDivisionError: division by zero). "
        "Set CIFAR_MLFLOW_DEBUG=1 to see where, and report it\n"
    )
    monkeypatch.setenv("CIFAR_MLFLOW_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cifar("train")


@pytest.mark.parametrize("again", [("--epochs", "2"), ("--epochs=2",), ("--epochs", "1")])
def test_an_option_that_is_given_again_is_told_of(cifar, again):
    words = ("train", "--dataset", "absent.npz", "--split-seed", "3", "--split_seed", "4", "--epochs", "1")
    told = cifar(*words, *again).stderr
    assert "warning: --epochs is given more than once: the last counts\n" in told
    assert "warning: --split-seed is given more than once: the last counts\n" in told
    assert told.count("warning: ") == 2
    assert "more than once" not in cifar(*words[:5]).stderr
