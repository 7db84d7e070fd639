"""Let the version that was champion before be champion again."""

import tempfile
from pathlib import Path

from cifar_mlflow import process_state
from cifar_mlflow.errors import ConfigurationError, ModelError, PromotionRefused
from cifar_mlflow.jobs.listener import say
from cifar_mlflow.jobs.training import signals
from cifar_mlflow.text import REASON_LIMIT, fault, shown
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.reading import models
from cifar_mlflow.tracking.registry import aliases, versions
from cifar_mlflow.tracking.registry.lease import lease
from cifar_mlflow.tracking.store import Store
from cifar_mlflow.tracking.writing import digests
from cifar_mlflow.tracking.writing.recorder import mark_job


@process_state.preserved()
def rollback(name: str, *, alias: str = aliases.CHAMPION, reason: str = "") -> tuple[str, str | None]:
    """Moves the alias back to the version that held it before; this can be repeated as long as there is one.

    Returns the version that holds the alias now, and the one that did until now.

    Raises:
        ConfigurationError: the reason is too long, or no text.
        ModelError: there is no such registered model.
        PromotionRefused: no other version has held the alias before, or its run or files are gone or changed.
        TrackingError: the store cannot be read or written.
    """
    if told := fault(reason, REASON_LIMIT, allowed="\n\t"):
        raise ConfigurationError(f"--reason: {shown(reason)} is refused: {told}", "options")
    store = tracking_store.connect()
    mark_job(store)
    versions.find(store, name)
    whole = None
    while True:
        with signals.held_back(), lease(store, name, say) as turn:
            record = aliases.repair(store, name, alias)
            present, earlier = aliases.holder(store, name, alias), aliases.rollback_target(store, name, record)
            if earlier is None:
                now = f"version {present} is the first {alias}" if present else f"no version has ever been {alias}"
                raise PromotionRefused(f"there is nothing to roll {name} back to: {now}")
            if earlier == whole:
                turn.check()
                aliases.move(store, name, alias, "rollback", earlier, reason=reason)
                return earlier, present
        _check_whole(store, name, earlier)  # takes longer than a turn may
        whole = earlier


def _check_whole(store: Store, name: str, version: str) -> None:
    """PromotionRefused if the run or the files of the version are gone, or no longer what was promoted."""
    try:
        found = models.find_model(store, f"models:/{name}/{version}")
        with tempfile.TemporaryDirectory() as directory:
            if changed := digests.differences(models.download(found.uri, Path(directory)), found.tags):
                raise ModelError(f"its files are not those that were logged ({', '.join(changed)})")
    except ModelError as error:
        raise PromotionRefused(
            f"{name} version {version} cannot be brought back: {error}. To roll back to the one before it, delete "
            f"version {version} from the registry"
        ) from None
