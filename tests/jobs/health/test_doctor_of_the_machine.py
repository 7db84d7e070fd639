"""The doctor looks at data, packages, compiled functions, directories and room."""

import shutil

from wrecks import NOT_IN_ORDER, told

from cifar_mlflow.learning.compiled import bindings


def test_data_that_are_not_the_official_ones(doctor, work, monkeypatch):
    monkeypatch.setenv("CIFAR_MLFLOW_DATA", str(work))
    assert "CIFAR-10 is not in" in told(doctor()[1], "$CIFAR_MLFLOW_DATA")["text"]
    (work / "cifar-10-batches-py").mkdir()
    (work / "cifar-10-batches-py" / "data_batch_1").write_bytes(b"no pickle")
    code, findings = doctor()
    assert code == NOT_IN_ORDER
    assert "data_batch_1 is not the official file" in told(findings, "md5")["text"]


def test_packages_of_another_version(doctor, monkeypatch):
    from cifar_mlflow.jobs.health import machine

    real = machine.metadata.version
    monkeypatch.setattr(machine.metadata, "version", lambda name: "1.26.4" if name == "numpy" else real(name))
    code, findings = doctor()
    assert (code, told(findings, "numpy 1.26.4 is installed")["remedy"]) == (NOT_IN_ORDER, "pip install 'numpy<3,>=2'")


def test_compiled_functions_that_cannot_be_used(doctor, monkeypatch):
    monkeypatch.setattr(bindings, "fault", lambda: "the library is damaged")
    code, findings = doctor()
    assert (code, told(findings, "the library is damaged")["severity"]) == (NOT_IN_ORDER, "warning")


def test_an_installation_without_a_compiler_is_in_order(doctor, monkeypatch):
    monkeypatch.setattr(bindings, "fault", lambda: None)
    monkeypatch.setattr(bindings, "library_path", lambda: None)
    code, findings = doctor()
    assert (code, told(findings, "installed without a C compiler")["severity"]) == (0, "note")


def test_a_directory_that_cannot_be_written(doctor, monkeypatch):
    monkeypatch.setenv("CIFAR_MLFLOW_STATE", "/proc/nowhere")
    code, findings = doctor("--fix")
    assert (code, told(findings, "/proc/nowhere, cannot be written")["severity"]) == (NOT_IN_ORDER, "error")


def test_little_room(doctor, monkeypatch, work):
    from cifar_mlflow.jobs.health import machine

    (work / "mlruns").mkdir()
    (work / "mlruns" / "large").write_bytes(bytes(3_000_000))
    usage = shutil.disk_usage(work)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage._replace(free=10**8))
    code, findings = doctor()
    assert code == NOT_IN_ORDER
    assert f"{work}/mlruns (3.0 MB)" in told(findings, "has 100.0 MB of room left")["text"]
