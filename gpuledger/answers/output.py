"""How an answer reaches a person or a program: a table, JSON, CSV or Parquet."""

import csv
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from query.figures import age_words, significant, sparkline, spelled
from query.history.trends import Trend, TrendSeries
from query.present.live import LiveState
from query.present.status import LedgerStatus
from query.reading.resolutions import resolution_words
from query.windows import Window
from store.errors import UsageError
from store.files import publish_file

PIPED_WIDTH = 200  # a table in a pipe is not cut to the width of a terminal that is not there
# Of control characters the newline alone; none of those without a width, or that turn the direction of writing.
_FOOLS_A_TERMINAL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer in every form.

    Args:
        value: For JSON: dataclasses, lists, plain values.
        rows: For CSV and Parquet: one flat record a row.
        show: Prints it for a person.
        columns: Names of the columns, needed where there may be no row.
    """

    value: Any
    rows: Sequence[Mapping[str, Any]]
    show: Callable[[Console], None]
    columns: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class OutputChoice:
    """Which form was asked for; a table where none was."""

    as_json: bool = False
    as_csv: bool = False
    parquet: Path | None = None


def emit(answer: Answer, choice: OutputChoice) -> None:
    """Write `answer` to stdout, or to the Parquet file that was named.

    Raises:
        UsageError: More than one form was asked for, or the file cannot be written.
    """
    if choice.as_json + choice.as_csv + bool(choice.parquet) > 1:
        raise UsageError("An answer has one form", "give one of --json, --csv and --parquet")
    if choice.as_json:
        sys.stdout.write(json_text(answer.value) + "\n")
    elif choice.as_csv:
        _write_csv(answer)
    elif choice.parquet:
        _write_parquet(pa.Table.from_pylist([dict(row) for row in answer.rows]), choice.parquet)
    else:
        answer.show(console())


class PlainConsole(Console):
    """A console on which names from outside are text, and no command to the terminal."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(_FOOLS_A_TERMINAL.sub(" ", text), **options)


def console() -> Console:
    return PlainConsole(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)


def json_text(value: Any) -> str:
    encoder = msgspec.json.Encoder(enc_hook=_plain, decimal_format="number")
    return msgspec.json.format(encoder.encode(value), indent=2).decode()


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    return str(value)


def _write_csv(answer: Answer) -> None:
    names = answer.columns or (list(answer.rows[0]) if answer.rows else [])
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([[_cell(row[name]) for name in names] for row in answer.rows])


def _cell(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else value


def _write_parquet(table: pa.Table, path: Path) -> None:
    import pyarrow.parquet as pq

    try:
        publish_file(path, lambda temporary: pq.write_table(table, temporary))
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"{path} cannot be written ({reason})", "name another file") from error


def emit_table(table: pa.Table, choice: OutputChoice) -> None:
    """As `emit`, for the answer to a query: Parquet keeps its types."""
    if choice.parquet and not (choice.as_json or choice.as_csv):
        _write_parquet(table, choice.parquet)
    else:
        emit(rows_answer(table.to_pylist(), columns=table.column_names), choice)


def plain_table(title: str, columns: Sequence[str], *, left: Collection[str] = ()) -> Table:
    """An empty table; columns are right-aligned but for those named in `left`."""
    table = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", no_wrap=True)
    return table


def window_words(window: Window) -> str:
    same_day = window.start.date() == window.end.date()
    end = window.end.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M:%S")
    return f"{window.start:%Y-%m-%d %H:%M:%S} – {end} {window.time_zone}"


def trend_answer(trend: Trend) -> Answer:
    """A trend as a table with a sparkline, as one row per series, and whole."""

    def show(out: Console) -> None:
        subject = "gpu" if trend.metric.startswith("gpu.") else trend.metric.partition(".")[0]
        has_increase = any(one.increase is not None for one in trend.series)
        figures = [
            "min",
            "avg",
            "p50",
            "p95",
            "max",
            "last",
            "slope/h",
            *(["increase"] if has_increase else []),
        ]
        title = f"{trend.metric}  {window_words(trend.window)}"
        table = plain_table(title, [subject, *figures, "trend"], left=(subject, "trend"))
        for one in trend.series:
            table.add_row(*_trend_cells(trend, one, has_increase=has_increase))
        out.print(table)
        facts = [f"one character a {age_words(trend.step_s)}"]
        if trend.coverage is not None:
            facts.append(f"coverage {significant(100 * trend.coverage, 4)} %")
        facts.append(f"newest sample {age_words(trend.newest_age_s)} old")
        facts.append(resolution_words(trend.resolution))
        out.print(" · ".join(facts), style="dim")

    rows = [
        {
            "metric": trend.metric,
            "unit": trend.unit,
            "from": trend.window.start,
            "to": trend.window.end,
            "resolution": trend.resolution,
            **{name: getattr(one, name) for name in TrendSeries.__slots__ if name != "points"},
            "sparkline": sparkline(one.points, trend.unit),
        }
        for one in trend.series
    ]
    return Answer(trend, rows, show)


