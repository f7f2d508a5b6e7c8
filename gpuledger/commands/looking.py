"""Commands that look at the recorder: what it records, what is wrong, what its settings and metrics are."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from gpuledger.commands.asking import AsJson, Asked, Config, Data, answering, now_in
from store.errors import NoDataError

app = typer.Typer()


@answering(app)
def status(asked: Asked) -> None:
    """Show what is recorded, how fresh and how large, what is absent and why; exit code 5 when nothing records."""
    from gpuledger.answers.output import status_answer
    from query.present.live import live_state
    from query.present.status import ledger_status

    live = live_state(asked.source, now=asked.now)
    found = ledger_status(asked.source, now=asked.now, live=live)
    asked.emit(status_answer(found, live))
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
    from gpuledger.answers.output import json_text
    from gpuledger.doctor.bundle import check_name, write_bundle
    from gpuledger.doctor.examination import examine, here

    if bundle:
        check_name(bundle)
    report = examine({"data": data} if data else {}, config, now=now_in("UTC"), where=here())
    print(json_text(report.value()) if as_json else report.text(), end="\n" if as_json else "")
    if bundle:
        names = write_bundle(bundle, report, home=Path.home())
        print(f"{bundle}: {', '.join(names)}; look through it before you attach it", file=sys.stderr)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


@answering(app, with_data=False, with_zone=False)
def metrics(
    asked: Asked,
    search: Annotated[list[str] | None, typer.Argument(help="Words to look for.", show_default=False)] = None,
) -> None:
    """List the metrics, with unit and meaning."""
    from gpuledger.answers.output import rows_answer
    from query.describe import describe_metrics

    found = describe_metrics(" ".join(search or ()))
    if not found:
        raise NoDataError(f"No metric speaks of {' '.join(search or ())!r}", "list them all with 'gpuledger metrics'")
    rows = [{"metric": one.name, "unit": one.unit, "meaning": one.meaning} for one in found]
    asked.emit(rows_answer(rows, note=f"{len(rows)} metrics"))


@answering(app, with_data=False, with_zone=False)
def config(
    asked: Asked,
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value came from.")] = False,
) -> None:
    """Show the settings in force."""
    from gpuledger.answers.output import rows_answer
    from gpuledger.settings import load_origins, setting_words

    rows = [
        {"setting": one.name, "value": words, **({"origin": one.origin} if origin else {})}
        for one in load_origins(config=asked.config)
        for words in setting_words(one.value)
    ]
    asked.emit(rows_answer(rows, note=f"{len({row['setting'] for row in rows})} settings"))


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
