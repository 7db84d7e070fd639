"""Writes the pages of docs/reference/ that say what the code says; `make docs` runs it, and a test compares."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import yaml

import cifar_mlflow as cm
from cifar_mlflow import errors, interface
from cifar_mlflow.cli import cli
from cifar_mlflow.cli.options import GROUPS, metavar
from cifar_mlflow.config.rules import ACTS_ONLY_WITH
from cifar_mlflow.config.training import NOT_IN_FINGERPRINT, TrainingConfig
from cifar_mlflow.text import as_option, option_name

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NOTE = "<!-- Written by `make docs`; do not edit. -->\n"


OF_MODELS = ("evaluate", "predict", "calibrate", "export", "mislabelled", "promote", "rollback", "history")


def commands() -> str:
    """Every command with its help, but those on the page of models."""
    others = "Those for trained models are on [a page of their own](commands-of-models.md)."
    return _commands("Commands", others, [name for name in cli.commands if name not in OF_MODELS])


def commands_of_models() -> str:
    """Every command for trained models with its help."""
    return _commands("Commands for models", "All others are on [their page](commands.md).", OF_MODELS)


def _commands(heading: str, others: str, names: Sequence[str]) -> str:
    """The named commands; the options of train are on the page of the configuration."""
    told = "`cifar-mlflow COMMAND --help`, or `-h`, shows the same on the terminal."
    parts = [f"# {heading}\n\n{NOTE}\n{told}\n{others}\n"]
    width = {"max_content_width": 110, "terminal_width": 110}
    # As on the command line, so that subcommands take over what the group sets, such as -h.
    context = cli.make_context("cifar-mlflow", [], resilient_parsing=True, **width)
    for name in names:
        command = cli.commands[name]
        text = command.get_help(click.Context(command, context, name, **width))
        if name == "train":
            text = text.partition(f"\n\n{next(iter(GROUPS))}:")[0]
            text += "\n\nand an option for each field of the configuration: see configuration.md"
        text = re.sub(r"\n  -h, --help .*", "", text)
        parts.append(f"## {name}\n\n```\n{text}\n```\n")
    return "\n".join(parts)


def exit_codes() -> str:
    """Every error with its exit code."""
    return f"# Exit codes\n\n{NOTE}\n```\n{inspect.getdoc(errors)}\n```\n"


def entry_points() -> str:
    """The entry points of the MLflow project."""
    project = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
    parts = [
        f"# Entry points of the MLflow project\n\n{NOTE}",
        "`mlflow run . -e NAME -P PARAMETER=VALUE`, or `mlflow run GIT_URL ...`; `main` is meant without `-e`.",
        "Parameters of the configuration are explained on [its page](configuration.md), the others with",
        "their command, on the page of [commands](commands.md) or of those [for models](commands-of-models.md).",
    ]
    for name, entry in project["entry_points"].items():
        parts.append(f"\n## {name}\n")
        if not (parameters := entry.get("parameters", {})):
            parts.append("No parameters.")
        for parameter, about in parameters.items():
            default = about.get("default") if isinstance(about, dict) else None
            shown = "required" if default is None else f"default `{default}`" if str(default) else "default: not given"
            parts.append(f"- `{parameter}`: {shown}")
    return "\n".join(parts) + "\n"


def configuration() -> str:
    """Every field of the configuration."""
    schema = TrainingConfig.model_json_schema()["properties"]
    rows = ["| option | default | values | what it is | acts with |", "| --- | --- | --- | --- | --- |"]
    for name, field in TrainingConfig.model_fields.items():
        decider, values = ACTS_ONLY_WITH.get(name, ("", set()))
        acts = f"`{option_name(decider)}` {', '.join(sorted(values))}" if decider else ""
        option, default = f"`{option_name(name)}`", f"`{as_option(field.default)}`"
        cells = (option, default, _values(schema[name]), field.description, acts)
        rows.append(f"| {' | '.join(str(cell).replace('|', ' ') for cell in cells)} |")
    fixed = ", ".join(f"`{option_name(name)}`" for name in sorted(NOT_IN_FINGERPRINT))
    text = f"""# Configuration

{NOTE}
Each field is an option of `cifar-mlflow train`, a key of a YAML file (with `_` for `-`), a parameter of
`mlflow run . -P`, and an argument of `cifar_mlflow.train`. An option whose "acts with" does not hold is warned of.
Runs that differ in {fixed} alone are
runs of one configuration.

"""
    return text + "\n".join(rows) + "\n"


def _values(schema: dict[str, object]) -> str:
    """What a field may be: its choices, or its kind and range."""
    shown = metavar(schema).replace("|", ", ")
    kinds = {"N": "whole number", "X": "number", "true, false": "true, false", "VALUE": ""}
    limits = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    told = [f"{words} {schema[key]:,}" for key, words in limits.items() if isinstance(schema.get(key), int | float)]
    return ", ".join(filter(None, [kinds.get(shown, shown), *told]))


def _signature(name: str, function: Callable[..., object]) -> str:
    """The call with its types and defaults, without the quotes of annotations, in lines that one reads."""
    shown = re.sub(r"(: |-> )'([^']*)'", r"\1\2", f"{name}{inspect.signature(function)}")
    kept = re.sub(r" ?(\||=|:|->) ", lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), shown)
    lines = textwrap.fill(kept, 110, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return lines.replace("\N{NO-BREAK SPACE}", " ")


def _members(kind: type) -> str:
    """Its fields, and what else it has for its users."""
    more = [name for name, each in vars(kind).items() if not name.startswith("_") and name not in kind.__annotations__]
    return textwrap.fill(f"{kind.__name__}: {', '.join([*kind.__annotations__, *more])}", 110, subsequent_indent="    ")


def python() -> str:
    """Every name of the Python interface, but those on the page of models, and what they have in common."""
    others = "What is done with trained models is on [a page of its own](python-of-models.md)."
    return f"# Python\n\n{NOTE}\n{others}\n\n```\n{inspect.getdoc(interface)}\n```\n\n" + _python(of_models=False)


def python_of_models() -> str:
    """Every function for trained models."""
    others = "What all functions have in common is on [the page of the others](python.md)."
    return f"# Python: models\n\n{NOTE}\n{others}\n\n" + _python(of_models=True)


def _python(of_models: bool) -> str:
    """The names, each with its signature and docstring."""
    parts = []
    for name in cm.__all__:
        what = getattr(interface, name)
        if (what.__module__ == interface.models.__name__) != of_models:
            continue
        call = _members(what) if inspect.isclass(what) else _signature(name, what)
        parts.append(f"## {name}\n```\n{call}\n\n{inspect.getdoc(what)}\n```\n")
    return "\n".join(parts)


PAGES = {
    "commands.md": commands,
    "commands-of-models.md": commands_of_models,
    "exit-codes.md": exit_codes,
    "entry-points.md": entry_points,
    "configuration.md": configuration,
    "python.md": python,
    "python-of-models.md": python_of_models,
}


if __name__ == "__main__":
    for page, written in PAGES.items():
        (HERE / page).write_text(written(), encoding="utf-8")
