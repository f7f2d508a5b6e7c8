"""Commands about requests: how many and how long, which were slow, and why."""

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from gpuledger.commands.asking import Asked, WindowText, answering
from store.errors import NoDataError, UsageError

if TYPE_CHECKING:
    from query.reading.local_source import LocalSource

app = typer.Typer()


Service = Annotated[str | None, typer.Option("--service", help="Only of this service.", show_default=False)]
Operation = Annotated[str | None, typer.Option("--operation", help="Only of this operation.", show_default=False)]
Model = Annotated[str | None, typer.Option("--model", help="Only of this model.", show_default=False)]
Status = Annotated[
    str | None, typer.Option("--status", help="Only ok, error, cancelled, timeout or rejected.", show_default=False)
]
GroupedBy = Annotated[
    list[str] | None,
    typer.Option(
        "--by",
        help="service, operation, model or status; may be given again; none for all together. "
        "Operation and model where left out.",
        show_default=False,
    ),
]


def grouping(by: list[str] | None) -> list[str]:
    """The columns that `--by` names."""
    return [name for name in by if name != "none"] if by else ["operation", "model"]


@answering(app)
def requests(
    asked: Asked,
    window: WindowText = "1h",
    by: GroupedBy = None,
    step: Annotated[
        str | None, typer.Option("--step", help="Also by steps of time: 5m, 1h, 1d.", show_default=False)
    ] = None,
    service: Service = None,
    operation: Operation = None,
    model: Model = None,
    status: Status = None,
) -> None:
    """Show how many requests there were, how many failed and how long they took."""
    from gpuledger.answers.output import window_words
    from gpuledger.answers.requests import requests_answer
    from query.lengths import step_s
    from query.requests.summary import RequestFilter, summarize_requests

    span = asked.window(window)
    steps_of_s = step_s(step) if step else None
    only = RequestFilter(service, operation, model, status)
    found = summarize_requests(asked.source, span, now=asked.now, by=grouping(by), only=only, step_s=steps_of_s)
    if not found.n:
        raise _no_requests(asked.source, window_words(span))
    asked.emit(requests_answer(found))


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


@answering(app)
def slow(
    asked: Asked,
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
) -> None:
    """Show the requests that were slow: by a threshold, by a percentile of their own kind, or for their tokens."""
    from gpuledger.answers.output import window_words
    from gpuledger.answers.requests import slow_answer
    from query.requests.slow import slow_requests, slow_rule
    from query.requests.summary import RequestFilter

    rule = slow_rule(threshold=threshold, percentile=percentile, excess=excess)
    span = asked.window(window)
    only = RequestFilter(service, operation, model, status)
    found = slow_requests(asked.source, span, rule, now=asked.now, only=only, top=top)
    if not found.n:
        raise _no_requests(asked.source, window_words(span))
    asked.emit(slow_answer(found))


@answering(app)
def diagnose(
    asked: Asked,
    request: Annotated[
        str | None,
        typer.Argument(
            help="The request: its number in 'gpuledger slow', its event, source or trace id.", show_default=False
        ),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option("--window", "-w", help="In place of a request: 14:00-14:30, 'last hour'.", show_default=False),
    ] = None,
    service: Service = None,
    operation: Operation = None,
    model: Model = None,
) -> None:
    """Show what went on while a request ran, or in a window, compared with when requests like these were fast."""
    from gpuledger.answers.requests import diagnosis_answer, window_diagnosis_answer
    from query.requests.diagnosis import diagnose as diagnose_request
    from query.requests.diagnosis import diagnose_window
    from query.requests.summary import RequestFilter

    only = RequestFilter(service, operation, model)
    if window is not None and request is None:
        found = diagnose_window(asked.source, asked.window(window), now=asked.now, only=only)
        asked.emit(window_diagnosis_answer(found))
    elif request is not None and window is None and not only.given:
        asked.emit(diagnosis_answer(diagnose_request(asked.source, request, now=asked.now)))
    else:
        raise UsageError(
            "One thing is diagnosed at a time", "give a request, or --window with --service, --operation and --model"
        )
