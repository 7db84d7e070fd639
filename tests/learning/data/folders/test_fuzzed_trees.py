"""Whatever stands in a folder, what comes of it is a dataset or one message, and nothing outside the cache."""

import functools
import os
import shutil

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support import encoded, photo

from cifar_mlflow.config.rules import resolve
from cifar_mlflow.errors import DataError
from cifar_mlflow.learning.data import datasets, image_folder

QUICK, THOROUGH = 50, 2000
SETTINGS = settings(deadline=60_000, suppress_health_check=list(HealthCheck), database=None)
NAMES = st.sampled_from(
    ["train", "test", "val", "valid", "Train", "cat", "Cat", "dog", "ДОМ", "a b", ".hidden", "x.png", "n\nl", "é", "é"]
) | st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=5).filter(
    lambda name: name not in (".", "..")
)
ENDINGS = st.sampled_from([".png", ".JPG", ".gif", ".tiff", ".txt", "", ".npz"])


@functools.cache
def content_of(seed: int, form: str, size: tuple[int, int], mode: str) -> bytes:
    return encoded(photo(seed, size=size, mode=mode), form)


IMAGES = st.builds(
    content_of,
    st.integers(0, 6),
    st.sampled_from(["PNG", "PNG", "JPEG", "TIFF"]),
    st.sampled_from([(8, 8), (8, 8), (8, 8), (16, 8), (70, 70)]),
    st.sampled_from(["RGB", "RGB", "L"]),
)
CONTENTS = st.one_of(
    IMAGES,
    IMAGES,
    st.binary(max_size=20),
    st.builds(lambda content, cut: content[:cut], IMAGES, st.integers(0, 200)),
)
FILES = st.tuples(st.just("file"), st.lists(NAMES, min_size=1, max_size=3), NAMES, ENDINGS, CONTENTS)
LINKS = st.tuples(
    st.just("link"), st.lists(NAMES, max_size=2), NAMES, ENDINGS, st.sampled_from([".", "..", "nowhere", "cat", "/etc"])
)
OTHERS = st.tuples(st.sampled_from(["pipe", "folder"]), st.lists(NAMES, max_size=2), NAMES, ENDINGS, st.none())
# Most trees are nearly in order, so that they come as far as the split.
ORDERLY = st.integers(0, 12).flatmap(
    lambda count: st.lists(
        st.tuples(
            st.just("file"),
            st.tuples(st.sampled_from(["cat", "dog"])).map(list),
            st.integers(0, 10**6).map(str),
            st.just(".png"),
            st.integers(0, 10**6).map(lambda seed: content_of(seed, "PNG", (8, 8), "RGB")),
        ),
        min_size=count,
        max_size=count + 8,
    )
)
TREES = st.tuples(ORDERLY, st.lists(FILES | LINKS | OTHERS, max_size=8)).map(lambda both: [*both[0], *both[1]])
VALUES = st.fixed_dictionaries(
    {},
    optional={
        "image_size": st.sampled_from(["auto", 4, 9]),
        "test_size": st.sampled_from(["auto", 1, 5, 0.4, 10**6]),
        "validation_size": st.sampled_from(["auto", 0, 1, 4, 10**6]),
        "skip_unreadable": st.booleans(),
        "split_seed": st.integers(0, 3),
    },
)


def build(root, tree) -> None:
    root.mkdir()
    for kind, parents, name, ending, content in tree:
        path = root.joinpath(*parents) / (name + ending)
        try:
            if not path.parent.resolve().is_relative_to(root.resolve()):  # through a link that was made before
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(path):  # who writes to a pipe waits for a reader
                continue
            if kind == "file":
                path.write_bytes(content)
            elif kind == "link":
                path.symlink_to(content)
            elif kind == "pipe":
                os.mkfifo(path)
            else:
                path.mkdir()
        except (OSError, RuntimeError):  # a name that is taken already, or too long in bytes; links in a circle
            continue


def listing(directory) -> set[str]:
    return {os.path.join(parent, name) for parent, _, names in os.walk(directory) for name in names}


@pytest.mark.parametrize("examples", [QUICK, pytest.param(THOROUGH, marks=pytest.mark.long)])
def test_any_tree(examples, work):
    outside = listing(work.parent)

    @settings(SETTINGS, max_examples=examples)
    @given(tree=TREES, values=VALUES)
    @example(tree=[], values={})
    def one(tree, values):
        root = work / "photos"
        build(root, tree)
        before = listing(work)
        config = resolve({"dataset": f"{root}/", **values})
        told = image_folder.examine(config, datasets.no_bar)
        assert all("\n" not in text for text in [*told.faults, *told.warnings])
        if told.faults or told.size_fault:
            with pytest.raises(DataError, match="this folder of images cannot be used"):
                datasets.load(config)
        else:
            found = datasets.load(config)
            assert min(len(found.train), len(found.test)) >= 2
            assert set(found.train.labels.tolist()) == set(range(len(found.classes)))
            assert found.digest == datasets.load(config).digest
        assert listing(work) == before
        shutil.rmtree(root)

    one()
    strays = {path for path in listing(work.parent) - outside if not path.startswith(str(work.parent / "cache"))}
    assert strays == set()
