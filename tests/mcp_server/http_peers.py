"""The real server process over HTTP, and those who knock at it."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2 as httpx
import pytest


def environment(folder: Path, home: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": str(home), "GPULEDGER_DATA": str(folder), **more}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


@dataclass(frozen=True)
class HttpServer:
    """A running server."""

    port: int
    folder: Path
    process: subprocess.Popen

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return (self.folder / "mcp.token").read_text()

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}", "Accept": "application/json, text/event-stream"}

    def opened(self, beginning: bytes) -> socket.socket:
        """A connection that has sent so much, and stays."""
        peer = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        peer.sendall(beginning)
        return peer

    def said(self, raw: bytes) -> bytes:
        """What a socket that sends these bytes, and then nothing more, is answered until the server closes."""
        with self.opened(raw) as peer:
            answer = b""
            with contextlib.suppress(ConnectionResetError):
                while more := peer.recv(65536):
                    answer += more
            return answer


@pytest.fixture(name="http_server")
def http_server_fixture():
    """Starts the real process: `with http_server(folder, home, *flags, **variables) as server`."""
    return http_server


@contextlib.contextmanager
def http_server(folder: Path, home: Path, *flags: str, **settings: str) -> Iterator[HttpServer]:
    """The process on a free port, once it answers; `settings` are environment variables."""
    port = free_port()
    command = [sys.executable, "-P", "-m", "gpuledger", "mcp", "--http", "--port", str(port), *flags]
    with subprocess.Popen(
        command, env=environment(folder, home, **settings), stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            wait_for_port(port, process)
            yield HttpServer(port, folder, process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=30)


def wait_for_port(port: int, process: subprocess.Popen) -> None:
    """Until somebody answers there, whatever."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{port}/healthz")
            return
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
