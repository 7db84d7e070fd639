"""What to do when a server refuses access, by the credentials that were sent: none is ever told itself."""

from urllib.parse import urlsplit

NEEDED = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
OTHER_NAME = "Invalid Host header"  # what MLflow answers to a request for a name that it was not told to be its own


def remedy(uri: str, status: int, answer: str) -> str:
    """What a server's answer with the HTTP status 401 or 403 asks of the user."""
    user, has_password, has_token = sent(uri)
    if OTHER_NAME in answer:
        name = urlsplit(uri).netloc.rpartition("@")[2]
        return f"it was not started for this name: whoever runs it adds {name} to its --allowed-hosts"
    if user and has_password:
        who, what = f"the user {user}", f"the password of {user}"
    elif has_token:
        who, what = "the holder of MLFLOW_TRACKING_TOKEN", "the token in MLFLOW_TRACKING_TOKEN"
    else:
        return f"the user {user} was sent without a password: set MLFLOW_TRACKING_PASSWORD" if user else NEEDED
    if status == 401:
        return f"{what} is wrong, has expired or was withdrawn; {NEEDED}"
    return f"{who} may not do this, or it is not there: a server with users answers the same; ask whoever runs it"


def token_hint(uri: str, reason: str) -> str:
    """What may be behind a server that breaks down at each request: MLflow's own users have no tokens."""
    user, has_password, has_token = sent(uri)
    if "500" not in reason or not has_token or (user and has_password):
        return ""
    return "MLFLOW_TRACKING_TOKEN is sent, at which MLflow's basic-auth breaks down: it wants a user and a password. "


def sent(uri: str) -> tuple[str | None, bool, bool]:
    """The user whose credentials MLflow sends to the server, whether there is a password, and whether a token.

    Those in the URI come first, then a user with a password, by MLflow's variables or its own file, then the token.
    """
    from mlflow.utils.credentials import get_default_host_creds

    parts, found = urlsplit(uri), get_default_host_creds(uri)
    if parts.username:
        return parts.username, bool(parts.password), False
    return found.username or None, bool(found.password), bool(found.token)
