"""The help of train is read from its groups; colours are where a terminal has them."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

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


def test_a_shell_is_told_how_to_complete_and_what(monkeypatch):
    monkeypatch.setenv("_CIFAR_MLFLOW_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "cifar-mlflow train --acti")
    monkeypatch.setenv("COMP_CWORD", "2")
    program = [
        sys.executable,
        "-c",
        "import sys; sys.argv[0] = 'cifar-mlflow'; from cifar_mlflow.cli import main; main()",
    ]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "plain,--activation\n", "")
