"""The command line as a user has it: a process with a home of its own."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import pytest

from store.events import Event
from store.ledger import Ledger


@dataclass
class CommandLine:
    """Runs `gpuledger` with an empty home and nothing of the caller's environment but PATH."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    obeys_permissions: bool = False

    @property
    def data(self) -> Path:
        return self.home / ".local/share/gpuledger"

    def __call__(self, *arguments: str, code: int = 0, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run it and check its exit code; nothing it prints may be a traceback."""
        done = subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            env=self.variables,
            cwd=folder or self.home,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode == code, done.stderr + done.stdout
        return done

    def command(self, *arguments: str) -> list[str]:
        # root may write what nobody may: without that power its own files' permissions hold for it too
        drop_power = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
        return [
            *(drop_power if self.obeys_permissions and os.getuid() == 0 else []),
            sys.executable,
            "-P",
            "-m",
            "gpuledger",
            *arguments,
        ]

    @property
    def variables(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.home), "TZ": "Europe/Berlin", **self.environment}

    def error(self, *arguments: str, code: int) -> str:
        """The one sentence that a wrong call ends with."""
        done = self(*arguments, code=code)
        (line,) = done.stderr.splitlines()
        assert line.startswith("gpuledger: ")
        return line.removeprefix("gpuledger: ")


@pytest.fixture
def gpuledger(tmp_path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture
def recorded(gpuledger) -> CommandLine:
    """A home with a ledger: two GPUs and the host for a minute until now, nothing recording."""
    now_us = int(datetime.now(UTC).timestamp()) * 1_000_000
    with Ledger(gpuledger.data, host="spark-1") as ledger:
        for number in range(60):
            time_us = now_us - (59 - number) * 1_000_000
            common = {"interval_seconds": 1.0, "counter_epoch": 0}
            gpus = [
                {
                    **common,
                    "gpu_uuid": f"GPU-{index}",
                    "gpu_index": index,
                    "power_watts": 100.0 * index + 100,
                    "utilization_percent": number,
                }
                for index in range(2)
            ]
            host = {**common, "cpu_utilization_percent": 50.0, "absence": {"cpu_temperature_celsius": "not_supported"}}
            ledger.append([*(Event("gpu_sample", time_us, gpu) for gpu in gpus), Event("system_sample", time_us, host)])
    return gpuledger


@pytest.fixture
def past(gpuledger) -> CommandLine:
    """A home with a ledger: ten days of one GPU until now, hot for the last four hours; a note, a few requests."""
    now_us = int(datetime.now(UTC).timestamp()) // 600 * 600_000_000
    random = Random(1)
    with Ledger(gpuledger.data, host="spark-1") as ledger:
        samples = []
        for number in range(10 * 144):
            time_us = now_us - number * 600_000_000
            watts = (500.0 if number < 24 else 100.0) + random.gauss(0, 2)
            gpu = {"gpu_uuid": "GPU-0", "gpu_index": 0, "interval_seconds": 600.0, "counter_epoch": 0}
            samples.append(Event("gpu_sample", time_us, {**gpu, "power_watts": watts}))
        ledger.append(samples[::-1])
        ledger.append([Event("annotation", now_us - 4 * 3_600_000_000 - 60_000_000, {"text": "new cooling"})])
        for number in range(30):
            request = {"operation": "chat", "status": "ok", "duration_seconds": 0.1 if number else 1.0}
            ledger.append([Event("request", now_us - number * 1_000_000, request)])
    return gpuledger


class ListeningCollector(ThreadingHTTPServer):
    """Takes what is posted to it over HTTP: the far side of an outbox.

    `replies` are given in turn, status and headers; then 200. While `may_answer` is cleared it hangs.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies: list[tuple[int, dict[str, str]]] = []
        self.posts: list[tuple[str, dict[str, str], list[dict[str, Any]]]] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.came = threading.Semaphore(0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for _, _, events in self.posts for event in events]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ListeningCollector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        events = [json.loads(line) for line in body.splitlines()]
        self.server.posts.append((self.path, dict(self.headers), events))
        self.server.came.release()
        self.server.may_answer.wait()
        status, headers = self.server.replies.pop(0) if self.server.replies else (200, {})
        answer = json.dumps({"accepted": len(events), "rejected": 0}).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(answer))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def listening() -> Iterator[ListeningCollector]:
    with ListeningCollector() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server
        server.may_answer.set()
        server.shutdown()
