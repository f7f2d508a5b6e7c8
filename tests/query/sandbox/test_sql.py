"""Ad-hoc SQL: how much of an answer is given, for how long it may take, and what is said when it fails."""

import shutil
import time
from pathlib import Path

import pytest

from query.ad_hoc import run_sql
from query.describe import SQL_EXAMPLES
from query.errors import SqlFailedError, WindowError
from query.sandbox.worker import BATCH_ROWS_MAX


def answer(book, sql: str, **asked):
    return run_sql(book.source, sql, **{"rows_max": 100, "time_limit_s": 30.0} | asked)


def failure(book, sql: str, **asked) -> str:
    with pytest.raises(SqlFailedError) as failed:
        answer(book, sql, **asked)
    return str(failed.value)


def test_segments_and_tail_are_one_view(book):
    book.record(book.gpu(s, power_watts=float(s)) for s in range(10))
    book.append([book.gpu(s, power_watts=float(s)) for s in range(10, 15)])
    found = answer(
        book, "select count(*) as rows, sum(power_watts) as watts, count(distinct seq) as seqs from gpu_sample"
    )
    assert found.table.to_pylist() == [{"rows": 15, "watts": 105.0, "seqs": 15}]


@pytest.mark.parametrize(
    ("rows_max", "rows", "is_truncated"), [(0, 0, True), (1, 1, True), (19, 19, True), (20, 20, False), (21, 20, False)]
)
def test_at_most_so_many_rows_are_given_and_whether_there_were_more_is_said(machine, rows_max, rows, is_truncated):
    found = answer(machine, "select seq from gpu_sample order by seq", rows_max=rows_max)
    assert (found.table["seq"].to_pylist(), found.is_truncated) == (list(range(1, rows + 1)), is_truncated)


def test_no_row_at_all_is_not_truncated_and_has_its_columns(machine):
    found = answer(machine, "select seq, host from annotation", rows_max=0)
    assert (found.table.num_rows, found.table.column_names, found.is_truncated) == (0, ["seq", "host"], False)


def test_an_answer_of_many_batches_is_whole_and_in_order(machine):
    rows = 2 * BATCH_ROWS_MAX + 1
    found = answer(machine, f"select i from range({rows + 5}) r(i)", rows_max=rows)
    assert (found.table["i"].to_pylist(), found.is_truncated) == (list(range(rows)), True)


def test_an_endless_answer_ends_with_the_rows_that_were_asked_for(machine):
    found = answer(machine, "select i from range(1_000_000_000_000) r(i)", rows_max=3)
    assert (found.table["i"].to_pylist(), found.is_truncated) == ([0, 1, 2], True)


ENDLESS = [
    "select sum(hash(i)) from range(1_000_000_000_000) r(i)",
    "select count(*) from range(1_000_000) a, range(1_000_000) b, range(1_000_000) c",
    "with recursive t(i) as (select 1 union all select i + 1 from t) select count(*) from t",
    "select i from range(1_000_000_000_000) r(i)",
]


@pytest.mark.parametrize("sql", ENDLESS)
@pytest.mark.parametrize("time_limit_s", [0.2, 0.0])  # 0: the first interruption comes before the query has begun
def test_a_query_that_takes_too_long_is_stopped_and_the_next_is_answered(machine, sql, time_limit_s):
    assert failure(machine, sql, time_limit_s=time_limit_s, rows_max=10**12) == (
        f"The query took longer than {time_limit_s:g} s and was stopped: narrow its time range, or aggregate more"
    )
    assert answer(machine, "select 1 as one").table.to_pylist() == [{"one": 1}]


def test_the_time_that_an_answer_took_is_told(machine):
    before_s = time.monotonic()
    found = answer(machine, "select 1")
    assert 0 < found.elapsed_s <= time.monotonic() - before_s


def test_a_query_that_needs_too_much_memory_is_stopped(machine):
    assert failure(machine, "select list(i) from range(300_000_000) r(i)") == (
        "The query needs more than 1GB of memory: narrow its time range, or aggregate more"
    )


def test_times_are_shown_and_cut_in_the_asked_time_zone(machine):
    sql = "select max(observed_at) as t, max(observed_at)::varchar as words, date_trunc('day', max(observed_at)) as day from gpu_sample"
    [in_utc] = answer(machine, sql).table.to_pylist()
    found = answer(machine, sql, time_zone="Asia/Kathmandu").table
    [there] = found.to_pylist()
    assert str(found.schema.field("t").type) == "timestamp[us, tz=Asia/Kathmandu]"
    assert there["t"] == in_utc["t"] == machine.at(9)
    assert (in_utc["words"], there["words"]) == ("2026-11-22 08:00:09+00", "2026-11-22 13:45:09+05:45")
    assert (in_utc["day"].isoformat(), there["day"].isoformat()) == (
        "2026-11-22T00:00:00+00:00",
        "2026-11-22T00:00:00+05:45",
    )


