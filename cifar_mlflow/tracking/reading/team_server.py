"""What is not in order at a server that a team shares: each check yields what it finds."""

import ipaddress
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cifar_mlflow.errors import TrackingError
from cifar_mlflow.records import Finding
from cifar_mlflow.tracking import access, queries
from cifar_mlflow.tracking.reading import runs
from cifar_mlflow.tracking.registry import lease, versions
from cifar_mlflow.tracking.store import CHECK_TIMEOUT, Store, redact, translated_errors

GUIDE = "docs/guides/team-server.md"
ELSEWHERE = "not-this-server.invalid"  # a name that RFC 2606 keeps from everybody
ROUND_TRIP = "cifar-mlflow-doctor.txt"


def other_version(store: Store) -> Iterator[Finding]:
    """Whether the server's MLflow is of another version than is installed here."""
    import mlflow
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    with translated_errors(store.uri):
        answer = http_request(get_default_host_creds(store.uri), "/version", "GET")
    theirs = answer.text.strip()[:40] if answer.status_code == 200 else "unknown"
    if theirs.split(".")[:2] != mlflow.__version__.split(".")[:2]:
        remedy = f"pip install mlflow=={theirs}, or the other way round on the server" if theirs != "unknown" else ""
        yield Finding("note", f"{redact(store.uri)} runs MLflow {theirs}, and here is {mlflow.__version__}", remedy)


def open_doors(store: Store) -> Iterator[Finding]:
    """Who can read and write without a password, by which names, and whether a password goes over the wire in clear."""
    parts, address = urlsplit(store.uri), _address(store.uri)
    if _is_local(parts.hostname):
        # It may listen at this machine's other addresses as well.
        port = f":{parts.port}" if parts.port else ""
        anyone = [f"{parts.scheme}://{each}{port}" for each in _own_addresses()]
    else:
        anyone = [address]
        user, has_password, has_token = access.sent(store.uri)
        if parts.scheme == "http" and (has_token or (user and has_password)):
            text = f"the password for {redact(store.uri)} goes over the network as it is, for all on the way to read"
            yield Finding("warning", text, f"put TLS before the server ({GUIDE}), and use its https address")
    for each in anyone:
        if _search(each) == 200:
            text = f"whoever reaches {redact(each)} can read, change and delete everything there, without a password"
            yield Finding("warning", text, f"start it with users (mlflow server --app-name basic-auth; {GUIDE})")
    if _search(address, {"Host": ELSEWHERE}) in (200, 401):
        text = f"{redact(store.uri)} answers to any name, so that a page in a browser can ask it in a user's place"
        yield Finding("warning", text, "start it by uvicorn, MLflow's default, with --allowed-hosts")


def _address(uri: str) -> str:
    """Without user and password."""
    parts = urlsplit(uri)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")


def _is_local(host: str | None) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _own_addresses() -> list[str]:
    import psutil

    found = [each for interface in psutil.net_if_addrs().values() for each in interface]
    return [each.address for each in found if each.family == socket.AF_INET and not _is_local(each.address)]


def _search(address: str, headers: dict[str, str] | None = None) -> int | None:
    """The status of the answer to somebody without credentials; None if there is no answer."""
    answer = _ask("POST", f"{address}/api/2.0/mlflow/experiments/search", json={"max_results": 1}, headers=headers)
    return answer.status_code if answer is not None else None


def _ask(method: str, url: str, **options: Any) -> Any:
    import requests
    from mlflow.utils.credentials import get_default_host_creds

    with requests.Session() as session:
        session.trust_env = False  # or it would send what ~/.netrc has for the host
        try:
            verify = get_default_host_creds(url).verify
            return session.request(method, url, timeout=CHECK_TIMEOUT, verify=verify, allow_redirects=False, **options)
        except requests.RequestException:
            return None


def clocks(store: Store) -> Iterator[Finding]:
    """Whether this machine's clock and the server's differ by more than leases allow."""
    asked = time.time()
    answer = _ask("GET", f"{_address(store.uri)}/health")
    answered = time.time()
    if answer is None or "Date" not in answer.headers:
        return
    theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp()  # whole seconds
    behind, ahead = theirs - answered, asked - (theirs + 1)
    if max(behind, ahead) > lease.CLOCK_TOLERANCE:
        differs = f"{ahead:.0f} s ahead of" if ahead > behind else f"{behind:.0f} s behind"
        text = f"the clock of this machine is {differs} the server's: promotions at the same time may lose their turn"
        yield Finding("warning", text, "have both keep time (timedatectl set-ntp true)")


def round_trip(store: Store) -> Iterator[Finding]:
    """Whether a file that is sent to the server comes back as it was; it is removed where the user may do that."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
    from mlflow.utils.uri import is_local_uri

    found = [store.client.get_experiment(each).artifact_location for each in runs.experiments(store).values()]
    location = next((each for each in found if not is_local_uri(each, is_tracking_or_registry_uri=False)), None)
    if location is None:
        return
    sent = f"written and read by cifar-mlflow doctor at {time.time():.3f}\n"
    try:
        with translated_errors(store.uri), tempfile.TemporaryDirectory() as directory:
            repository = get_artifact_repository(location)
            (Path(directory) / ROUND_TRIP).write_text(sent)
            repository.log_artifact(str(Path(directory) / ROUND_TRIP))
            (Path(directory) / "back").mkdir()
            came = Path(repository.download_artifacts(ROUND_TRIP, f"{directory}/back")).read_text()
    except TrackingError as error:
        remedy = "whoever runs the server looks at its log, and at the store behind it"
        yield Finding("error", f"a file sent to {redact(location)} did not come back: {error}", remedy)
        return
    if came != sent:
        yield Finding("error", f"a file sent to {redact(location)} came back changed", "look at the store behind it")
    with suppress(TrackingError), translated_errors(store.uri):  # only owners may: then the next look writes it anew
        repository.delete_artifacts(ROUND_TRIP)


def endangered(store: Store) -> Iterator[Finding]:
    """Models that an alias names, and that `mlflow gc` would take the run or the experiment from."""
    for model in versions.registered_models(store):
        for alias, version in sorted(model.aliases.items()):
            uri = f"models:/{model.name}@{alias}"
            found = queries.find(store.client.get_model_version, model.name, version)
            run = queries.find(store.client.get_run, found.run_id) if found and found.run_id else None
            if run is None:  # it is gone already
                continue
            experiment = store.client.get_experiment(run.info.experiment_id)
            if experiment.lifecycle_stage == "deleted":  # and its runs with it
                what = f"its experiment {experiment.name} was deleted"
                back = f"mlflow experiments restore -x {experiment.experiment_id}"
            elif run.info.lifecycle_stage == "deleted":
                what = f"its run {run.info.run_id} was deleted"
                back = f"mlflow runs restore --run-id {run.info.run_id}"
            else:
                continue
            yield Finding("warning", f"mlflow gc would remove what {uri} (version {version}) has: {what}", back)
