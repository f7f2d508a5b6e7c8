"""Commands that take events out, as SQL or as files, and bring requests in."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from gpuledger.commands.asking import Asked, WindowText, answering
from store.errors import UsageError

app = typer.Typer()


@answering(app)
def sql(
    asked: Asked,
    query: Annotated[str, typer.Argument(help="One SELECT; the views are named after the kinds of events.")],
    window: Annotated[
        str | None,
        typer.Option("--window", "-w", help="Look only at files of this window.", show_default=False),
    ] = None,
    rows_max: Annotated[int | None, typer.Option("--rows-max", help="Most rows to give.", show_default=False)] = None,
) -> None:
    """Run one SELECT over the ledger."""
    from gpuledger.answers.output import emit_table
    from query.ad_hoc import run_sql
    from query.sandbox.guard import referenced_kinds
    from store.snapshot import END_OF_TIME_US

    referenced_kinds(query)
    asked.flags["query__sql_rows_max"] = rows_max
    span = asked.window(window) if window else None
    found = run_sql(
        asked.source,
        query,
        rows_max=asked.settings.query.sql_rows_max,
        time_limit_s=asked.settings.query.sql_time_limit_s,
        time_zone=asked.time_zone,
        start_us=span.start_us if span else 0,
        end_us=span.end_us if span else END_OF_TIME_US,
    )
    if found.is_truncated:
        print(
            f"gpuledger: only the first {asked.settings.query.sql_rows_max} rows; more with --rows-max",
            file=sys.stderr,
        )
    emit_table(found.table, asked.choice)
    asked.say_what_is_left_out()


@answering(app, with_forms=False)
def export(
    asked: Asked,
    kind: Annotated[str, typer.Argument(help="A kind of event, such as gpu_sample.", show_default=False)] = "",
    window: WindowText = "1d",
    query: Annotated[
        str, typer.Option("--sql", help="One SELECT, whose answer is written instead.", show_default=False)
    ] = "",
    format_name: Annotated[
        str, typer.Option("--format", help="parquet, arrow, csv or json (one object a line).")
    ] = "parquet",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file if it is there.")] = False,
) -> None:
    """Write the events of one kind in a window, or a query's answer, to a file: KIND.FORMAT or answer.FORMAT here."""
    from query.export import FORMATS, SUFFIXES, export_events, export_query
    from query.figures import spelled

    chosen = next((one for one in FORMATS if one == format_name), None)
    if chosen is None:
        raise UsageError(f"There is no format {format_name!r}", f"give one of {', '.join(FORMATS)}")
    if bool(kind) == bool(query):
        raise UsageError("An export is of one kind of event or of one query", "give KIND, or --sql 'SELECT …'")
    path = output or Path(f"{kind or 'answer'}{SUFFIXES[chosen]}")
    if query:
        time_limit_s = asked.settings.query.sql_time_limit_s
        found = export_query(
            asked.source,
            query,
            format=chosen,
            path=path,
            time_limit_s=time_limit_s,
            time_zone=asked.time_zone,
            overwrite=overwrite,
        )
    else:
        found = export_events(asked.source, kind, asked.window(window), format=chosen, path=path, overwrite=overwrite)
    asked.say_what_is_left_out()
    print(f"{found.path}: {found.event_count:,} {'rows' if query else 'events'}, {spelled(found.size_bytes, 'B')}")


@answering(app, with_forms=False)
def annotate(
    asked: Asked,
    text: Annotated[str, typer.Argument(help="What happened, at most 2,000 characters.")],
    at: Annotated[
        str | None, typer.Option("--at", help="When: 14:30, 2026-11-22 14:30; now where left out.", show_default=False)
    ] = None,
    window: Annotated[
        str | None, typer.Option("--window", "-w", help="Of what time it is, if not of an instant.", show_default=False)
    ] = None,
    tags: Annotated[
        list[str] | None, typer.Option("--tag", help="A word to find it by; may be given again.", show_default=False)
    ] = None,
    author: Annotated[str | None, typer.Option("--author", help="Who says so.", show_default=False)] = None,
) -> None:
    """Pin a note to a time: a deployment, an incident, a change of cooling."""
    from store.annotating import Annotation, annotate

    if at and window:
        raise UsageError("A note is about an instant or about a time", "give --at or --window")
    span = asked.window(window or f"since {at}") if at or window else None
    start_us = span.start_us if span else None
    end_us = span.end_us if span and window else start_us
    seq = annotate(asked.folder, Annotation(text, start_us, end_us, tags or (), author))
    when = asked.now if span is None else span.start
    print(f"pinned to {when.astimezone(asked.now.tzinfo).isoformat(' ', 'seconds')}, seq {seq}")


@answering(app, "import", with_forms=False)
def import_requests(
    asked: Asked,
    files: Annotated[list[Path], typer.Argument(help="What 'vllm bench serve' saved (.json), or a .csv or .parquet.")],
    service: Annotated[
        str | None, typer.Option("--service", help="Which service answered, where a file does not say.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be stored.")] = False,
) -> None:
    """Store the requests of files; what is there already is not stored again. Exit code 1 when rows were refused."""
    from gpuledger.importing import import_file

    is_clean = True
    for path in files:
        done = import_file(asked.source, path, time_zone=asked.time_zone, service=service, dry_run=dry_run)
        stored = f"{done.stored:,} requests {'would be stored' if dry_run else 'stored'}"
        print(f"{path}: {stored}, {done.known:,} there already, {len(done.refused):,} refused")
        for reason in done.refused[:10]:
            print(f"gpuledger: {reason}", file=sys.stderr)
        is_clean = is_clean and not done.refused
    if not is_clean:
        raise typer.Exit(1)
