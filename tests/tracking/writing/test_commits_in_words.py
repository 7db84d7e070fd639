"""The state of a checkout in words and as tags."""

import pytest

from cifar_mlflow.tracking.writing.provenance import Code


@pytest.mark.parametrize(
    ("code", "words", "tags"),
    [
        (Code("abc"), "abc", {"git_commit": "abc", "git_dirty": "false"}),
        (Code("abc", True), "abc with changes", {"git_commit": "abc", "git_dirty": "true"}),
        (Code(None, why="no checkout"), "unknown: no checkout", {"git_commit": "unknown: no checkout"}),
    ],
)
def test_a_commit_is_told_with_whether_there_are_changes(code, words, tags):
    assert (str(code), code.tags("")) == (words, tags)
    assert code.tags("network_") == {f"network_{name}": value for name, value in tags.items()}
