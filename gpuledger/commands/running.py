"""Commands that run the recorder and the MCP server."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from gpuledger import __version__
from gpuledger.commands.asking import Config, Data, LogLevel, opened, settings_of, time_zone_of
from store.errors import UsageError

app = typer.Typer()

Source = Annotated[
    str | None, typer.Option("--source", help="nvml, demo, or replay:FILE for a recording.", show_default=False)
]


@app.command()
def up(
    data: Data = None,
    source: Source = None,
    config: Config = None,
    log_level: LogLevel = None,
) -> None:
    """Run the collector and the MCP server over HTTP in the foreground."""
    from gpuledger.up import Supervisor, collector_command, configure_logging, greeting, mcp_http_command

    settings = settings_of(config, data=data, collector__source=source, log_level=log_level)
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

    run_collector(settings_of(config, data=data, collector__source=source, log_level=log_level))


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
    from query.export import ExportFolder

    settings = settings_of(
        config, data=data, mcp__host=host, mcp__port=port, mcp__insecure=insecure, log_level=log_level
    )
    configure_logging(settings.log_level)
    server = ServerSettings(
        folder=settings.data.absolute(),
        time_zone=time_zone_of(settings),
        version=__version__,
        sql_rows_max=settings.query.sql_rows_max,
        sql_time_limit_s=settings.query.sql_time_limit_s,
        export=ExportFolder(settings.export_folder, settings.mcp.export_bytes_max)
        if settings.mcp.allow_export
        else None,
        allows_annotations=settings.mcp.allow_annotations,
    )
    if http:
        from gpuledger.mcp_metrics import metrics_route
        from gpuledger.prometheus_api import routes
        from query.reading.local_source import LocalSource

        face = http_settings(settings.mcp)
        listener = bound_socket(face.host, settings.mcp.port, "mcp.port")
        source = LocalSource(server.folder)
        serve_http(server, face, listener, beside=[*routes(source), metrics_route(source, __version__)])
    else:
        serve_stdio(server)


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
def pause(
    length: Annotated[str, typer.Option("--for", help="When it goes on by itself: 90s, 15m, 1h30m.")] = "15m",
    why: Annotated[str, typer.Option("--why", help="What for, for whoever wonders.", show_default=False)] = "",
    data: Data = None,
    config: Config = None,
) -> None:
    """Let go of the NVIDIA driver, so that a GPU can be reset or the driver replaced; the host is still recorded."""
    from gpuledger.pausing import pause_length_s, pause_recording

    length_s = pause_length_s(length)
    settings = settings_of(config, data=data)
    interval_s = settings.collector.sample_interval_s
    print(pause_recording(opened(settings), length_s=length_s, why=why, interval_s=interval_s))


@app.command()
def resume(data: Data = None, config: Config = None) -> None:
    """End a pause before its time."""
    from gpuledger.pausing import resume_recording

    settings = settings_of(config, data=data)
    print(resume_recording(opened(settings), interval_s=settings.collector.sample_interval_s))
