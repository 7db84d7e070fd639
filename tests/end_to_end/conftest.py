"""What the end-to-end tests share."""

import pytest


@pytest.fixture
def refused(cifar, statuses):
    """Runs a command that must fail as said: its code, its message, no traceback, no run left RUNNING."""

    def check(code, message, *words):
        outcome = cifar(*words)
        assert message in outcome.stderr
        assert outcome.code == code
        assert "Traceback" not in outcome.output
        assert "this should not have happened" not in outcome.output
        assert "RUNNING" not in statuses()
        return outcome

    return check
