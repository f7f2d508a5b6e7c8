"""The commands, as processes: what they print, in every form, and how they refuse."""

import csv
import hashlib
import io
import json
import os
import time
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from gpuledger import __version__
from gpuledger.cli import app
from store.events import Event
from store.head import _migrations
from store.ledger import CollectorLock, Ledger


def test_version_and_help_answer(gpuledger):
    assert gpuledger("--version").stdout == f"gpuledger {__version__}\n"
    assert "A flight recorder for GPU machines." in gpuledger("--help").stdout


def test_help_shows_every_command_once_under_a_topic():
    text = CliRunner().invoke(app, ["--help"], terminal_width=200).output
    shown = [line.split()[0] for line in text.splitlines() if line.startswith("  ")]
    for name, command in get_command(app).commands.items():
        assert shown.count(name) == (0 if command.hidden else 1), name


def test_trend_prints_a_table_with_a_sparkline_coverage_and_age(recorded):
    out = recorded("trend", "gpu.power_watts", "--window", "1m").stdout
    heading, *_ = out.splitlines()
    assert heading.startswith("gpu.power_watts  ")
    assert heading.rstrip().endswith("Europe/Berlin")
    assert ["gpu", "min", "avg", "p50", "p95", "max", "last", "slope/h", "trend"] in [
        line.split() for line in out.splitlines()
    ]
    rows = [line.split() for line in out.splitlines() if line.strip().startswith(("0 ", "1 "))]
    assert [row[:3] for row in rows] == [["0", "100", "W"], ["1", "200", "W"]]
    assert "coverage" in out
    assert "newest sample" in out


def test_trend_in_json_carries_window_coverage_and_age(recorded):
    answer = json.loads(recorded("trend", "cpu.utilization_percent", "-w", "last 2 minutes", "--json").stdout)
    assert answer["metric"] == "cpu.utilization_percent"
    assert answer["window"]["asked"] == "last 2 minutes"
    assert answer["window"]["time_zone"] == "Europe/Berlin"
    assert 0.3 < answer["coverage"] <= 0.5
    assert answer["newest_age_s"] >= 0
    (series,) = answer["series"]
    assert (series["n"], series["min"], series["avg"], series["max"]) == (60, 50.0, 50.0, 50.0)


def test_trend_in_csv_and_parquet_has_one_row_per_series(recorded, tmp_path):
    rows = list(csv.DictReader(io.StringIO(recorded("trend", "gpu.power_watts", "-w", "1h", "--csv").stdout)))
    assert [(row["label"], row["avg"]) for row in rows] == [("0", "100.0"), ("1", "200.0")]
    recorded("trend", "gpu.power_watts", "-w", "1h", "--parquet", str(tmp_path / "trend.parquet"))
    assert pl.read_parquet(tmp_path / "trend.parquet")["p95"].to_list() == [100.0, 200.0]


def test_status_says_what_is_recorded_what_is_absent_and_that_nothing_records(recorded):
    out = recorded("status", code=5).stdout
    assert f"ledger   {recorded.data}" in out
    assert "not recording: start 'gpuledger up'" in out
    assert any(line.split()[:2] == ["gpu_sample", "120"] for line in out.splitlines())


