"""Other stores of metrics, each in a folder of its own with the same rows, as far as this machine has them installed.

    apt install victoria-metrics prometheus influxdb postgresql
    pip install chdb

Each is set up as its users would: VictoriaMetrics and Prometheus a series per field and GPU; InfluxDB a measurement
with the GPU as tag and integers as such; ClickHouse sorted by GPU and time, deltas for counters, zstd 3 over all;
PostgreSQL a wide table with an index on time. ClickHouse, PostgreSQL and we keep microseconds, the others get
milliseconds: their times cost them next to nothing then, where InfluxDB repeats them for each field. What is not
installed is named and left out.
"""

import os
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import telemetry

from store.derivations import arrow_schema
from store.events import KINDS

GPU_SAMPLE = KINDS["gpu_sample"]
PROMETHEUS_BLOCK_S = 7200
INFLUX_ROWS = 20_000


@dataclass(frozen=True, slots=True)
class Question:
    """A statistic of one field per GPU over [start_us, end_us), for each `step_s` or for all of it.

    Args:
        statistic: `avg`, `max` or `p95`.
    """

    statistic: str
    field: str
    start_us: int
    end_us: int
    step_s: int | None = None

    @property
    def span_s(self) -> int:
        return (self.end_us - self.start_us) // 1_000_000


class Peer:
    """One of them. What it starts is stopped with `stack`."""

    name = ""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        folder.mkdir()
        self.start()

    @staticmethod
    def is_installed() -> bool:
        raise NotImplementedError

    def start(self) -> None:
        raise NotImplementedError

    def load(self, days: Iterable[telemetry.Columns]) -> None:
        raise NotImplementedError

    def size_bytes(self) -> int:
        return folder_bytes(self.folder)

    def ask(self, question: Question) -> float:
        """Seconds until the whole answer was there."""
        raise NotImplementedError

    def run(self, command: Sequence[str | Path], environment: dict[str, str] | None = None) -> None:
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.stack.callback(process.wait)
        self.stack.callback(process.terminate)


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def http(url: str, data: bytes | None = None) -> bytes:
    with urllib.request.urlopen(url, data=data, timeout=300) as answer:  # noqa: S310 - the servers started here
        content: bytes = answer.read()
        return content


def wait_for(url: str) -> None:
    for _ in range(300):
        try:
            http(url)
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit(f"{url} did not answer within 30 s")


def settled_bytes(folder: Path, *, at_most_s: int = 120) -> int:
    """The size once it has been the same for five seconds."""
    seen = [folder_bytes(folder)]
    while len(seen) < at_most_s and (len(seen) < 6 or len(set(seen[-5:])) > 1):
        time.sleep(1)
        seen.append(folder_bytes(folder))
    return seen[-1]


def fields_of(columns: telemetry.Columns) -> list[str]:
    return [name for name in columns if name != "observed_at"]


def is_whole(name: str) -> bool:
    return GPU_SAMPLE.by_name[name].type in ("int32", "int64")


# Prometheus and what speaks its language ---------------------------------------------------------------------------


class _PromQl(Peer):
    port = 0

    def ask(self, question: Question) -> float:
        span_s = question.step_s or question.span_s
        of_span = f"{question.field}[{span_s}s]"
        function = {"avg": "avg_over_time(", "max": "max_over_time(", "p95": "quantile_over_time(0.95, "}
        start_s, end_s = question.start_us // 1_000_000, question.end_us // 1_000_000
        asked: dict[str, Any] = {"query": f"{function[question.statistic]}{of_span})", "nocache": 1}
        if question.step_s:
            asked |= {"start": start_s + span_s, "end": end_s, "step": span_s}
        else:
            asked |= {"time": end_s}
        path = "query_range" if question.step_s else "query"
        began_s = time.perf_counter()
        answer = http(f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(asked)}")
        taken_s = time.perf_counter() - began_s
        result = msgspec.json.decode(answer)["data"]["result"]
        points = question.span_s // span_s
        assert result, f"{self.name} has no answer to {question}"
        assert not question.step_s or len(result[0]["values"]) >= points - 1, (self.name, question)
        return taken_s


