"""Who hears of a job; and a process that is ours alone seldom looks for garbage, but goes on to do so."""

import shutil
import subprocess
import sys
import threading
import types

import pytest

from cifar_mlflow.jobs import console, listener

CYCLE = """
class Cycle:
    def __init__(self):
        self.itself = self

    def __del__(self):
        print("found")
"""


class Kept(listener.Listener):
    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


def printed(script):
    """What the script prints, as a process of its own."""
    code = f"import gc\nfrom cifar_mlflow.jobs import console\n{CYCLE}\n{script}"
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()


def test_nobody_hears_unless_someone_listens(capfd):
    listener.say("lost")
    with listener.bar(3, "lost", " things") as update:
        update(3)
    with listener.listening(heard := Kept()):
        listener.say("heard")
        with listener.listening(inner := Kept()):
            listener.warn("within")
        threading.Thread(target=listener.say, args=("in a thread of the caller's",)).start()
    listener.warn("lost")
    assert (heard.lines, inner.lines) == (["heard"], ["warning: within"])
    assert capfd.readouterr() == ("", "")


def test_the_console_shows_lines_on_standard_error_without_passwords(capsys):
    with listener.listening(console.Console()):
        listener.warn("http://me:secret@server is slow")
        with listener.bar(2, "looking", " checks") as update:
            update(1)
    assert capsys.readouterr() == ("", "warning: http://***@server is slow\n")


def test_nothing_is_looked_through_when_a_process_of_ours_ends():
    assert printed("Cycle()") == ["found"]
    assert printed("console.Console(); Cycle()") == ["found"]
    assert printed("console.OwnProcess(); Cycle()") == []


def test_what_is_loaded_is_set_apart_once_and_its_garbage_never():
    script = "gc.disable(); Cycle(); own = console.OwnProcess(); own.computing(); print(gc.get_freeze_count() > 1000)"
    later = "Cycle(); own.computing(); print('later'); gc.collect()"
    assert printed(f"{script}; {later}") == ["found", "True", "later", "found"]


def test_a_training_of_the_command_line_looks_through_nothing_that_is_imported(work, tiny, empty_store):
    shutil.copy(empty_store, work / "mlflow.db")
    script = f"""
import sys
from cifar_mlflow import cli
sys.argv = ["cifar-mlflow", "train", "--dataset", {str(tiny)!r}, "--epochs", "1"]
cli.main()
print(gc.get_freeze_count() > 100_000, gc.get_threshold()[0] == console.GC_THRESHOLD)
"""
    assert printed(script)[-2:] == ["True", "True"]


@pytest.mark.parametrize(
    ("version", "frozen"), [(None, True), ("3.8.0", True), ("3.9.0", False), ("3.10.1+cpu", False)]
)
def test_at_its_end_a_process_looks_through_everything_only_for_a_triton_that_would_tell_of_it(
    monkeypatch, version, frozen
):
    monkeypatch.setitem(sys.modules, "triton", version and types.SimpleNamespace(__version__=version))
    done = []
    monkeypatch.setattr(console.gc, "freeze", lambda: done.append(True))
    monkeypatch.setattr(console.gc, "unfreeze", lambda: done.append(False))
    console._end()
    assert done == [frozen]
