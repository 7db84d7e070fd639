"""The help of train is read from its groups; colours are where a terminal has them."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from cifar_mlflow.cli import cli
from cifar_mlflow.cli.options import GROUPS
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.text import option_name


def test_every_field_is_in_one_group():
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(TrainingConfig.model_fields)


def test_the_help_of_train_shows_the_groups_and_is_short(cifar):
    lines = cifar("train", "--help").stdout.splitlines()
    headings = [line[:-1] for line in lines if re.fullmatch(r"\w.*:", line)]
    assert headings == ["Run", *GROUPS]
    under: dict[str, list[str]] = {}
    for line in lines[lines.index("Run:") :]:
        if re.fullmatch(r"\w.*:", line):
            under[line[:-1]] = []
        elif option := re.match(r"  (?:-h, )?(--[\w-]+)", line):
            under[next(reversed(under))].append(option[1])
    assert {heading: under[heading] for heading in GROUPS} == {
        heading: [option_name(name) for name in names] for heading, names in GROUPS.items()
    }
    assert {"--config", "--resume", "--help"} <= set(under["Run"])
    assert len(lines) <= 135  # of 80 columns
    assert {len(line) - len(line.lstrip()) for line in lines if line.startswith("   ")} == {27}  # one column for all


def on_a_terminal(**environment) -> str:
    """What `train --gamma 0` writes to a terminal."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "cifar_mlflow", "train", "--gamma", "0"]
    subprocess.run(words, stderr=theirs, env=os.environ | {"TERM": "xterm"} | environment, check=False)
    os.close(theirs)
    told = os.read(ours, 10_000).decode()
    os.close(ours)
    return told.strip()


@pytest.mark.parametrize(
    ("environment", "shown"),
    [({}, "\x1b[31merror:\x1b[0m"), ({"NO_COLOR": "1"}, "error:"), ({"TERM": "dumb"}, "error:")],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_an_error_is_red_where_the_terminal_has_colours(environment, shown):
    assert on_a_terminal(**environment).startswith(f"{shown} 1 fault in the options:")


def test_a_file_gets_no_colours(cifar_process):
    assert cifar_process("train", "--gamma", "0").stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("train --acti", ["plain,--activation"]),
        ("train --optimizer ada", ["plain,adam", "plain,adamw", "plain,adagrad", "plain,adamax"]),
        ("train --dataset di", ["plain,digits", "file,di"]),
        ("sweep exp", ["file,exp"]),
    ],
)
def test_a_shell_is_told_how_to_complete_and_what(words, offered, monkeypatch):
    monkeypatch.setenv("_CIFAR_MLFLOW_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"cifar-mlflow {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
    program = [
        sys.executable,
        "-c",
        "import sys; sys.argv[0] = 'cifar-mlflow'; from cifar_mlflow.cli import main; main()",
    ]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, offered, "")


def test_each_command_is_told_in_one_line(cifar):
    lines = cifar("--help").stdout.splitlines()
    told = {line.split()[0]: line for line in lines if re.match(r"  [a-z]+ +[A-Z]", line)}
    assert set(told) == set(cli.commands)
    assert all(line.endswith(".") and not line.endswith("...") and len(line) <= 80 for line in told.values())


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["trian"], "error: No such command 'trian'. Did you mean 'train'? See `cifar-mlflow --help`\n"),
        (["evaluate"], "error: Missing argument 'MODEL'; see `cifar-mlflow evaluate --help`\n"),
        (["train", "digits"], "every value needs an option before it (did you mean --dataset digits?)"),
        (["train", "a.yaml"], "every value needs an option before it (did you mean --config a.yaml?)"),
        (["train", "--dataset", "digit"], "as in photos/ (did you mean digits?)"),
        (["train", "--dataset", "photos"], "as in photos/ (did you mean photos/?)"),
        (["train", "--dataset", ""], "as in photos/\n"),
        (["train", "--config", "spec.yaml"], "this is the spec of a sweep: cifar-mlflow sweep spec.yaml"),
        (["sweep", "one.yaml"], "these are options of one training (`cifar-mlflow train --config FILE`)"),
    ],
)
def test_what_was_meant_is_guessed(cifar, work, words, told):
    (work / "photos").mkdir()
    (work / "spec.yaml").write_text("name: s\nspace: {activation: [relu]}\n")
    (work / "one.yaml").write_text("epochs: 3\n")
    outcome = cifar(*words)
    assert outcome.code == 2
    assert told in outcome.stderr