def _trend_cells(trend: Trend, one: TrendSeries, *, has_increase: bool) -> list[str]:
    cells = [spelled(value, trend.unit) for value in (one.min, one.avg, one.p50, one.p95, one.max, one.last)]
    slope = (
        "–"
        if one.slope_per_hour is None
        else f"{'+' if one.slope_per_hour >= 0 else ''}{spelled(one.slope_per_hour, trend.unit)}"
    )
    increase = [spelled(one.increase, trend.increase_unit)] if has_increase else []
    return [escape(one.label or one.series), *cells, slope, *increase, sparkline(one.points, trend.unit)]


def rows_answer(rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str] = (), note: str = "") -> Answer:
    """Plain records, as `sql` and `metrics` give them."""

    def show(out: Console) -> None:
        names = list(columns) or list(rows[0])
        texts = {name for name in names if any(isinstance(row[name], str) for row in rows)}
        table = plain_table("", names, left=texts)
        for row in rows:
            table.add_row(*(escape(_shown(row[name])) for name in names))
        if rows:
            out.print(table)
        out.print(note or f"{len(rows)} row{'' if len(rows) == 1 else 's'}", style="dim")

    return Answer(rows, rows, show, columns)


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="milliseconds")
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def status_answer(status: LedgerStatus, live: LiveState) -> Answer:
    """What is recorded, how fresh it is, how large, what is absent and why."""

    def show(out: Console) -> None:
        for line in _status_lines(status):
            out.print(line)
        table = plain_table("", ["kind", "events", "oldest", "newest", "segments", "sealed"], left=("kind",))
        for kind in status.kinds:
            if kind.event_count:
                oldest = f"{kind.first_at:%Y-%m-%d %H:%M}" if kind.first_at else "–"
                newest = f"{age_words(kind.newest_age_s)} ago"
                cells = (
                    f"{kind.event_count:,}",
                    oldest,
                    newest,
                    str(kind.segment_count),
                    spelled(kind.sealed_bytes, "B"),
                )
                table.add_row(kind.kind, *cells)
        out.print(table)
        for gpu in live.gpus:
            name = escape(gpu.name or "?")
            figures = (spelled(gpu.values["utilization_percent"], "%"), spelled(gpu.values["power_watts"], "W"))
            out.print(f"GPU {gpu.index}  {name}  {'  '.join(figures)}")
        if status.set_aside:
            out.print(f"set aside, {len(status.set_aside)} in quarantine/:", style="bold")
            for one in status.set_aside:
                out.print(f"  {escape(one.origin)}: {escape(one.reason)}", soft_wrap=True)
        if status.absent:
            out.print("absent now:", style="bold")
            for column, reason in status.absent.items():
                out.print(f"  {escape(column)}: {reason}")

    rows = [{name: getattr(kind, name) for name in kind.__slots__} for kind in status.kinds]
    return Answer(status, rows, show)


def _status_lines(status: LedgerStatus) -> list[str]:
    if status.is_recording:
        state = f"[green]recording[/] by pid {status.collector_pid} since {status.collector_started_at}"
    elif status.collector_pid:
        state = f"[red]pid {status.collector_pid} holds the ledger but sampling has stopped[/]"
    else:
        state = "[yellow]not recording[/]: start 'gpuledger up'"
    probes = [f"{escape(name)}: {escape(words)}" for name, words in status.probes.items() if words != name]
    return [
        f"ledger   {escape(str(status.folder))}  ({spelled(status.size_bytes, 'B')})",
        f"state    {state}",
        f"newest   {age_words(status.newest_age_s)} old"
        if status.newest_age_s is not None
        else "newest   nothing recorded yet",
        *(f"probe    {line}" for line in probes),
    ]
