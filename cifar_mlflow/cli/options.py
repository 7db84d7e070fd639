"""The options of train: one for each field of the configuration, whose values are checked together."""

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import click

from cifar_mlflow.config.training import BUILT_IN_DATASETS, BUILT_IN_NETWORKS, TrainingConfig
from cifar_mlflow.jobs.listener import warn
from cifar_mlflow.text import NAME_LIMIT, as_option, fault, option_name, shown

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    Completion = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]

SYSTEM_METRICS = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"
# The fields of the configuration as the help of train shows them: every field is in one group.
GROUPS = {
    "Network": (
        "network", "pretrained", "freeze", "backbone_rate", "widths", "activation", "dropout", "batch_norm",
        "weight_init",
    ),
    "Images": (
        "dataset", "data_dir", "image_size", "test_size", "skip_unreadable", "augmentation", "mix", "alternate_flip",
        "shift", "padding", "normalize", "validation_size", "split_seed", "folds", "class_weights",
    ),
    "Optimization": (
        "epochs", "patience", "max_minutes", "batch_size", "accumulate", "clip_grad", "optimizer", "learning_rate",
        "bias_rate", "momentum", "weight_decay", "loss", "label_smoothing", "averaging", "averaging_decay", "seed",
    ),
    "Schedule of the learning rate": ("scheduler", "step_size", "gamma", "milestones", "warmup"),
    "Scores": ("epoch_evaluation",),
    "Machine": ("device", "precision", "threads", "accelerate"),
}  # fmt: skip

# What a shell offers for values that are no closed choice, and where a file may stand too.
OFFERED = {"network": BUILT_IN_NETWORKS, "dataset": BUILT_IN_DATASETS, "pretrained": ("none", "default")}
WITH_FILES = ("dataset", "pretrained", "data_dir")


def configuration_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with an option for each field, whose value is the text that was given, or None."""
    schema = TrainingConfig.model_json_schema()["properties"]
    for name, field in reversed(TrainingConfig.model_fields.items()):
        kind, told = metavar(schema[name]), field.description
        offered = OFFERED.get(name) or (kind.split("|") if "|" in kind else [])
        if is_truth := kind == "true|false":
            kind = "BOOL"
        elif "|" in kind:  # too wide to stand beside the option
            kind, told = "NAME", f"{told} ({kind.replace('|', ', ')})"
        # Of true or false, the option alone is true.
        more: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if is_truth else {}
        text = f"{told}  [{as_option(field.default)}]"
        more["shell_complete"] = completed(offered, files=name in WITH_FILES)
        command = click.option(option_name(name), name, metavar=kind, help=text, **more)(command)
    return command


def completed(words: Sequence[str] = (), *, files: bool = True) -> "Completion":
    """What a shell offers at Tab: those of the words that begin so, and if `files` the files and folders too."""

    def offer(context: click.Context, option: click.Parameter, begun: str) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem

        found = [CompletionItem(word) for word in words if word.startswith(begun)]
        return [*found, CompletionItem(begun, type="file")] if files else found

    return offer


class TrainCommand(click.Command):
    """A command with the options of the configuration, which its help shows in groups."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        records = {str(each.name): each.get_help_record(context) for each in self.get_params(context)}
        of_command = [name for name in records if name not in TrainingConfig.model_fields]
        groups = {"Run": of_command, **GROUPS}
        shown = {heading: [line for name in names if (line := records[name])] for heading, names in groups.items()}
        width = max(len(option) for lines in shown.values() for option, _ in lines)
        for heading, lines in shown.items():
            with formatter.section(heading):
                formatter.write_dl([(option.ljust(width), told) for option, told in lines])


def metavar(schema: dict[str, Any]) -> str:
    """What stands for the value in the help, from the field's JSON schema."""
    if choices := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
        return "|".join(choices)
    return {"integer": "N", "number": "X", "boolean": "true|false"}.get(schema.get("type", ""), "VALUE")


def choice(*names: str, values: Sequence[str], **options: Any) -> Callable[..., Any]:
    """An option with one of `values`, the first of which is the default."""
    return click.option(*names, type=click.Choice(values), default=values[0], show_default=True, **options)


def unknown_options(words: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """The options that the command does not know, by field, and what is wrong with words that belong to none."""
    unknown: dict[str, str] = {}
    faults = []
    left = deque(words)
    while left:
        word = left.popleft()
        if not word.startswith("-"):
            faults.append(f"{word!r}: every value needs an option before it{_meant(word)}")
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if not equals and left and not left[0].startswith("--"):
            value = left.popleft()
        unknown[name.replace("-", "_")] = value
    return unknown, faults


def _meant(word: str) -> str:
    """The option that the value must belong to, if it shows that."""
    is_dataset = word in BUILT_IN_DATASETS or word.endswith((".npz", "/"))
    option = "--dataset" if is_dataset else "--config" if word.endswith((".yaml", ".yml")) else None
    return f" (did you mean {option} {word}?)" if option else ""


def name_faults(names: Mapping[str, str | None]) -> list[str]:
    """Why no store can be trusted with a name, by the option that gives it."""
    given = {option: name for option, name in names.items() if name is not None}
    empty = [f"{option}: must not be empty" for option, name in given.items() if not name.strip()]
    unfit = {option: fault(name, NAME_LIMIT) for option, name in given.items()}
    return empty + [f"{option}: {shown(given[option])} is refused: {told}" for option, told in unfit.items() if told]


def beside_others(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with the options of all that train, beside those of what is trained."""
    wait = "begin when it is its turn among the trainings of this machine"
    metrics = f"record how busy the machine is as MLflow's system metrics  [${SYSTEM_METRICS}]"
    command = click.option("--system-metrics", is_flag=True, help=metrics)(command)
    return click.option("--wait", is_flag=True, help=wait)(command)


class Commands(click.Group):
    """A group whose help has sections: of each, the commands with the line that tells of it.

    In its commands a flag may be followed by true or false, as `mlflow run -P wait=true` makes it, and an option that
    is given again is told of.
    """

    def __init__(self, *, sections: Mapping[str, Mapping[click.Command, str]], **options: Any) -> None:
        super().__init__(commands=[command for lines in sections.values() for command in lines], **options)
        self._sections = sections

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.commands))
        for heading, lines in self._sections.items():
            with formatter.section(heading):
                formatter.write_dl([(str(command.name).ljust(width), told) for command, told in lines.items()])

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, command, left = super().resolve_command(context, words)
        options = [each for each in command.params if isinstance(each, click.Option)] if command else []
        flags = {option for each in options if each.is_flag for option in each.opts}
        if not context.resilient_parsing:  # as for a shell's Tab
            for option in _repeated(
                {name for each in options if not each.multiple for name in each.opts} - flags, left
            ):
                warn(f"{option} is given more than once: the last counts")
        return name, command, _without_values(flags, left)


def _repeated(options: Collection[str], words: Iterable[str]) -> list[str]:
    given = Counter(word.partition("=")[0].replace("_", "-") for word in takewhile(lambda word: word != "--", words))
    return [name for name, number in given.items() if number > 1 and name in options]


def _without_values(flags: Collection[str], words: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for word in words:
        is_value = bool(kept) and kept[-1].replace("_", "-") in flags and word.lower() in ("true", "false")
        if not is_value:
            kept.append(word)
        elif word.lower() == "false":
            kept.pop()
    return kept
