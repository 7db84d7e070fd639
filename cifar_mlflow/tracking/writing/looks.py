"""How often the test set was looked at for a run, so that no look is lost, however many come at once.

MLflow can only overwrite a tag. So each look is a tag of its own, and `test_evaluations`, which people see, their sum.
"""

import uuid
from collections.abc import Mapping

from cifar_mlflow.text import whole_number
from cifar_mlflow.tracking.store import Store

TAG = "test_evaluations"
PREFIX = "mlflow.cifar_mlflow.look."  # MLflow's UI does not show tags that begin with mlflow.
BEFORE = f"{PREFIX}before"  # what the visible tag said when the first look was recorded as a tag of its own


def count(tags: Mapping[str, str]) -> int:
    """The number of looks that the tags of a run tell."""
    looks = [value for name, value in tags.items() if name.startswith(PREFIX)] or [tags.get(TAG, "0")]
    return sum(whole_number(value, 0) for value in looks)


def add(store: Store, run_id: str) -> None:
    """Records one more look at the test set."""
    tags = store.client.get_run(run_id).data.tags
    if TAG in tags and not any(name.startswith(PREFIX) for name in tags):
        store.client.set_tag(run_id, BEFORE, str(count(tags)))
    store.client.set_tag(run_id, PREFIX + uuid.uuid4().hex, "1")
    # Whoever writes the sum last has counted after all others had come.
    while (tags := store.client.get_run(run_id).data.tags).get(TAG) != str(count(tags)):
        store.client.set_tag(run_id, TAG, str(count(tags)))
