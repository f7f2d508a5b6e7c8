"""The command line. Heavy libraries are imported inside the command that needs them: `--help` answers in a blink."""

import os
import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from gpuledger import __version__
from store.errors import GpuledgerError, NoDataError, UsageError

if TYPE_CHECKING:
    from gpuledger.output import Answer, OutputChoice
    from gpuledger.settings import Settings
    from query.local_source import LocalSource
    from query.trends import Trend
    from query.windows import Window
    from store.rollups import RollupResult

app = typer.Typer(
    name="gpuledger",
    help="A flight recorder for GPU machines.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Data = Annotated[Path | None, typer.Option("--data", help="The ledger's folder.", show_default=False)]
Config = Annotated[
    Path | None,
    typer.Option("--config", help="A settings file to read instead of the usual ones.", show_default=False),
]
LogLevel = Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error.", show_default=False)]
Source = Annotated[
    str | None, typer.Option("--source", help="nvml, demo, or replay:FILE for a recording.", show_default=False)
]
WindowText = Annotated[
    str,
    typer.Option("--window", "-w", help="A time window: 15m, 'last hour', 'yesterday 9-17', 2026-11-22, A..B."),
]
Zone = Annotated[str | None, typer.Option("--tz", help="IANA time zone of windows and answers.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Answer in CSV.")]
ParquetFile = Annotated[
    Path | None, typer.Option("--parquet", help="Write the answer to a Parquet file.", show_default=False)
]


def main() -> None:
    """Run the command line; every known problem ends as one sentence on stderr and its documented exit code."""
    try:
        app()
    except GpuledgerError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("GPULEDGER_DEBUG"):
            raise
        hint = "run again with GPULEDGER_DEBUG=1 and report what it prints"
        _fail(f"internal error: {type(error).__name__}: {error}: {hint}", 1)


def _fail(sentence: str, exit_code: int) -> NoReturn:
    print(f"gpuledger: {sentence}", file=sys.stderr)
    sys.exit(exit_code)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        print(f"gpuledger {__version__}")
        raise typer.Exit


def _settings(config: Path | None, **flags: Any) -> "Settings":
    from gpuledger.settings import load_settings

    given = {name.replace("__", "."): value for name, value in flags.items() if value is not None}
    return load_settings(given, config)


def _source(settings: "Settings") -> "LocalSource":
    from query.local_source import LocalSource

    source = LocalSource(settings.data.absolute())
    source.reader().close()  # says at once when there is no ledger to ask
    return source


def _time_zone(settings: "Settings", zone: str | None) -> str:
    from query.windows import host_time_zone

    return zone or settings.query.time_zone or host_time_zone()


def _now(time_zone: str) -> datetime:
    from query.windows import zone_info

    return datetime.now(zone_info(time_zone))


def _choice(as_json: bool, as_csv: bool, parquet: Path | None) -> "OutputChoice":
    from gpuledger.output import OutputChoice

    return OutputChoice(as_json=as_json, as_csv=as_csv, parquet=parquet)


def _emit(answer: "Answer", choice: "OutputChoice") -> None:
    from gpuledger.output import emit

    emit(answer, choice)


@app.command()
def up(
    data: Data = None,
    source: Source = None,
    config: Config = None,
    log_level: LogLevel = None,
) -> None:
    """Run the collector and the MCP server over HTTP in the foreground."""
    from gpuledger.up import Supervisor, collector_command, configure_logging, greeting, mcp_http_command

    settings = _settings(config, data=data, collector__source=source, log_level=log_level)
    configure_logging(settings.log_level)
    commands = {"collector": collector_command(settings), "MCP server": mcp_http_command(settings, config)}
    sys.exit(Supervisor(commands, settings.data, greeting(settings)).run())


@app.command()
def collect(
    data: Data = None,
    source: Source = None,
    config: Config = None,
    log_level: LogLevel = None,
) -> None:
    """Run the collector alone."""
    from gpuledger.up import run_collector

    run_collector(_settings(config, data=data, collector__source=source, log_level=log_level))


@app.command("record-nvml")
def record_nvml(
    seconds: Annotated[int, typer.Option("--seconds", min=1, max=3600, help="How long; Ctrl-C ends it early.")] = 60,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path("nvml.recording"),
    load: Annotated[str, typer.Option("--load", help="What the GPUs are doing, for the label.")] = "load not said",
    keep_identities: Annotated[
        bool, typer.Option("--keep-identities", help="Keep UUIDs, serial numbers and pids as they are.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
) -> None:
    """Record what the NVIDIA driver answers, to replay it elsewhere with --source replay:FILE."""
    from collector.clock import SystemClock
    from collector.recordings.recorder import RecordingProbe, record
    from collector.recordings.recording import write_recording
    from query.figures import spelled

    if out.exists() and not overwrite:
        raise UsageError(f"{out} is there already", "name another file with --out, or give --overwrite")
    probe = RecordingProbe(interval_s=1.0, keep_identities=keep_identities)
    print(f"gpuledger: recording for {seconds} s", file=sys.stderr)
    try:
        record(probe, SystemClock(), seconds=seconds, interval_s=1.0)
    finally:
        probe.close()
    recording = probe.recording(load=load, gpuledger_version=__version__)
    size_bytes = write_recording(out, recording)
    identities = "as they are" if keep_identities else "replaced by others"
    print(f"{out}: {recording.label}; {recording.call_count:,} calls, {spelled(size_bytes, 'B')}")
    print(f"UUIDs, serial numbers and pids are {identities}")


@app.command()
def mcp(
    http: Annotated[bool, typer.Option("--http", help="Serve HTTP instead of stdin and stdout.")] = False,
    host: Annotated[str | None, typer.Option("--host", help="Address to serve HTTP on.", show_default=False)] = None,
    port: Annotated[int | None, typer.Option("--port", help="Port to serve HTTP on.", show_default=False)] = None,
    insecure: Annotated[
        bool | None, typer.Option("--insecure", help="Serve a public address without a token.", show_default=False)
    ] = None,
    data: Data = None,
    config: Config = None,
    log_level: LogLevel = None,
) -> None:
    """Run the MCP server."""
    from collector.listening import bound_socket
    from gpuledger.mcp_face import http_settings
    from gpuledger.up import configure_logging
    from mcp_server.serving import ServerSettings, serve_http, serve_stdio

    settings = _settings(config, data=data, mcp__host=host, mcp__port=port, mcp__insecure=insecure, log_level=log_level)
    configure_logging(settings.log_level)
    server = ServerSettings(
        folder=settings.data.absolute(),
        time_zone=_time_zone(settings, None),
        version=__version__,
        sql_rows_max=settings.query.sql_rows_max,
        sql_time_limit_s=settings.query.sql_time_limit_s,
    )
    if http:
        face = http_settings(settings.mcp)
        serve_http(server, face, bound_socket(face.host, settings.mcp.port, "mcp.port"))
    else:
        serve_stdio(server)


@app.command()
def status(
    data: Data = None,
    config: Config = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    parquet: ParquetFile = None,
) -> None:
    """Show what is recorded, how fresh and how large, what is absent and why; exit code 5 when nothing records."""
    from gpuledger.output import status_answer
    from query.live import live_state
    from query.status import ledger_status

    settings = _settings(config, data=data)
    source = _source(settings)
    now = _now(_time_zone(settings, None))
    live = live_state(source, now=now)
    found = ledger_status(source, now=now, live=live)
    _emit(status_answer(found, live), _choice(as_json, as_csv, parquet))
    if not found.is_recording:
        raise typer.Exit(5)


@app.command()
def doctor(
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", help="Write what belongs to a report of a bug to this .tar.gz.", show_default=False),
    ] = None,
    data: Data = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Look at driver, GPUs and recording, and say what to do next; exit code 1 for a problem, 5 for a warning."""
    from gpuledger.bundle import check_name, write_bundle
    from gpuledger.doctor import examine, here
    from gpuledger.output import json_text

    if bundle:
        check_name(bundle)
    report = examine({"data": data} if data else {}, config, now=_now("UTC"), where=here())
    print(json_text(report.value()) if as_json else report.text(), end="\n" if as_json else "")
    if bundle:
        names = write_bundle(bundle, report, home=Path.home())
        print(f"{bundle}: {', '.join(names)}; look through it before you attach it", file=sys.stderr)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


@app.command()
def trend(
    metric: Annotated[str, typer.Argument(help="A metric, such as gpu.utilization_percent.")],
    window: WindowText = "1h",
    gpu: Annotated[
        list[int] | None, typer.Option("--gpu", help="Only this GPU; may be given again.", show_default=False)
    ] = None,
    tz: Zone = None,
    data: Data = None,
    config: Config = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    parquet: ParquetFile = None,
) -> None:
    """Show how a metric went over a window: min, avg, p50, p95, max, last, slope and a sparkline."""
    from gpuledger.output import trend_answer
    from query.catalogue import find_metric
    from query.trends import trend as trend_of
    from query.windows import resolve_window

    find_metric(metric)
    settings = _settings(config, data=data)
    zone = _time_zone(settings, tz)
    now = _now(zone)
    span = resolve_window(window, now=now, time_zone=zone)
    source = _source(settings)
    found = trend_of(source, metric, span, now=now, gpus=tuple(gpu or ()))
    if not found.series:
        raise _no_values(source, found)
    _emit(trend_answer(found), _choice(as_json, as_csv, parquet))
    _say_what_is_left_out(source)


def _say_what_is_left_out(source: "LocalSource") -> None:
    for note in source.notes():
        print(f"gpuledger: {note}", file=sys.stderr)


def _no_values(source: "LocalSource", found: "Trend") -> NoDataError:
    from gpuledger.output import window_words
    from query.absence import why_no_values

    return NoDataError(f"There is no {found.metric} in {window_words(found.window)}", why_no_values(source, found))


Service = Annotated[str | None, typer.Option("--service", help="Only of this service.", show_default=False)]
Operation = Annotated[str | None, typer.Option("--operation", help="Only of this operation.", show_default=False)]
Model = Annotated[str | None, typer.Option("--model", help="Only of this model.", show_default=False)]
Status = Annotated[
    str | None, typer.Option("--status", help="Only ok, error, cancelled, timeout or rejected.", show_default=False)
]


@app.command()
def requests(
    window: WindowText = "1h",
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by",
            help="service, operation, model or status; may be given again; none for all together. "
            "Operation and model where left out.",
            show_default=False,
        ),
    ] = None,
    step: Annotated[
        str | None, typer.Option("--step", help="Also by steps of time: 5m, 1h, 1d.", show_default=False)
    ] = None,
    service: Service = None,
    operation: Operation = None,
    model: Model = None,
    status: Status = None,
    tz: Zone = None,
    data: Data = None,
    config: Config = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    parquet: ParquetFile = None,
) -> None:
    """Show how many requests there were, how many failed and how long they took."""
    from gpuledger.output import window_words
    from gpuledger.request_answers import requests_answer
    from query.lengths import step_s
    from query.requests import RequestFilter, summarize_requests
    from query.windows import resolve_window

    settings = _settings(config, data=data)
    zone = _time_zone(settings, tz)
    now = _now(zone)
    span = resolve_window(window, now=now, time_zone=zone)
    steps_of_s = step_s(step) if step else None
    source = _source(settings)
    grouped = [name for name in by if name != "none"] if by else ("operation", "model")
    only = RequestFilter(service, operation, model, status)
    found = summarize_requests(source, span, now=now, by=grouped, only=only, step_s=steps_of_s)
    if not found.n:
        raise _no_requests(source, window_words(span))
    _emit(requests_answer(found), _choice(as_json, as_csv, parquet))
    _say_what_is_left_out(source)


def _no_requests(source: "LocalSource", window: str) -> NoDataError:
    with source.reader() as reader:
        last_us = reader.extents()["request"].last_observed_at_us
    if last_us is None:
        why = "none was ever recorded; see docs/how-to/why-was-that-request-slow.md"
    else:
        why = (
            f"the newest in the ledger is of {datetime.fromtimestamp(last_us / 1e6).astimezone():%Y-%m-%d %H:%M:%S %Z}"
        )
    return NoDataError(f"There is no such request in {window}", why)


@app.command()
def slow(
    window: WindowText = "1h",
    threshold: Annotated[
        str | None, typer.Option("--threshold", help="Slow is what took at least: 500ms, 2s.", show_default=False)
    ] = None,
    percentile: Annotated[
        float | None,
        typer.Option(
            "--percentile",
            help="Slow is what took at least this percentile of its own operation and model: 50, 90, 95 or 99; "
            "99 where nothing is given.",
            show_default=False,
        ),
    ] = None,
    excess: Annotated[
        bool, typer.Option("--excess", help="Slow is what took longer than its token counts explain.")
    ] = False,
    top: Annotated[int, typer.Option("--top", min=1, max=10_000, help="How many to show, the worst first.")] = 20,
    service: Service = None,
    operation: Operation = None,
    model: Model = None,
    status: Status = None,
    tz: Zone = None,
    data: Data = None,
    config: Config = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    parquet: ParquetFile = None,
) -> None:
    """Show the requests that were slow: by a threshold, by a percentile of their own kind, or for their tokens."""
    from gpuledger.output import window_words
    from gpuledger.request_answers import slow_answer
    from query.requests import RequestFilter
    from query.slow import slow_requests, slow_rule
    from query.windows import resolve_window

    rule = slow_rule(threshold=threshold, percentile=percentile, excess=excess)
    settings = _settings(config, data=data)
    zone = _time_zone(settings, tz)
    now = _now(zone)
    span = resolve_window(window, now=now, time_zone=zone)
    source = _source(settings)
    only = RequestFilter(service, operation, model, status)
    found = slow_requests(source, span, rule, now=now, only=only, top=top)
    if not found.n:
        raise _no_requests(source, window_words(span))
    _emit(slow_answer(found), _choice(as_json, as_csv, parquet))
    _say_what_is_left_out(source)


@app.command()
def diagnose(
    request: Annotated[
        str, typer.Argument(help="The request: its number in 'gpuledger slow', its event, source or trace id.")
    ],
    tz: Zone = None,
    data: Data = None,
    config: Config = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    parquet: ParquetFile = None,
) -> None:
    """Show what went on while a request ran, compared with fast requests like it."""
    from gpuledger.request_answers import diagnosis_answer
    from query.diagnosis import diagnose as diagnose_request

    settings = _settings(config, data=data)
    source = _source(settings)
    found = diagnose_request(source, request, now=_now(_time_zone(settings, tz)))
    _emit(diagnosis_answer(found), _choice(as_json, as_csv, parquet))
    _say_what_is_left_out(source)


@app.command()
def metrics(
    search: Annotated[list[str] | None, typer.Argument(help="Words to look for.", show_default=False)] = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    parquet: ParquetFile = None,
) -> None:
    """List the metrics, with unit and meaning."""
    from gpuledger.output import rows_answer
    from query.describe import describe_metrics

    found = describe_metrics(" ".join(search or ()))
    if not found:
        raise NoDataError(f"No metric speaks of {' '.join(search or ())!r}", "list them all with 'gpuledger metrics'")
    rows = [{"metric": one.name, "unit": one.unit, "meaning": one.meaning} for one in found]
    _emit(rows_answer(rows, note=f"{len(rows)} metrics"), _choice(as_json, as_csv, parquet))


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT; the views are named after the kinds of events.")],
    window: Annotated[
        str | None,
        typer.Option("--window", "-w", help="Look only at files of this window.", show_default=False),
    ] = None,
    rows_max: Annotated[int | None, typer.Option("--rows-max", help="Most rows to give.", show_default=False)] = None,
    tz: Zone = None,
    data: Data = None,
    config: Config = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    parquet: ParquetFile = None,
) -> None:
    """Run one SELECT over the ledger."""
    from gpuledger.output import emit_table
    from query.ad_hoc import run_sql
    from query.sql_guard import referenced_kinds

    referenced_kinds(query)
    settings = _settings(config, data=data, query__sql_rows_max=rows_max)
    zone = _time_zone(settings, tz)
    span = _window(window, zone) if window else None
    source = _source(settings)
    found = run_sql(
        source,
        query,
        rows_max=settings.query.sql_rows_max,
        time_limit_s=settings.query.sql_time_limit_s,
        time_zone=zone,
        **({"start_us": span.start_us, "end_us": span.end_us} if span else {}),
    )
    if found.is_truncated:
        print(
            f"gpuledger: only the first {settings.query.sql_rows_max} rows; more with --rows-max",
            file=sys.stderr,
        )
    emit_table(found.table, _choice(as_json, as_csv, parquet))
    _say_what_is_left_out(source)


def _window(asked: str, zone: str) -> "Window":
    from query.windows import resolve_window

    return resolve_window(asked, now=_now(zone), time_zone=zone)


@app.command()
def export(
    kind: Annotated[str, typer.Argument(help="A kind of event, such as gpu_sample.")],
    window: WindowText = "1d",
    format_name: Annotated[
        str, typer.Option("--format", help="parquet, arrow, csv or json (one object a line).")
    ] = "parquet",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
    tz: Zone = None,
    data: Data = None,
    config: Config = None,
) -> None:
    """Write the events of one kind in a window to a file, by default KIND.FORMAT in this folder."""
    from query.export import FORMATS, SUFFIXES, export_events
    from query.figures import spelled

    chosen = next((one for one in FORMATS if one == format_name), None)
    if chosen is None:
        raise UsageError(f"There is no format {format_name!r}", f"give one of {', '.join(FORMATS)}")
    settings = _settings(config, data=data)
    zone = _time_zone(settings, tz)
    path = output or Path(f"{kind}{SUFFIXES[chosen]}")
    source = _source(settings)
    found = export_events(source, kind, _window(window, zone), format=chosen, path=path, overwrite=overwrite)
    _say_what_is_left_out(source)
    print(f"{found.path}: {found.event_count:,} events, {spelled(found.size_bytes, 'B')}")


@app.command("import")
def import_requests(
    files: Annotated[list[Path], typer.Argument(help="What 'vllm bench serve' saved (.json), or a .csv or .parquet.")],
    service: Annotated[
        str | None, typer.Option("--service", help="Which service answered, where a file does not say.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be stored.")] = False,
    tz: Zone = None,
    data: Data = None,
    config: Config = None,
) -> None:
    """Store the requests of files; what is there already is not stored again. Exit code 1 when rows were refused."""
    from gpuledger.importing import import_file

    settings = _settings(config, data=data)
    zone = _time_zone(settings, tz)
    source = _source(settings)
    is_clean = True
    for path in files:
        done = import_file(source, path, time_zone=zone, service=service, dry_run=dry_run)
        stored = f"{done.stored:,} requests {'would be stored' if dry_run else 'stored'}"
        print(f"{path}: {stored}, {done.known:,} there already, {len(done.refused):,} refused")
        for reason in done.refused[:10]:
            print(f"gpuledger: {reason}", file=sys.stderr)
        is_clean = is_clean and not done.refused
    if not is_clean:
        raise typer.Exit(1)


@app.command()
def seal(data: Data = None, config: Config = None) -> None:
    """Move the newest events from the head into Parquet now, instead of at the collector's next turn."""
    from store.sealing import seal as seal_ledger

    settings = _settings(config, data=data)
    _source(settings).close()
    done = seal_ledger(settings.data.absolute())
    print(f"{done.event_count:,} events sealed into {len(done.segments)} segments")


rollups_app = typer.Typer(help="Care for the rollups: what the samples were per minute and per hour.")
app.add_typer(rollups_app, name="rollups")


@rollups_app.command("update")
def rollups_update(data: Data = None, config: Config = None) -> None:
    """Bring the rollups up to the last closed hour now, instead of at the collector's next turn."""
    from store.rollups import update_rollups

    settings = _settings(config, data=data)
    _source(settings).close()
    _say_rolled(update_rollups(settings.data.absolute(), until_done=True), "made")


@rollups_app.command("rebuild")
def rollups_rebuild(data: Data = None, config: Config = None) -> None:
    """Make the rollups again from the events; hours whose events are gone stay as they are."""
    from store.rollups import rebuild_rollups

    settings = _settings(config, data=data)
    _source(settings).close()
    _say_rolled(rebuild_rollups(settings.data.absolute()), "made again")


def _say_rolled(done: "RollupResult", words: str) -> None:
    if not done.is_ours:
        raise GpuledgerError("Another process is making the rollups", "try again when it has ended")
    kept = f"; {done.hours_kept} kept as they were, their events are gone" if done.hours_kept else ""
    print(f"{done.hours_made + done.hours_added_to} hours {words} from {done.event_count:,} events{kept}")
    for path, reason in done.unreadable.items():
        print(f"gpuledger: {path} could not be read: {reason}", file=sys.stderr)
    if done.unreadable:
        raise typer.Exit(1)


@app.command()
def compact(
    everything: Annotated[
        bool, typer.Option("--all", help="Also what is not due: one file a kind and day is left.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be merged.")] = False,
    data: Data = None,
    config: Config = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    parquet: ParquetFile = None,
) -> None:
    """Merge small segments into larger ones now, instead of at the collector's next turn."""
    from gpuledger.care import MERGE_COLUMNS, MERGED_COLUMNS, compact_now, compactable
    from gpuledger.output import rows_answer
    from gpuledger.up import upkeep_settings

    settings = _settings(config, data=data)
    folder = settings.data.absolute()
    rows, note = (
        compactable(folder, everything=everything)
        if dry_run
        else compact_now(folder, upkeep_settings(settings), everything=everything)
    )
    columns = MERGE_COLUMNS if dry_run else MERGED_COLUMNS
    _emit(rows_answer(rows, columns=columns, note=note), _choice(as_json, as_csv, parquet))


@app.command()
def retain(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go, and why.")] = False,
    data: Data = None,
    config: Config = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    parquet: ParquetFile = None,
) -> None:
    """Remove what is too old or too much by the settings, instead of at the collector's next turn."""
    from gpuledger.care import REMOVAL_COLUMNS, retain_now
    from gpuledger.output import rows_answer
    from gpuledger.up import upkeep_settings

    settings = _settings(config, data=data)
    rows, note = retain_now(settings.data.absolute(), upkeep_settings(settings), dry_run=dry_run)
    _emit(rows_answer(rows, columns=REMOVAL_COLUMNS, note=note), _choice(as_json, as_csv, parquet))


@app.command()
def hold(
    window: Annotated[
        str | None,
        typer.Option("--window", "-w", help="The window to hold; without it, list them.", show_default=False),
    ] = None,
    why: Annotated[str, typer.Option("--why", help="What it is held for.", show_default=False)] = "",
    tz: Zone = None,
    data: Data = None,
    config: Config = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    parquet: ParquetFile = None,
) -> None:
    """Hold a window against retention, or list what is held."""
    from gpuledger.care import HOLD_COLUMNS, held_windows, hold_window
    from gpuledger.output import rows_answer, window_words

    settings = _settings(config, data=data)
    folder = settings.data.absolute()
    if window is None:
        rows = held_windows(folder)
        answer = rows_answer(rows, columns=HOLD_COLUMNS, note=f"{len(rows)} held windows")
        _emit(answer, _choice(as_json, as_csv, parquet))
        return
    span = _window(window, _time_zone(settings, tz))
    print(f"hold {hold_window(folder, span, why).id}: {window_words(span)}")


@app.command()
def release(
    number: Annotated[int, typer.Argument(help="The number that 'gpuledger hold' gave it.", metavar="HOLD")],
    data: Data = None,
    config: Config = None,
) -> None:
    """Release a held window: retention may take it again."""
    from gpuledger.care import release_window

    released = release_window(_settings(config, data=data).data.absolute(), number)
    print(f"hold {released.id} is released{f' ({released.why})' if released.why else ''}")


@app.command()
def pause(
    length: Annotated[str, typer.Option("--for", help="When it goes on by itself: 90s, 15m, 1h30m.")] = "15m",
    why: Annotated[str, typer.Option("--why", help="What for, for whoever wonders.", show_default=False)] = "",
    data: Data = None,
    config: Config = None,
) -> None:
    """Let go of the NVIDIA driver, so that a GPU can be reset or the driver replaced; the host is still recorded."""
    from gpuledger.pausing import pause_length_s, pause_recording

    length_s = pause_length_s(length)
    settings = _settings(config, data=data)
    interval_s = settings.collector.sample_interval_s
    print(pause_recording(_source(settings), length_s=length_s, why=why, interval_s=interval_s))


@app.command()
def resume(data: Data = None, config: Config = None) -> None:
    """End a pause before its time."""
    from gpuledger.pausing import resume_recording

    settings = _settings(config, data=data)
    print(resume_recording(_source(settings), interval_s=settings.collector.sample_interval_s))


@app.command()
def verify(
    repair: Annotated[
        bool, typer.Option("--repair", help="Set aside what is damaged, take in what the catalogue lost.")
    ] = False,
    data: Data = None,
    config: Config = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    parquet: ParquetFile = None,
) -> None:
    """Read every segment and the head to their last byte; exit code 1 when something was wrong."""
    from gpuledger.integrity import verify_answer
    from store.quarantine import here_and_now
    from store.verification import verify as verify_ledger

    folder = _settings(config, data=data).data.absolute()
    found = verify_ledger(folder, here_and_now(), repair=repair)
    _emit(verify_answer(found, repair=repair), _choice(as_json, as_csv, parquet))
    if not found.is_sound:
        raise typer.Exit(1)


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="The backup's folder: new, or with an earlier backup of this ledger.")],
    data: Data = None,
    config: Config = None,
) -> None:
    """Copy the ledger as it is at one moment, beside whatever records; a second time only what is new."""
    from gpuledger.integrity import backup_line
    from store.backup import take_backup
    from store.quarantine import here_and_now

    done = take_backup(_settings(config, data=data).data.absolute(), target.absolute(), here_and_now())
    print(backup_line(done, target))
    for reason in done.backup.damaged:
        print(f"gpuledger: not in the backup: {reason}", file=sys.stderr)
    if done.backup.damaged:
        raise typer.Exit(1)


