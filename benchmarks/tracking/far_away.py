"""MLflow's server for a benchmark: on this machine, and as if it were far away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

ONE_WAY = 0.1  # seconds


@contextlib.contextmanager
def server(directory: Path) -> Iterator[str]:
    """The address of an `mlflow server` of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(str(Path(sys.executable).parent / "mlflow"), "server", "-w", "1", "--port", str(port)),
        *("--backend-store-uri", f"sqlite:///{directory}/server.db"),
        *("--artifacts-destination", f"{directory}/artifacts"),
    ]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (directory / "server.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit((directory / "server.log").read_text()) from None
                time.sleep(0.2)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def far_away(address: str) -> Iterator[str]:
    """The same server, a round trip of 200 ms away; the proxy is a process of its own."""
    command = [sys.executable, __file__, address.rsplit(":", 1)[1]]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
    finally:
        process.kill()
        process.wait()


async def proxy(port: int) -> None:
    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sending = asyncio.create_task(send(waiting, target))
        with contextlib.suppress(ConnectionError):
            while content := await source.read(65536):
                waiting.put_nowait((time.monotonic() + ONE_WAY, content))
        waiting.put_nowait((time.monotonic() + ONE_WAY, b""))
        await sending

    async def send(waiting: asyncio.Queue[tuple[float, bytes]], target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                due, content = await waiting.get()
                await asyncio.sleep(due - time.monotonic())
                if not content:
                    break
                target.write(content)
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * ONE_WAY)  # a connection is made in one round trip
        there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pump(reader, there[1]), pump(there[0], writer))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await listener.serve_forever()


if __name__ == "__main__":
    asyncio.run(proxy(int(sys.argv[1])))
