"""How fast questions about GPU telemetry are answered, ours beside other stores, in one run.

    python benchmarks/query_speed.py                    # a week of 8 GPUs in all of them: some minutes
    python benchmarks/query_speed.py --days 30 --peers victoria clickhouse
    python benchmarks/query_speed.py --only flat --flat-days 365    # the same question on a day and on a year

Warm: the median of a few askings in a process that has asked before; the others' servers run and have answered before,
too. Ours is `trend`, which answers a metric with mean, least, greatest, last, percentiles, slope, coverage and points
at once; beside it, the figures asked for alone as SQL over the events. The others hold only the fields that are asked
about. Cold: a process from its start to its answer.

The ledgers are as compaction and rolling up leave them, a file a day. For the flat question a day is repeated with its
times moved on, so that both ledgers end with the same hour; no rollups are made of it, and that question needs none.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import telemetry
from peers import Peer, Question, installed
from size import compacted_ledger, generated

from query.history.trends import trend
from query.reading.local_source import LocalSource
from query.windows import Window
from store.encodings import segment_writer
from store.head import open_head
from store.rollups.updating import update_rollups
from store.segments import Segment, as_written, catalogued, enter_segments, segment_path
from store.snapshot import LedgerReader
from store.times import DAY_US

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HOUR_S, DAY_S = 3600, 86_400
ASKED = ("utilization_percent", "power_watts")
TREND_POINTS_OF_YEAR = 24


def questions(end_us: int, days: int) -> list[tuple[str, Question]]:
    def ask(statistic: str, field: str, span_s: int, step_s: int | None = None) -> Question:
        return Question(statistic, field, end_us - span_s * 1_000_000, end_us, step_s)

    asked = [
        ("mean per minute, an hour", ask("avg", "utilization_percent", HOUR_S, 60)),
        ("mean per 5 minutes, a day", ask("avg", "utilization_percent", DAY_S, 300)),
        ("mean per hour, 7 days", ask("avg", "utilization_percent", 7 * DAY_S, HOUR_S)),
        ("mean per hour, 30 days", ask("avg", "utilization_percent", 30 * DAY_S, HOUR_S)),
        ("greatest, a day", ask("max", "power_watts", DAY_S)),
        ("p95, a day", ask("p95", "power_watts", DAY_S)),
    ]
    return [(name, question) for name, question in asked if question.span_s <= days * DAY_S]


def median_s(ask: Callable[[], float], times: int) -> float:
    """Of what `ask` says it took; the first time does not count."""
    ask()
    return statistics.median(ask() for _ in range(times))


def took_s(do: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    do()
    return time.perf_counter() - began_s


# Ours -------------------------------------------------------------------------------------------------------------


def ask_sql(source: LocalSource, question: Question) -> None:
    """The question alone, over the ledger."""
    step = {"step": question.step_s} if question.step_s else {}
    with source.engine(["gpu_sample"], start_us=question.start_us, end_us=question.end_us) as engine:
        statistic = {
            "avg": f"avg({question.field})",
            "max": f"max({question.field})",
            "p95": engine.quantile(question.field, 0.95),
        }[question.statistic]
        bucket = f", {engine.bucket('observed_at', engine.parameter('step', 'int'))} as bucket" if step else ""
        answer = engine.query(
            f"select gpu_uuid{bucket}, {statistic} as value from {engine.relation('gpu_sample')} "
            f"where observed_at >= {engine.parameter('start', 'time')} "
            f"and observed_at < {engine.parameter('end', 'time')} group by all",
            start=question.start_us,
            end=question.end_us,
            **step,
        )
    assert len(answer) >= (question.span_s // question.step_s if question.step_s else 1), question


def window_of(start_us: int, end_us: int) -> Window:
    start, end = (EPOCH + timedelta(microseconds=at) for at in (start_us, end_us))
    return Window(start, end, "UTC", "a window")


def ask_trend(source: LocalSource, question: Question) -> str:
    """The trend of its metric over its window; gives what it was answered from."""
    window = window_of(question.start_us, question.end_us)
    points = question.span_s // question.step_s if question.step_s else TREND_POINTS_OF_YEAR
    found = trend(source, f"gpu.{question.field}", window, now=window.end, points=points)
    assert found.series, question
    return found.resolution


def ask_cold(folder: Path, question: Question) -> None:
    start, end = ((EPOCH + timedelta(microseconds=at)).isoformat() for at in (question.start_us, question.end_us))
    asked = f"{start}..{end}".replace("+00:00", "Z")
    command = [sys.executable, "-P", "-m", "gpuledger", "trend", f"gpu.{question.field}", "--window", asked, "--json"]
    answer = subprocess.run([*command, "--data", folder], stdout=subprocess.PIPE, check=True).stdout
    assert json.loads(answer)


# Beside the others ------------------------------------------------------------------------------------------------


def beside(folder: Path, days: int, peers: Sequence[str], times: int, stack: ExitStack) -> None:
    shape = telemetry.Shape(days)
    asked = questions(shape.start_us + days * DAY_US, days)
    compacted_ledger(folder / "ledger", generated(shape))
    update_rollups(folder / "ledger", now_us=asked[0][1].end_us + 60_000_000, until_done=True)
    print(f"a ledger of {days} days, {shape.rows:,} rows", flush=True)
    others: list[Peer] = []
    for peer in installed(peers):
        began_s = time.monotonic()
        other = peer(folder / peer.__name__, stack)
        other.load({name: day[name] for name in (*ASKED, "observed_at")} for day in telemetry.days(shape))
        others.append(other)
        print(f"{other.name}: loaded in {time.monotonic() - began_s:.0f} s", flush=True)
    source = LocalSource(folder / "ledger")
    heads = ["ours", "by SQL", "cold", *(other.name for other in others), "ours/fastest"]
    print(f"\nmedians of {times}, ms\n{'':28}{''.join(f'{head:>18}' for head in heads)}")
    for name, question in asked:
        ours_s = median_s(lambda q=question: took_s(lambda: ask_trend(source, q)), times)
        sql_s = median_s(lambda q=question: took_s(lambda: ask_sql(source, q)), times)
        cold_s = median_s(lambda q=question: took_s(lambda: ask_cold(folder / "ledger", q)), 3)
        theirs_s = [median_s(lambda o=other, q=question: o.ask(q), times) for other in others]
        figures = "".join(f"{1000 * taken_s:18.1f}" for taken_s in (ours_s, sql_s, cold_s, *theirs_s))
        ratio = f"{ours_s / min(theirs_s):18.2f}" if theirs_s else ""
        print(f"{name:28}{figures}{ratio}  from {ask_trend(source, question)}", flush=True)
    source.close()


# Flat over the length of a ledger ---------------------------------------------------------------------------------


def repeated(folder: Path, day_ledger: Path, days: int) -> None:
    """A ledger of `days` days, each of them the one day of `day_ledger` with its times and seqs moved on."""
    head = open_head(day_ledger)
    (first,) = catalogued(head)
    head.close()
    table = pq.read_table(day_ledger / first.path, partitioning=None)
    head = open_head(folder)
    ledger_id = head.execute("select id from ledger").get
    segments = [_moved(folder, ledger_id, first, table, day) for day in range(days)]
    with head:
        enter_segments(head, segments, now_us=time.time_ns() // 1000)
        head.execute("update ledger set next_seq = ?", (segments[-1].last_seq + 1,))
    head.close()


def _moved(folder: Path, ledger_id: str, first: Segment, table: pa.Table, day: int) -> Segment:
    seqs = day * (first.last_seq - first.first_seq + 1)
    date = EPOCH + timedelta(microseconds=first.first_observed_at_us + day * DAY_US)
    segment = replace(
        first,
        first_seq=first.first_seq + seqs,
        last_seq=first.last_seq + seqs,
        first_observed_at_us=first.first_observed_at_us + day * DAY_US,
        last_observed_at_us=first.last_observed_at_us + day * DAY_US,
    )
    path = segment_path(
        first.kind, first.version, f"{date:%Y-%m-%d}", first.host,
        (segment.first_seq, segment.last_seq), level=first.level,
    )  # fmt: skip
    segment = replace(segment, path=path)
    for name, by in (("seq", seqs), ("observed_at", day * DAY_US)):
        at = table.schema.get_field_index(name)
        moved = pa.compute.add(table.column(at).cast(pa.int64()), by).cast(table.schema.field(at).type)
        table = table.set_column(at, table.schema.field(at), moved)
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    with segment_writer(folder / path, segment, ledger_id, table.schema) as writer:
        writer.write_table(table, row_group_size=4 * HOUR_S * 8)  # as compaction does
    return as_written(folder, segment)


def flat(folder: Path, days: int, times: int) -> None:
    """The last hour per minute on a ledger of a day and of many, asked in turn; and opening the long one."""
    compacted_ledger(folder / "made", generated(telemetry.Shape(1)))
    ledgers = {1: folder / "day", days: folder / "days"}
    for length, ledger in ledgers.items():
        repeated(ledger, folder / "made", length)
    sources = {length: LocalSource(ledger) for length, ledger in ledgers.items()}
    taken: dict[int, list[float]] = {length: [] for length in ledgers}
    for _ in range(times + 1):
        for length, source in sources.items():
            end_us = telemetry.START_US + length * DAY_US
            began_s = time.perf_counter()
            ask_trend(source, Question("avg", "utilization_percent", end_us - HOUR_S * 1_000_000, end_us, 60))
            taken[length].append(time.perf_counter() - began_s)
    medians_ms = {length: 1000 * statistics.median(of_ledger[1:]) for length, of_ledger in taken.items()}
    print("\nutilization, last hour, per minute, as a trend; median ms")
    for length, median_ms in medians_ms.items():
        print(f"ledger of {length:4} days{median_ms:26.1f}")
    print(f"ratio{medians_ms[days] / medians_ms[1]:38.2f}   mark: 1.3")
    opened_ms = 1000 * median_s(lambda: took_s(lambda: LedgerReader(ledgers[days]).close()), times)
    print(f"opening the one of {days} days{opened_ms:20.1f}   mark: 100")
    for source in sources.values():
        source.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--flat-days", type=int, default=30)
    parser.add_argument("--only", choices=["beside", "flat"])
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument("--peers", nargs="+", default=[], metavar="NAME", help="only these, by a part of their names")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        if arguments.only != "beside":
            flat(folder, arguments.flat_days, arguments.times)
        if arguments.only != "flat":
            beside(folder, arguments.days, arguments.peers, arguments.times, stack)


if __name__ == "__main__":
    main()
