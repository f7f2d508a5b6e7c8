"""A real Prometheus for tests: Debian's package, started on a free port with an empty store.

    def test_something(prometheus):
        prometheus.write([Written({"__name__": "up", "job": "x"}, [(1_795_334_400_000, 1.0)])])
        assert prometheus.get("query", query="up", time="1795334400")["data"]["result"] ...

Samples come in by remote write, with their own times and stale markers: nothing has to be waited for.
"""

import json
import shutil
import socket
import struct
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

_STALE_BYTES = struct.pack("<Q", 0x7FF0000000000002)  # a NaN's bits may not survive being a float


def tool(name: str) -> str:
    """Path of prometheus or promtool."""
    found = shutil.which(name)
    if found is None:
        raise RuntimeError(f"the tests run a real {name}: apt-get install prometheus")
    return found


@dataclass(frozen=True)
class Written:
    """A series; None is a stale marker. Times are milliseconds."""

    labels: Mapping[str, str]
    samples: Sequence[tuple[int, float | None]]


class RealPrometheus:
    def __init__(self, folder: Path, config: str = "") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
        (folder / "prometheus.yml").write_text(config)
        self._log = (folder / "log").open("w+")
        options = (
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
            "--web.enable-remote-write-receiver",
        )
        self._process = subprocess.Popen([tool("prometheus"), *options], stderr=self._log, stdout=self._log)
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        for _ in range(600):
            try:
                with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5):
                    return
            except OSError:
                if self._process.poll() is not None:
                    break
                time.sleep(0.05)  # another process starts: there is nothing else to wait for
        self._log.seek(0)
        raise RuntimeError(f"prometheus does not start: {self._log.read()}")

    def write(self, series: Iterable[Written]) -> None:
        body = b"".join(_field(1, _time_series(one)) for one in series)
        headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
        request = urllib.request.Request(f"{self.url}/api/v1/write", _snappy(body), headers)
        with urllib.request.urlopen(request, timeout=30):
            pass

    def get(self, path: str, **parameters: Any) -> tuple[int, dict[str, Any]]:
        """Status and body of a question."""
        query = urllib.parse.urlencode({name.replace("match", "match[]"): value for name, value in parameters.items()})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)
        self._log.close()


def _varint(number: int) -> bytes:
    found = b""
    while number > 0x7F:
        found += bytes([number & 0x7F | 0x80])
        number >>= 7
    return found + bytes([number])


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _time_series(series: Written) -> bytes:
    labels = (_field(1, name.encode()) + _field(2, value.encode()) for name, value in sorted(series.labels.items()))
    samples = (
        b"\x09" + (_STALE_BYTES if value is None else struct.pack("<d", value)) + b"\x10" + _varint(time_ms)
        for time_ms, value in series.samples
    )
    return b"".join(_field(1, one) for one in labels) + b"".join(_field(2, one) for one in samples)


def _snappy(content: bytes) -> bytes:
    """A block of literals alone: to compress is allowed, not asked for."""
    parts = (content[at : at + 0x10000] for at in range(0, len(content), 0x10000))
    return _varint(len(content)) + b"".join(b"\xf4" + struct.pack("<H", len(part) - 1) + part for part in parts)


@pytest.fixture(scope="session")
def real_prometheus(tmp_path_factory: pytest.TempPathFactory):
    """One that is empty and scrapes nothing; each test writes series of its own job."""
    prometheus = RealPrometheus(tmp_path_factory.mktemp("prometheus"))
    yield prometheus
    prometheus.close()
