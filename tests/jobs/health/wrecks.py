"""What is forged for the doctor to find, and how its findings are read."""

import socket

NOT_IN_ORDER = 9
NO_PROCESS = 2**22 + 1  # more than Linux has
UNKNOWN = "0123456789abcdef" * 2


def dead(kind):
    return {"kind": kind, "host": socket.gethostname(), "process_id": str(NO_PROCESS), "process_started": "1.00"}


def told(findings, word):
    """The one finding that speaks of something."""
    (found,) = [each for each in findings if word in each["text"]]
    return found


def about(findings, *checks):
    return [each for each in findings if each["check"] in checks]
