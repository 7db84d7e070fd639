"""Python's search for garbage is seldom, and goes on."""

import subprocess
import sys

CYCLE = """
class Cycle:
    def __init__(self):
        self.itself = self

    def __del__(self):
        print("found")
"""


def printed(script):
    """What the script prints, as a process of its own."""
    code = f"import gc\nfrom cifar_mlflow import garbage\n{CYCLE}\n{script}"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


def test_nothing_is_looked_through_when_the_process_ends():
    assert printed("Cycle()") == ["found"]
    assert printed("garbage.collect_rarely(); Cycle()") == []


def test_what_is_loaded_is_set_apart_once_and_its_garbage_never():
    script = "gc.disable(); Cycle(); garbage.set_apart_what_is_loaded(); print(gc.get_freeze_count() > 1000)"
    assert printed(script)[:2] == ["found", "True"]
    later = "Cycle(); garbage.set_apart_what_is_loaded(); print('later'); gc.collect()"
    assert printed(f"{script}; {later}") == ["found", "True", "later", "found"]


def test_a_training_looks_through_nothing_that_is_imported():
    script = """
from cifar_mlflow import cli
cli.cli.main(["train", "--dataset", "digits", "--epochs", "1"], standalone_mode=False)
print(gc.get_freeze_count() > 100_000)
"""
    assert printed(script)[-1] == "True"