def test_status_of_a_held_ledger_names_the_collector(recorded):
    row = {"interval_seconds": 60.0, "cpu_utilization_percent": 50.0, "absence": {"swap": "no_permission"}}
    with Ledger(recorded.data, host="spark-1") as ledger:
        ledger.append([Event("system_sample", time.time_ns() // 1000, row)])
    lock = CollectorLock(recorded.data)
    answer = json.loads(recorded("status", "--json").stdout)
    out = recorded("status").stdout
    lock.close()
    assert (answer["collector_pid"], answer["is_recording"]) == (os.getpid(), True)
    assert {kind["kind"]: kind["event_count"] for kind in answer["kinds"]}["system_sample"] == 61
    assert answer["absent"]["host swap"] == "no_permission"
    assert f"recording by pid {os.getpid()} since " in out
    assert "  host swap: no_permission" in out


def test_sql_answers_in_every_form(recorded, tmp_path):
    query = "select gpu_index, count(*) as n, max(power_watts) as watts from gpu_sample group by all order by all"
    assert ["0", "60", "100"] in [line.split() for line in recorded("sql", query).stdout.splitlines()]
    assert json.loads(recorded("sql", query, "--json").stdout) == [
        {"gpu_index": 0, "n": 60, "watts": 100.0},
        {"gpu_index": 1, "n": 60, "watts": 200.0},
    ]
    assert recorded("sql", query, "--csv").stdout == "gpu_index,n,watts\n0,60,100.0\n1,60,200.0\n"
    recorded("sql", query, "--parquet", str(tmp_path / "answer.parquet"))
    assert pq.read_table(tmp_path / "answer.parquet").to_pydict() == {
        "gpu_index": [0, 1],
        "n": [60, 60],
        "watts": [100.0, 200.0],
    }


def test_sql_without_rows_prints_its_columns(recorded):
    assert recorded("sql", "select gpu_index from gpu_sample where false", "--csv").stdout == "gpu_index\n"
    assert recorded("sql", "select gpu_index from gpu_sample where false", "--json").stdout == "[]\n"


def test_sql_that_is_cut_says_so_on_stderr(recorded):
    done = recorded("sql", "select seq from gpu_sample", "--rows-max", "2", "--csv")
    assert len(done.stdout.splitlines()) == 3
    assert done.stderr == "gpuledger: only the first 2 rows; more with --rows-max\n"


@pytest.mark.parametrize("format_name", ["parquet", "arrow", "csv", "json"])
def test_export_writes_the_kind_beside_the_caller_and_not_over_a_file(recorded, tmp_path, format_name):
    folder = tmp_path / "work"
    folder.mkdir()
    suffix = {"json": "ndjson"}.get(format_name, format_name)
    done = recorded("export", "gpu_sample", "--window", "1d", "--format", format_name, folder=folder)
    assert done.stdout.startswith(f"gpu_sample.{suffix}: 120 events, ")
    assert [path.name for path in folder.iterdir()] == [f"gpu_sample.{suffix}"]
    again = recorded("export", "gpu_sample", "--format", format_name, folder=folder, code=2)
    assert again.stderr == (
        f"gpuledger: gpu_sample.{suffix} is there already: name another file with --output, or give --overwrite\n"
    )


def test_export_writes_the_answer_to_a_query(recorded, tmp_path):
    sql = "select gpu_index, count(*) as n from gpu_sample group by all order by all"
    path = tmp_path / "counted.csv"
    done = recorded("export", "--sql", sql, "--format", "csv", "-o", str(path))
    assert done.stdout == f"{path}: 2 rows, {path.stat().st_size} B\n"
    assert path.read_text() == "gpu_index,n\n0,60\n1,60\n"


def test_a_note_is_pinned_to_a_time_and_found_there(recorded):
    recorded("annotate", "new fans", "--at", "2026-11-20T14:30", "--tag", "cooling", "--author", "Ada")
    recorded("annotate", "load test", "--window", "2026-11-20T15:00..2026-11-20T15:30")
    sql = "select text, tags, author, started_at::varchar as s, ended_at::varchar as e from annotation order by seq"
    assert json.loads(recorded("sql", sql, "--json").stdout) == [
        {"text": "new fans", "tags": ["cooling"], "author": "Ada", "s": "2026-11-20 14:30:00+01", "e": "2026-11-20 14:30:00+01"},
        {"text": "load test", "tags": None, "author": None, "s": "2026-11-20 15:00:00+01", "e": "2026-11-20 15:30:00+01"},
    ]  # fmt: skip


def test_seal_moves_the_tail_into_parquet(recorded):
    assert recorded("seal").stdout == "180 events sealed into 2 segments\n"
    assert len(list(recorded.data.rglob("*.parquet"))) == 2
    assert recorded("seal").stdout == "0 events sealed into 0 segments\n"


def test_metrics_lists_names_units_and_meanings(gpuledger):
    rows = json.loads(gpuledger("metrics", "GPU", "power", "limit", "least", "--json").stdout)
    assert rows == [
        {
            "metric": "gpu.power_limit_watts",
            "unit": "W",
            "meaning": "Power limit in force, the least of all limits set.",
        }
    ]


def everything(folder: Path) -> dict[str, str]:
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


REFUSALS = [
    (["trend", "gpu.utl"], 2, "There is no metric 'gpu.utl': did you mean 'gpu.utilization_percent'?"),
    (["trend", "temperature"], 2, "There is no metric 'temperature': "),
    (["trend", "gpu.power_watts", "-w", "1M"], 2, "Window '1M' can be read in two ways: "),
    (["trend", "gpu.power_watts", "-w", "2040-01-01"], 2, "Window '2040-01-01' "),
    (["trend", "gpu.power_watts", "--tz", "Europe/Berlyn"], 2, "Time zone 'Europe/Berlyn' is not known: did you mean 'Europe/Berlin'?"),
    (["trend", "gpu.power_watts", "--gpu", "7"], 2, "There is no GPU 7 in this window: it has GPU 0, 1"),
    (["trend", "cpu.utilization_percent", "--gpu", "0"], 2, "cpu.utilization_percent is not measured per GPU: "),
    (["trend", "gpu.fan_speed_percent"], 3, "There is no gpu.fan_speed_percent in "),
    (["trend", "gpu.power_watts", "-w", "2020-01-01"], 3, "There is no gpu.power_watts in 2020-01-01 00:00:00 – "),
    (["trend", "gpu.power_watts", "--json", "--csv"], 2, "An answer has one form: give one of --json, --csv and --parquet"),
    (["sql", "drop view gpu_sample"], 2, "Only SELECT can be run, this is DROP: "),
    (["sql", "select * from gpu_smaple"], 2, "There is no view 'gpu_smaple': did you mean 'gpu_sample'?"),
    (["sql", "select nope from gpu_sample"], 2, "The query cannot be run: "),
    (["sql", "selec"], 2, "The SQL cannot be parsed "),
    (["sql", ""], 2, "There is no SQL to run: "),
    (["export", "gpu"], 2, "There is no kind of event 'gpu': "),
    (["export", "gpu_sample", "--format", "xlsx"], 2, "There is no format 'xlsx': give one of parquet, arrow, csv, json"),
    (["export", "gpu_sample", "-o", "/proc/nowhere.parquet"], 2, "/proc/nowhere.parquet cannot be written ("),
    (["export"], 2, "An export is of one kind of event or of one query: give KIND, or --sql 'SELECT …'"),
    (["export", "request", "--sql", "select 1"], 2, "An export is of one kind of event or of one query: "),
    (["export", "--sql", "drop view request"], 2, "Only SELECT can be run, this is DROP: "),
    (["annotate", " "], 2, "The note is empty: give it some words"),
    (["annotate", "x", "--at", "9:00", "--window", "1h"], 2, "A note is about an instant or about a time: give --at or --window"),
    (["annotate", "x", "--at", "25:00"], 2, "Window 'since 25:00' "),
    (["metrics", "unobtainium"], 3, "No metric speaks of 'unobtainium': "),
    (["init", "--client", "claude-cod"], 2, "There is no client 'claude-cod': did you mean 'claude-code'?"),
    (["up", "--source", "replay:"], 2, "The setting collector.source from flag cannot be 'replay:': "),
    (["up", "--source", "magic"], 2, "The setting collector.source from flag cannot be 'magic': string should match pattern '^(nvml|demo|replay:.+)$'"),
    (["status", "--config", "/nowhere.toml"], 2, "There is no settings file /nowhere.toml: "),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"), REFUSALS, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_a_wrong_call_is_one_sentence_with_its_exit_code_and_changes_nothing(recorded, arguments, code, sentence):
    before = everything(recorded.home)
    assert recorded.error(*arguments, code=code).startswith(sentence)
    assert everything(recorded.home) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["trend", "cpu.utilization_percent"],
        ["sql", "select 1 from request"],
        ["export", "request"],
        ["seal"],
    ],
)
def test_without_a_ledger_every_command_says_how_to_begin_one_and_creates_nothing(gpuledger, arguments):
    assert gpuledger.error(*arguments, code=3) == (
        f"There is no ledger in {gpuledger.data}: start one with 'gpuledger up', or name its folder with --data"
    )
    assert list(gpuledger.home.iterdir()) == []


@pytest.mark.parametrize("command", ["collect", "up", "status"])
def test_a_folder_that_is_no_ledger_is_refused_and_left_as_it_is(gpuledger, command):
    gpuledger.environment = {"GPULEDGER_COLLECTOR__PORT": "0", "GPULEDGER_MCP__PORT": "0"}
    documents = gpuledger.home / "documents"
    documents.mkdir()
    (documents / "thesis.tex").write_text("mine")
    before = everything(gpuledger.home)
    sentence = gpuledger.error(command, "--data", str(documents), code=2)
    assert sentence == (
        f"{documents} is not a ledger: it holds 'thesis.tex' and no head.sqlite: name an empty or new folder with --data"
    )
    assert everything(gpuledger.home) == before


@pytest.mark.parametrize("command", ["collect", "status"])
def test_a_ledger_of_a_newer_version_is_refused_and_left_as_it_is(gpuledger, command):
    gpuledger.environment = {"GPULEDGER_COLLECTOR__PORT": "0"}
    with Ledger(gpuledger.data) as ledger:
        ledger._head.pragma("user_version", 99)
    before = everything(gpuledger.data)
    assert gpuledger.error(command, code=1) == (
        f"The ledger {gpuledger.data} was written by a newer gpuledger (head version 99, known here: {len(_migrations())}): "
        "upgrade gpuledger: 'pip install --upgrade gpuledger'"
    )
    assert everything(gpuledger.data) == before


@pytest.mark.parametrize("command", ["collect", "up"])
def test_a_ledger_that_is_held_is_refused_with_the_holder_and_exit_code_4(recorded, command):
    recorded.environment = {"GPULEDGER_COLLECTOR__PORT": "0", "GPULEDGER_MCP__PORT": "0"}
    lock = CollectorLock(recorded.data)
    before = {path: digest for path, digest in everything(recorded.data).items() if not path.endswith("mcp.token")}
    sentence = recorded.error(command, code=4)
    lock.close()
    assert sentence.startswith(f"The ledger {recorded.data} is held by another collector (pid ")
    assert sentence.endswith("): stop that one first, or name another folder with --data")
    after = {
        path: digest
        for path, digest in everything(recorded.data).items()
        if not path.endswith(("mcp.token", "collector.lock"))
    }
    assert after == {path: digest for path, digest in before.items() if not path.endswith("collector.lock")}


def test_a_read_only_ledger_is_refused_for_recording_and_read_all_the_same(recorded):
    recorded.obeys_permissions = True
    recorded.environment = {"GPULEDGER_COLLECTOR__PORT": "0"}
    for part in (*recorded.data.rglob("*"), recorded.data):
        part.chmod(0o555 if part.is_dir() else 0o444)
    before = everything(recorded.data)
    for command in ("collect", "seal"):
        sentence = recorded.error(command, code=1)
        assert sentence.startswith(f"The ledger {recorded.data} cannot be written (")
        assert sentence.endswith("): make it writable for this user, or name another folder with --data")
    assert recorded("sql", "select count(*) as n from gpu_sample", "--csv").stdout == "n\n120\n"
    assert everything(recorded.data) == before
    recorded.data.chmod(0o755)


def test_an_unforeseen_failure_is_one_sentence_too(gpuledger):
    gpuledger.environment = {"XDG_DATA_HOME": "/proc/self/mem/x"}
    gpuledger.error("status", code=3)
