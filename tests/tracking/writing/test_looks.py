"""How often the test set was looked at: two looks at once are two."""

from types import SimpleNamespace

import pytest

from cifar_mlflow.tracking.store import Store
from cifar_mlflow.tracking.writing import looks


class Run:
    """The tags of a run. What is in `meanwhile` comes between two of the requests of whoever asks."""

    def __init__(self, **tags: str) -> None:
        self.tags, self.requests, self.meanwhile = tags, 0, {}

    def _asked(self):
        self.requests += 1
        self.meanwhile.pop(self.requests, lambda: None)()

    def get_run(self, run_id):
        self._asked()
        return SimpleNamespace(data=SimpleNamespace(tags=dict(self.tags)))

    def set_tag(self, run_id, key, value):
        self._asked()
        self.tags[key] = value


def look(run: Run) -> None:
    looks.add(Store(run, "sqlite:///nowhere.db", None), "a" * 32)


@pytest.mark.parametrize("before", [{}, {looks.TAG: "7"}])
def test_looks_are_counted(before):
    run = Run(**before)
    for number in range(1, 4):
        look(run)
        assert run.tags[looks.TAG] == str(number + int(before.get(looks.TAG, 0)))


@pytest.mark.parametrize("before", [{}, {looks.TAG: "7"}, {looks.TAG: "1", f"{looks.PREFIX}0": "1"}])
@pytest.mark.parametrize("when", range(1, 7))
def test_a_look_that_comes_between_is_not_lost(before, when):
    run = Run(**before)
    run.meanwhile[when] = lambda: look(run)
    look(run)
    if not run.meanwhile:  # else it had ended before
        assert run.tags[looks.TAG] == str(looks.count(run.tags)) == str(2 + int(before.get(looks.TAG, 0)))


def test_what_is_no_number_counts_as_nothing():
    assert looks.count({looks.TAG: "many"}) == 0
