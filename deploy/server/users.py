"""Users and experiments of the server, as the admin: called by `server add-user NAME` and its like."""

import os
import secrets
import sys

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.server.auth.client import AuthServiceClient

ADDRESS = os.environ["MLFLOW_TRACKING_URI"]


def add_user(name: str) -> None:
    """Makes the user, or gives a new password to one that is there; prints what belongs into the user's settings."""
    client, password = AuthServiceClient(ADDRESS), secrets.token_urlsafe(18)
    try:
        client.create_user(name, password)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        client.update_user_password(name, password)
    print(f"MLFLOW_TRACKING_USERNAME={name}\nMLFLOW_TRACKING_PASSWORD={password}")


def remove_user(name: str) -> None:
    AuthServiceClient(ADDRESS).delete_user(name)


def add_experiment(*names: str) -> None:
    client = mlflow.MlflowClient(ADDRESS)
    for name in names:
        print(f"{name} is experiment {client.create_experiment(name)}")


if __name__ == "__main__":
    verbs = {"add-user": add_user, "remove-user": remove_user, "add-experiment": add_experiment}
    try:
        verbs[sys.argv[1]](*sys.argv[2:])
    except (MlflowException, TypeError) as refusal:
        sys.exit(f"error: {refusal}")
