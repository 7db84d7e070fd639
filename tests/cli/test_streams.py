"""Standard output and error as shells, cron and closed terminals leave them; signals that come again."""

import os
import signal
import subprocess
import sys

import pytest

from cifar_mlflow.cli.output import lines_to
from cifar_mlflow.errors import ConfigurationError

CLI = f"{sys.executable} -m cifar_mlflow"


def shell(command, **environment):
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, env=os.environ | environment, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_a_full_disk_behind_standard_output():
    code, _, stderr = shell(f"{CLI} --help > /dev/full")
    assert (code, stderr) == (2, "error: standard output cannot be written: No space left on device\n")


def test_a_closed_standard_output_is_told_of():
    code, _, stderr = shell(f"{CLI} --version >&-")
    assert (code, stderr) == (0, "warning: standard output is closed: what is printed there is shown nowhere\n")


@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "0<&- 2>&-"])
def test_without_standard_error_all_goes_on(redirection):
    assert shell(f"{CLI} train --gamma 0 {redirection}") == (2, "", "")
    assert shell(f"{CLI} --version {redirection}")[0] == 0


def test_a_file_does_not_take_the_place_of_a_closed_stream(tmp_path):
    """What a library prints to descriptor 1 would stand in the middle of it."""
    code = "from cifar_mlflow.cli.output import prepare_streams as p; p(); import os, sys; "
    code += "file = open(sys.argv[1], 'w'); os.write(1, b'one'); os.write(2, b'two')"
    assert shell(f'{sys.executable} -c "{code}" {tmp_path}/file >&- 2>&-')[0] == 0
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize(
    ("encoding", "shown"), [("latin-1", b"1-2 \xe9 \\u20ac ..."), ("utf-8", "1–2 é € …".encode()), ("ascii", None)]
)
def test_characters_that_the_output_does_not_have(encoding, shown):
    code = "from cifar_mlflow.cli.output import prepare_streams as p; p(); "
    code += "print('1\\u20132 \\xe9 \\u20ac \\u2026', end='')"
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == (shown or b"1-2 \\xe9 \\u20ac ...")


def test_the_reader_of_a_file_never_sees_a_part(work):
    path = work / "report.html"
    path.write_text("before")

    def broken_off():
        with lines_to(str(path)) as write:
            write("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        broken_off()
    assert [each.read_text() for each in work.iterdir()] == ["before"]


def test_a_relative_file_under_mlflow_run_is_refused(monkeypatch, cifar):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    with pytest.raises(ConfigurationError, match="absolute path under `mlflow run`"), lines_to("report.html"):
        pass
    outcome = cifar("compare", "digits", "--format", "html", "--output", "report.html")
    assert (outcome.code, "'report.html' is relative" in outcome.stderr) == (2, True)


def test_a_current_directory_that_is_gone(tmp_path):
    code, _, stderr = shell(f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir {tmp_path}/gone; {CLI} doctor")
    assert (code, "the current directory is gone (No such file or directory); go to another" in stderr) == (2, True)


def test_a_state_directory_of_nobody(cifar, monkeypatch):
    monkeypatch.setenv("CIFAR_MLFLOW_STATE", "~nobody-at-all/x")
    outcome = cifar("sync")
    assert (outcome.code, "CIFAR_MLFLOW_STATE=~nobody-at-all/x: " in outcome.stderr) == (2, True)


def test_a_network_that_ends_the_program(cifar, work, tiny, runs):
    (work / "exits.py").write_text("import sys\ndef build(classes, config):\n    sys.exit('no')\n")
    outcome = cifar("train", "--dataset", tiny, "--network", "exits:build", "--epochs", 1, "--scheduler", "none")
    assert (outcome.code, "SystemExit: no (" in outcome.stderr, runs()) == (2, True, [])


# ---------------------------------------------------------------------------------------------------------- signals

HANGS = """
import signal, sys, threading
from cifar_mlflow.jobs.training import signals
if "nohup" in sys.argv:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
signals.interrupt_at_signals()
def hang():
    while True:
        threading.Event().wait(60)
try:
    print("ready", flush=True)
    if "held" in sys.argv:
        with signals.held_back():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            signal.raise_signal(signal.SIGINT)
            hang()
    hang()
except KeyboardInterrupt as error:
    print(error, error.exit_code, flush=True)
    if "ends" not in sys.argv:
        hang()
"""


@pytest.fixture
def hanging():
    """Starts the script; what still runs when the test ends is killed."""
    started = []

    def start(*words):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([sys.executable, "-c", HANGS, *words], text=True, **pipes)
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_second_asks_and_the_third_ends(hanging, first):
    process = hanging()
    process.send_signal(first)
    assert process.stdout.readline() == f"stopped by {first.name} {128 + first}\n"
    # As a shell that closes, a second time, and as `mlflow run` does after Ctrl-C.
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    assert process.stderr.readline() == "\n"
    assert process.stderr.readline().startswith("stopping: what was reached is being kept. Ctrl-C once more ends this")
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == -signal.SIGINT


def test_a_block_that_holds_signals_back_and_hangs(hanging):
    process = hanging("held")
    assert process.stderr.readline() == "\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == -signal.SIGINT


def test_nohup_stays_in_force(hanging):
    process = hanging("nohup", "ends")
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "stopped by SIGTERM 143\n"