class VictoriaMetrics(_PromQl):
    name = "VictoriaMetrics"

    @staticmethod
    def is_installed() -> bool:
        return bool(shutil.which("victoria-metrics"))

    def start(self) -> None:
        self.port = free_port()
        self.run(
            ["victoria-metrics", f"-storageDataPath={self.folder}/data", "-retentionPeriod=100y",
             f"-httpListenAddr=127.0.0.1:{self.port}", "-search.maxPointsPerTimeseries=100000"]
        )  # fmt: skip
        wait_for(f"http://127.0.0.1:{self.port}/health")

    def load(self, days: Iterable[telemetry.Columns]) -> None:
        for columns in days:
            times_ms = (columns["observed_at"] // 1000).tolist()
            for name in fields_of(columns):
                lines = [
                    msgspec.json.encode({
                        "metric": {"__name__": name, "gpu": str(gpu)}, "values": values.tolist(), "timestamps": times_ms
                    })
                    for gpu, values in enumerate(columns[name].T)
                ]  # fmt: skip
                http(f"http://127.0.0.1:{self.port}/api/v1/import", b"\n".join(lines))
        http(f"http://127.0.0.1:{self.port}/internal/force_flush")
        http(f"http://127.0.0.1:{self.port}/internal/force_merge")
        settled_bytes(self.folder)

    def size_bytes(self) -> int:
        return folder_bytes(self.folder / "data")


class Prometheus(_PromQl):
    name = "Prometheus"

    @staticmethod
    def is_installed() -> bool:
        return bool(shutil.which("promtool") and shutil.which("prometheus"))

    def start(self) -> None:
        """The server starts with the first question: blocks are made without it."""

    def load(self, days: Iterable[telemetry.Columns]) -> None:
        for columns in days:
            ticks = columns["observed_at"].size
            for first in range(0, ticks, PROMETHEUS_BLOCK_S):
                piece = {name: values[first : first + PROMETHEUS_BLOCK_S] for name, values in columns.items()}
                text = self.folder / "openmetrics"
                text.write_text("".join(_open_metrics(piece)))
                command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", text, self.folder / "data"]
                subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
                text.unlink()

    def size_bytes(self) -> int:
        return folder_bytes(self.folder / "data")

    def ask(self, question: Question) -> float:
        if not self.port:
            self.port = free_port()
            (self.folder / "none.yml").write_text("")
            self.run(
                ["prometheus", f"--storage.tsdb.path={self.folder}/data", f"--config.file={self.folder}/none.yml",
                 f"--web.listen-address=127.0.0.1:{self.port}", "--storage.tsdb.retention.time=100y"]
            )  # fmt: skip
            wait_for(f"http://127.0.0.1:{self.port}/-/ready")
        return super().ask(question)


def _open_metrics(columns: telemetry.Columns) -> Iterator[str]:
    times = [f"{time_us / 1e6:.3f}\n" for time_us in columns["observed_at"].tolist()]
    for name in fields_of(columns):
        for gpu, values in enumerate(columns[name].T):
            head = f'{name}{{gpu="{gpu}"}} '
            yield from (f"{head}{value!r} {at}" for value, at in zip(values.tolist(), times, strict=True))
    yield "# EOF\n"


# InfluxDB ---------------------------------------------------------------------------------------------------------


class InfluxDb(Peer):
    name = "InfluxDB 1.6"

    @staticmethod
    def is_installed() -> bool:
        return bool(shutil.which("influxd"))

    def start(self) -> None:
        self.port = free_port()
        settings = {
            "INFLUXDB_DATA_DIR": f"{self.folder}/data",
            "INFLUXDB_DATA_WAL_DIR": f"{self.folder}/wal",
            "INFLUXDB_META_DIR": f"{self.folder}/meta",
            "INFLUXDB_HTTP_BIND_ADDRESS": f"127.0.0.1:{self.port}",
            "INFLUXDB_BIND_ADDRESS": f"127.0.0.1:{free_port()}",
            "INFLUXDB_REPORTING_DISABLED": "true",
            "INFLUXDB_MONITOR_STORE_ENABLED": "false",
            "INFLUXDB_DATA_CACHE_SNAPSHOT_WRITE_COLD_DURATION": "2s",
            "INFLUXDB_DATA_COMPACT_FULL_WRITE_COLD_DURATION": "4s",
        }
        (self.folder / "none.conf").write_text("")
        self.run(["influxd", "run", "-config", self.folder / "none.conf"], settings)
        wait_for(f"http://127.0.0.1:{self.port}/ping")
        http(f"http://127.0.0.1:{self.port}/query", b"q=CREATE DATABASE telemetry")

    def load(self, days: Iterable[telemetry.Columns]) -> None:
        for columns in days:
            names = fields_of(columns)
            fields = ",".join(f"{name}=%di" if is_whole(name) else f"{name}=%r" for name in names)
            for gpu in range(columns[names[0]].shape[1]):
                rows = zip(
                    *(columns[name][:, gpu].tolist() for name in names),
                    (columns["observed_at"] // 1000).tolist(),
                    strict=True,
                )
                lines = [f"gpu,gpu={gpu} {fields} %d" % row for row in rows]
                for first in range(0, len(lines), INFLUX_ROWS):
                    text = "\n".join(lines[first : first + INFLUX_ROWS]).encode()
                    http(f"http://127.0.0.1:{self.port}/write?db=telemetry&precision=ms", text)
        while folder_bytes(self.folder / "wal") > 1000:
            time.sleep(1)
        time.sleep(10)  # by then a full compaction has begun
        settled_bytes(self.folder)

    def size_bytes(self) -> int:
        return folder_bytes(self.folder / "data")

    def ask(self, question: Question) -> float:
        function = {"avg": "mean(%s)", "max": "max(%s)", "p95": "percentile(%s, 95)"}[question.statistic]
        step = f", time({question.step_s}s)" if question.step_s else ""
        sql = (
            f"select {function % question.field} from gpu where time >= {question.start_us}u "
            f"and time < {question.end_us}u group by gpu{step}"
        )
        asked = urllib.parse.urlencode({"db": "telemetry", "q": sql, "epoch": "u"})
        began_s = time.perf_counter()
        answer = http(f"http://127.0.0.1:{self.port}/query?{asked}")
        taken_s = time.perf_counter() - began_s
        assert "series" in msgspec.json.decode(answer)["results"][0], answer[:300]
        return taken_s


# Tables -----------------------------------------------------------------------------------------------------------


def table_of(columns: telemetry.Columns) -> pa.Table:
    """A day as rows of time, gpu and the fields in the types that our own files have."""
    ticks, gpus = columns["observed_at"].size, columns[fields_of(columns)[0]].shape[1]
    schema = arrow_schema(GPU_SAMPLE)
    made = {
        "ts": pa.array(np.repeat(columns["observed_at"], gpus)).cast(pa.timestamp("us", "UTC")),
        "gpu": pa.array(np.tile(np.arange(gpus, dtype=np.uint8), ticks)),
    }
    for name in fields_of(columns):
        made[name] = telemetry._array(columns[name].ravel(), schema.field(name).type)  # noqa: SLF001 - the same rounding
    return pa.table(made)


_CLICKHOUSE_TYPES = {"int32": "Int32", "int64": "Int64", "float32": "Float32", "float64": "Float64",
                     "decimal": "Decimal(18, 3)"}  # fmt: skip
_POSTGRES_TYPES = {"int32": "integer", "int64": "bigint", "float32": "real", "float64": "double precision",
                   "decimal": "decimal(18, 3)"}  # fmt: skip


class ClickHouse(Peer):
    name = "ClickHouse (chdb)"

    @staticmethod
    def is_installed() -> bool:
        return bool(find_spec("chdb"))

    def start(self) -> None:
        from chdb.session import Session

        self.session = Session(str(self.folder / "data"))
        self.stack.callback(self.session.close)
        self.has_table = False

    def load(self, days: Iterable[telemetry.Columns]) -> None:
        for columns in days:
            if not self.has_table:
                self.session.query(self._create(fields_of(columns)))
                self.has_table = True
            file = self.folder / "day.parquet"
            pq.write_table(table_of(columns), file)
            self.session.query(f"insert into telemetry.sample select * from file('{file}', Parquet)")
            file.unlink()
        self.session.query("optimize table telemetry.sample final")

    def _create(self, fields: Sequence[str]) -> str:
        columns = ", ".join(
            f"{name} {_CLICKHOUSE_TYPES[GPU_SAMPLE.by_name[name].type]} "
            f"codec({'Delta, ' if name in telemetry.COUNTERS else ''}ZSTD(3))"
            for name in fields
        )
        self.session.query("create database telemetry engine = Atomic")
        return (
            f"create table telemetry.sample (ts DateTime64(6, 'UTC') codec(DoubleDelta, ZSTD(3)), "
            f"gpu UInt8 codec(ZSTD(3)), {columns}) engine = MergeTree order by (gpu, ts)"
        )

    def size_bytes(self) -> int:
        sql = "select sum(bytes_on_disk) from system.parts where active and table = 'sample'"
        return int(str(self.session.query(sql, "TabSeparated")))

    def ask(self, question: Question) -> float:
        function = {"avg": "avg(%s)", "max": "max(%s)", "p95": "quantileExactInclusive(0.95)(%s)"}
        bucket = f", toStartOfInterval(ts, interval {question.step_s} second) as bucket" if question.step_s else ""
        sql = (
            f"select gpu{bucket}, {function[question.statistic] % question.field} from telemetry.sample "
            f"where ts >= fromUnixTimestamp64Micro({question.start_us}) "
            f"and ts < fromUnixTimestamp64Micro({question.end_us}) group by all"
        )
        began_s = time.perf_counter()
        answer = self.session.query(sql, "Arrow")
        taken_s = time.perf_counter() - began_s
        assert answer.rows_read(), sql
        return taken_s


class PostgreSql(Peer):
    name = "PostgreSQL"

    @staticmethod
    def is_installed() -> bool:
        return bool(PostgreSql.programs())

    @staticmethod
    def programs() -> Path | None:
        return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)

    def start(self) -> None:
        self.as_user: list[str] = []
        if os.geteuid() == 0:  # it does not run as root
            self.as_user = ["runuser", "-u", "postgres", "--"]
            shutil.chown(self.folder, "postgres")
            for parent in (self.folder, *self.folder.parents)[:2]:
                parent.chmod(0o755)
        self.port = free_port()
        programs = self.programs()
        self._do(f"{programs}/initdb", "-D", f"{self.folder}/data", "--auth=trust")
        options = f"-p {self.port} -k {self.folder} -c listen_addresses= -c shared_buffers=1GB -c max_wal_size=4GB"
        self._do(
            f"{programs}/pg_ctl", "-D", f"{self.folder}/data", "-w", "-l", f"{self.folder}/log", "-o", options, "start"
        )
        self.stack.callback(self._do, f"{programs}/pg_ctl", "-D", f"{self.folder}/data", "-m", "fast", "stop")
        self.has_table = False

    def _do(self, *command: str) -> str:
        return subprocess.run(
            [*self.as_user, *command], cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL, text=True, check=True,
        ).stdout  # fmt: skip

    def sql(self, *statements: str) -> str:
        commands = [word for statement in statements for word in ("-c", statement)]
        return self._do("psql", "-h", str(self.folder), "-p", str(self.port), "-d", "postgres", "-qAtX", *commands)

    def load(self, days: Iterable[telemetry.Columns]) -> None:
        for columns in days:
            if not self.has_table:
                types = (f"{name} {_POSTGRES_TYPES[GPU_SAMPLE.by_name[name].type]}" for name in fields_of(columns))
                self.sql(f"create table sample (ts timestamptz, gpu smallint, {', '.join(types)})")
                self.has_table = True
            file = self.folder / "day.csv"
            pyarrow.csv.write_csv(table_of(columns), file)
            file.chmod(0o644)
            self.sql(f"copy sample from '{file}' csv header")
            file.unlink()
        self.sql("create index on sample (ts)", "vacuum analyze sample")

    def size_bytes(self) -> int:
        return int(self.sql("select pg_total_relation_size('sample')"))

    def ask(self, question: Question) -> float:
        function = {"avg": "avg(%s)", "max": "max(%s)", "p95": "percentile_cont(0.95) within group (order by %s)"}
        bucket = f", floor(extract(epoch from ts) / {question.step_s})" if question.step_s else ""
        sql = (
            f"select gpu{bucket}, {function[question.statistic] % question.field} from sample "
            f"where ts >= to_timestamp({question.start_us / 1e6}) and ts < to_timestamp({question.end_us / 1e6}) "
            f"group by {'1, 2' if bucket else '1'}"
        )
        told = self.sql("\\timing on", sql).splitlines()[-1]  # Time: 12.345 ms
        return float(told.split()[1]) / 1000


PEERS: Sequence[type[Peer]] = (VictoriaMetrics, Prometheus, InfluxDb, ClickHouse, PostgreSql)


def installed(names: Sequence[str]) -> list[type[Peer]]:
    """The peers that are wanted (all where none is named) and installed; the others are named on the terminal."""
    wanted = [peer for peer in PEERS if not names or any(name.lower() in peer.name.lower() for name in names)]
    for peer in wanted:
        if not peer.is_installed():
            print(f"{peer.name}: not installed here, left out")
    return [peer for peer in wanted if peer.is_installed()]