@pytest.mark.parametrize(
    ("zone", "sentence"),
    [
        ("Europe/Berln", "Time zone 'Europe/Berln' is not known: did you mean 'Europe/Berlin'?"),
        ("it's", """Time zone "it's" is not known: give an IANA name such as 'Europe/Berlin'"""),
    ],
)
def test_an_unknown_time_zone_is_refused(machine, zone, sentence):
    with pytest.raises(WindowError) as refused:
        answer(machine, "select 1", time_zone=zone)
    assert str(refused.value) == sentence


def test_a_window_leaves_out_files_that_lie_wholly_outside(book):
    for start_s in (0, 100, 200):
        book.append([book.gpu(start_s + s) for s in range(5)])
        book.seal()
    window = book.window(102, 150)
    found = answer(
        book,
        "select min(observed_at), max(observed_at) from gpu_sample",
        start_us=window.start_us,
        end_us=window.end_us,
    )
    assert list(found.table.to_pylist()[0].values()) == [book.at(100), book.at(104)]


def test_columns_of_one_name_are_told_apart(machine):
    found = answer(machine, "select 1 as x, 2 as x, 3 as x_1, 4 as x, 5 as y")
    assert found.table.to_pylist() == [{"x": 1, "x_2": 2, "x_1": 3, "x_3": 4, "y": 5}]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        (
            "with drawn as (select 1 as watts) select wats from drawn",
            'Binder Error: Referenced column "wats" not found in FROM clause! Candidate bindings: "watts"',
        ),
        (
            "select seq from gpu_sample, request",
            """Binder Error: Ambiguous reference to column name "seq" (use: 'gpu_sample.seq' or 'request.seq')""",
        ),
        ("select 'a'::int", "Conversion Error: Could not convert string 'a' to INT32"),
        (
            "select cast(if(i = 500_000, 'x', '1') as int) from range(1_000_000) r(i)",  # met in the middle of the stream
            "Conversion Error: Could not convert string 'x' to INT32",
        ),
        ("select $1", "Invalid Input Error: Values were not provided for the following parameters: 1"),
        ("select error('two' || chr(10) || 'lines')", "Invalid Input Error: two lines"),
        ("select error(repeat('x', 100_000))", f"Invalid Input Error: {'x' * 378}…"),
        ("select 100::tinyint * 100::tinyint", "Out of Range Error: Overflow in multiplication of INT8 (100 * 100)!"),
    ],
)
def test_what_duckdb_cannot_run_is_said_in_one_sentence(machine, sql, reason):
    assert failure(machine, sql, rows_max=10**7) == f"The query cannot be run: {reason}"


@pytest.mark.parametrize("way", ["absolute", "relative", "linked"])
def test_no_error_tells_where_the_ledger_lies(book, open_book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way):
    book.record(book.gpu(s) for s in range(4))
    (tmp_path / "link").symlink_to(book.folder)
    monkeypatch.chdir(tmp_path)
    folder = {"absolute": book.folder, "relative": Path("ledger"), "linked": tmp_path / "link"}[way]
    source = open_book(folder)
    assert answer(source, "select count(*) as n from gpu_sample").table.to_pylist() == [{"n": 4}]
    shutil.rmtree(book.folder / "events")
    assert answer(source, "select count(*) as n from gpu_sample").table.to_pylist() == [{"n": 2}]
    assert source.source.notes() == [
        "events/gpu_sample/v=1/date=2026-11-22/node-1-2-0.parquet is left out of answers: it is gone; "
        "see 'gpuledger verify'"
    ]
    assert failure(source, f"select error('{book.folder}/head.sqlite')").endswith(": <ledger>/head.sqlite")


@pytest.mark.parametrize("name", SQL_EXAMPLES)
def test_every_example_runs(machine, name):
    assert answer(machine, SQL_EXAMPLES[name]).table.num_columns > 0


def test_the_examples_answer_what_they_promise(machine):
    def rows(name: str) -> list:
        return [tuple(row.values()) for row in answer(machine, SQL_EXAMPLES[name]).table.to_pylist()]

    assert rows("Slowest requests") == [
        (None, "vllm", "chat", 2.0, "ok"),
        (None, "vllm", "chat", 1.5, "error"),
        (None, "vllm", "chat", 1.0, "ok"),
        (None, "vllm", "chat", 0.5, "ok"),
    ]
    assert sorted(rows("Why a value is NULL")) == [(0, None, 10), (1, "not_supported", 10)]
    assert rows("The recorder's own life") == [(machine.at(0), "start", None)]
