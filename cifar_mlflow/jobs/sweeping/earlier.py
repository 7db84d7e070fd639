"""Whether the runs of an earlier start of a sweep can stand beside new ones: the same data, and the same networks."""

from collections import defaultdict
from collections.abc import Callable, Iterable

from cifar_mlflow.config.rules import recorded
from cifar_mlflow.config.sweep import SweepConfig
from cifar_mlflow.config.training import TrainingConfig
from cifar_mlflow.errors import ConfigurationError
from cifar_mlflow.jobs.sweeping.trial import SETTINGS, settings
from cifar_mlflow.records import RunRecord
from cifar_mlflow.text import count

# What tells a run's data, network and first weights apart from others, beside what the spec says: tag to what it is of.
COMPARED = {"dataset_digest": "dataset", "network_digest": "network", "pretrained_digest": "pretrained"}


def refuse_changed(
    spec: SweepConfig, records: Iterable[RunRecord], digests: Callable[[TrainingConfig], tuple[str, ...]]
) -> None:
    """Raises ConfigurationError if a result among the `records` is of other data, network or weights than now.

    `digests` tells what those of a configuration are now.
    """
    changed: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for record in filter(_is_result, records):
        varied = {name: record.parameters[name] for name in SETTINGS if name in spec.space}
        config = TrainingConfig.model_validate({**spec.base, **varied})
        now = dict(zip(COMPARED, digests(settings(config)), strict=True))
        for tag in (tag for tag in COMPARED if record.tags.get(tag, "") != now[tag]):
            then = f"then it had the digest {record.tags[tag]}" if tag in record.tags else "no digest was recorded then"
            what = f"{COMPARED[tag]}: {getattr(config, COMPARED[tag])} is not what"
            changed[what, f"had; {then}, now it has {now[tag]}"].append(record.run_id)
        if record.tags["run_fingerprint"] != _fingerprint(record):
            changed["version: this one of cifar-mlflow would train again what", "trained"].append(record.run_id)
    if changed:
        raise ConfigurationError(
            [
                *(
                    f"{what} {count(len(ids), 'run')} (such as {ids[0]}) {then}"
                    for (what, then), ids in changed.items()
                ),
                "a sweep can only be added to; put back what it was, or give the changed one another name",
            ],
            f"sweep {spec.name}, which was run before",
        )


def _is_result(record: RunRecord) -> bool:
    """Whether it is compared with other runs, and so must be like them; what broke off is trained again."""
    tags = record.tags
    ended = record.status == "FINISHED" or tags.get("pruned") == "true"
    return (ended or tags.get("failure_type") in ("Diverged", "TrainingError")) and "dataset_digest" in tags


def _fingerprint(record: RunRecord) -> str:
    """The run's name, as this version of the package gives it from what was recorded."""
    try:
        config = recorded(record.parameters)
    except ConfigurationError:  # of another version's options
        return ""
    return config.run_fingerprint(*(record.tags.get(tag, "") for tag in COMPARED))
