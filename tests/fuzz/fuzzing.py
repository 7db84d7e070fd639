"""Whatever stands in a file, what comes of it is a result or an error of ours: no traceback, no hang, no stray file."""

import contextlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cifar_mlflow.errors import CifarMlflowError

QUICK, THOROUGH = 100, 4000  # of each of the six: 24,000 in all
SETTINGS = settings(deadline=20_000, suppress_health_check=list(HealthCheck), database=None)


def fuzz(**strategies):
    """The test with a hundred examples, and, marked long, with thousands; no file may appear outside `work`."""

    def decorate(test):
        @pytest.mark.parametrize("examples", [QUICK, pytest.param(THOROUGH, marks=pytest.mark.long)])
        def many_times(examples, work):
            before = set(work.parent.rglob("*"))
            checks = settings(SETTINGS, max_examples=examples)
            checks(given(work=st.just(work), **strategies)(test))()
            strays = set(work.parent.rglob("*")) - set(work.rglob("*")) - before
            assert strays == set()

        return many_times

    return decorate


@contextlib.contextmanager
def only_our_errors():
    with contextlib.suppress(CifarMlflowError):
        yield


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=8),
    st.dates(),
    st.binary(max_size=4),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6) | st.integers(), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def damaged(draw, originals):
    """One of the originals, with some bytes changed, taken out, put in or cut off; or anything."""
    content = bytearray(draw(st.sampled_from(originals) if draw(st.integers(0, 9)) else st.binary(max_size=200)))
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(["change", "out", "in"]))
        if kind == "change":
            content[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
        elif kind == "out":
            del content[place : place + draw(st.integers(1, 20))]
        else:
            content[place:place] = draw(st.binary(max_size=20))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 4)) == 0 else content)
