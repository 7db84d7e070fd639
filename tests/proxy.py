"""A proxy in front of a server that can be told to misbehave."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

MODES = ("pass", "refuse", "hang", "500", "401", "garbage", "slow", "slow upload")
UPLOAD = 100_000  # bytes a second that a slow upload takes
ANSWERS = {
    "500": b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\nConnection: close\r\n\r\noops",
    "401": b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",
    "garbage": b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\n<html>what?<",
}


class Proxy:
    """Passes connections on to `port`, as `mode` says; `requests` counts the connections."""

    def __init__(self, port: int) -> None:
        self.mode = "pass"
        self.requests = 0
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def switch(self, mode: str) -> None:
        """Misbehaves from now on, on the open connections too."""
        assert mode in MODES
        self.mode = mode
        if mode != "pass":
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.requests += 1
            threading.Thread(target=self._serve, args=(client, self.mode), daemon=True).start()

    def _serve(self, client: socket.socket, mode: str) -> None:
        with contextlib.suppress(OSError), client:
            if mode == "hang":
                time.sleep(3600)
            if mode in ANSWERS:
                client.recv(65536)
                client.sendall(ANSWERS[mode])
            if mode in ("pass", "slow", "slow upload"):
                server = socket.create_connection(("127.0.0.1", self._port))
                self._open += [client, server]
                upload = (UPLOAD // 10, 0.1) if mode == "slow upload" else (65536, 0.0)
                threading.Thread(target=_pump, args=(client, server, *upload), daemon=True).start()
                _pump(server, client, 1 if mode == "slow" else 65536, 1.0 if mode == "slow" else 0.0)


def _pump(source: socket.socket, target: socket.socket, size: int, pause: float) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(size):
            target.sendall(data)
            time.sleep(pause)
        target.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def proxy_before(address: str) -> Iterator[Proxy]:
    proxy = Proxy(int(address.rsplit(":", 1)[1]))
    try:
        yield proxy
    finally:
        proxy.close()