@app.command()
def restore(
    source: Annotated[Path, typer.Argument(help="A folder that 'gpuledger backup' wrote.", metavar="BACKUP")],
    data: Data = None,
    config: Config = None,
) -> None:
    """Make a ledger in a new or empty folder out of a backup; it keeps its identity."""
    from gpuledger.integrity import restore_line
    from store.backup import restore_backup
    from store.quarantine import here_and_now

    folder = _settings(config, data=data).data.absolute()
    print(restore_line(restore_backup(source.absolute(), folder, here_and_now()), folder))


@app.command()
def init(
    client: Annotated[str, typer.Option("--client", help="The MCP client: claude-code.")],
    scope: Annotated[str, typer.Option("--scope", help="user: for every project; project: for this folder.")] = "user",
    data: Data = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
) -> None:
    """Enter gpuledger into an MCP client's settings; the file as it was is kept as .bak."""
    from gpuledger.clients import enter_server

    done = enter_server(client, scope=scope, data=data, home=Path.home(), folder=Path.cwd(), dry_run=dry_run)
    if not done.difference:
        print(f"{done.path}: gpuledger is entered already")
        return
    print(done.difference, end="")
    kept = f" (as it was: {done.backup})" if done.backup else ""
    print(f"{done.path}: {'would be' if dry_run else 'was'} written{kept}")


@app.command()
def config(
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value came from.")] = False,
    config: Config = None,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    parquet: ParquetFile = None,
) -> None:
    """Show the settings in force."""
    from gpuledger.output import rows_answer
    from gpuledger.settings import load_origins

    rows = [
        {"setting": one.name, "value": str(one.value), **({"origin": one.origin} if origin else {})}
        for one in load_origins(config=config)
    ]
    _emit(rows_answer(rows, note=f"{len(rows)} settings"), _choice(as_json, as_csv, parquet))


@app.command(hidden=True)
def docs(
    folder: Annotated[Path, typer.Argument(help="The folder of the reference pages.")] = Path("docs/reference"),
    shapes: Annotated[Path, typer.Argument(help="The published shapes.")] = Path("migrations/schema.lock.json"),
) -> None:
    """Write the generated reference pages anew, and enter new columns and kinds into the published shapes."""
    from gpuledger.pages import reference_pages
    from store.shapes import extended_lock, lock_text, locked_shapes

    shapes.write_text(lock_text(extended_lock(locked_shapes())))
    print(shapes)
    for name, text in reference_pages().items():
        (folder / name).write_text(text)
        print(folder / name)
