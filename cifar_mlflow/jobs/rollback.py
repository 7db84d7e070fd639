"""Let the version that was champion before be champion again."""

from cifar_mlflow import process_state
from cifar_mlflow.errors import ConfigurationError, PromotionRefused
from cifar_mlflow.jobs.listener import say
from cifar_mlflow.jobs.training import signals
from cifar_mlflow.text import REASON_LIMIT, fault, shown
from cifar_mlflow.tracking import store as tracking_store
from cifar_mlflow.tracking.registry import aliases, versions
from cifar_mlflow.tracking.registry.lease import lease
from cifar_mlflow.tracking.writing.recorder import mark_job


@process_state.preserved()
def rollback(name: str, *, alias: str = aliases.CHAMPION, reason: str = "") -> tuple[str, str | None]:
    """Moves the alias back to the version that held it before; this can be repeated as long as there is one.

    Returns the version that holds the alias now, and the one that did until now.

    Raises:
        ConfigurationError: the reason is too long, or no text.
        ModelError: there is no such registered model.
        PromotionRefused: no other version has held the alias before.
        TrackingError: the store cannot be read or written.
    """
    if told := fault(reason, REASON_LIMIT, allowed="\n\t"):
        raise ConfigurationError(f"--reason: {shown(reason)} is refused: {told}", "options")
    store = tracking_store.connect()
    mark_job(store)
    versions.find(store, name)
    with signals.held_back(), lease(store, name, say) as turn:
        record = aliases.repair(store, name, alias)
        present, earlier = aliases.holder(store, name, alias), aliases.rollback_target(store, name, record)
        if earlier is None:
            now = f"version {present} is the first {alias}" if present else f"no version has ever been {alias}"
            raise PromotionRefused(f"there is nothing to roll {name} back to: {now}")
        turn.check()
        aliases.move(store, name, alias, "rollback", earlier, reason=reason)
    return earlier, present
