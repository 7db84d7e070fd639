"""A run that is done again."""

import pytest


@pytest.fixture
def again(runs, run_id):
    """A function that returns the one run that reproduces the trained one."""

    def find():
        (run,) = [run for run in runs() if run.data.tags.get("reproduces") == run_id]
        return run

    return find
