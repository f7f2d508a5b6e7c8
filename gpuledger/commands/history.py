"""Commands that answer how a metric went, what of it is unusual, what changed, and where it goes."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from gpuledger.commands.asking import Asked, Gpus, WindowText, answering
from store.errors import NoDataError

if TYPE_CHECKING:
    from query.history.trends import Trend
    from query.reading.local_source import LocalSource
    from query.windows import Window

app = typer.Typer()

Metrics = Annotated[
    list[str] | None,
    typer.Argument(help="Metrics, such as gpu.power_watts; those that matter most where left out.", show_default=False),
]


@answering(app)
def trend(
    asked: Asked,
    metric: Annotated[str, typer.Argument(help="A metric, such as gpu.utilization_percent.")],
    window: WindowText = "1h",
    gpu: Gpus = None,
) -> None:
    """Show how a metric went over a window: min, avg, p50, p95, max, last, slope and a sparkline."""
    from gpuledger.answers.output import trend_answer
    from query.catalogue import find_metric
    from query.history.trends import trend as trend_of

    find_metric(metric)
    span = asked.window(window)
    found = trend_of(asked.source, metric, span, now=asked.now, gpus=tuple(gpu or ()))
    if not found.series:
        raise _no_values(asked.source, found)
    asked.emit(trend_answer(found))


def _no_values(source: "LocalSource", found: "Trend") -> NoDataError:
    from gpuledger.answers.output import window_words
    from query.present.absence import why_no_values

    return NoDataError(f"There is no {found.metric} in {window_words(found.window)}", why_no_values(source, found))


@answering(app)
def anomalies(
    asked: Asked,
    metric: Metrics = None,
    window: WindowText = "1d",
    past: Annotated[str, typer.Option("--past", help="How far the days reach that it is compared with.")] = "28d",
    threshold: Annotated[
        float, typer.Option("--threshold", min=2, max=1000, help="From how many robust deviations on it is unusual.")
    ] = 5.0,
    gpu: Gpus = None,
) -> None:
    """Show when a metric was not what it usually is at that hour of the day."""
    from gpuledger.answers.history import anomalies_answer
    from query.history.anomalies import find_anomalies
    from query.history.steps import usual_metrics

    span, look_back = asked.window(window), _length(past)
    wanted = metric or usual_metrics(gpus=gpu or ())
    found = find_anomalies(asked.source, wanted, span, gpus=tuple(gpu or ()), threshold=threshold, look_back=look_back)
    if not found.judged:
        raise _nothing(wanted, span)
    asked.emit(anomalies_answer(found))


@answering(app)
def compare(
    asked: Asked,
    metric: Annotated[
        list[str] | None,
        typer.Argument(help="Metrics; every one that both windows have where left out.", show_default=False),
    ] = None,
    window: WindowText = "1h",
    reference: Annotated[
        str | None,
        typer.Option("--with", help="The window to compare with; the same time a day before where left out."),
    ] = None,
    top: Annotated[
        int, typer.Option("--top", min=1, max=10_000, help="How many to show, the most certain first.")
    ] = 20,
    gpu: Gpus = None,
) -> None:
    """Show what is different in a window from another: by how much, and how certain that is."""
    from gpuledger.answers.history import comparison_answer
    from query.history.comparison import compare_windows
    from query.history.steps import day_before

    span = asked.window(window)
    other = asked.window(reference) if reference else day_before(span)
    found = compare_windows(asked.source, other, span, tuple(metric or ()), gpus=tuple(gpu or ()))
    if not found.n:
        words = "; ".join(found.limits[1:]) or "'gpuledger status' says what is recorded"
        raise NoDataError("The two windows have no series in common that can be compared", words)
    asked.emit(comparison_answer(found, top=top))


@answering(app)
def changes(
    asked: Asked,
    metric: Metrics = None,
    window: WindowText = "7d",
    span: Annotated[str, typer.Option("--span", help="How long a time before and after is compared.")] = "1d",
    top: Annotated[int, typer.Option("--top", min=1, max=100, help="How many changes, the newest first.")] = 5,
    gpu: Gpus = None,
) -> None:
    """Show what changed - driver, limits, modes, recorder, notes - and what was different after it."""
    from gpuledger.answers.history import changes_answer
    from query.history.changes import change_effects
    from query.history.steps import usual_metrics

    within, length = asked.window(window), _length(span)
    wanted = metric or usual_metrics(gpus=gpu or ())
    found = change_effects(asked.source, wanted, within, span=length, gpus=tuple(gpu or ()), top=top)
    asked.emit(changes_answer(found))


@answering(app)
def forecast(
    asked: Asked,
    metric: Annotated[str, typer.Argument(help="A metric, such as gpu.memory_used_bytes.")],
    window: WindowText = "14d",
    ahead: Annotated[
        str | None,
        typer.Option("--ahead", help="How far: 12h, 3d. A third of the window at most.", show_default=False),
    ] = None,
    limit: Annotated[
        str | None,
        typer.Option(
            "--limit",
            help="Say when it meets this: 70GiB, 85, 500MB. Where left out it is the memory that there is, "
            "or the free space at which the recorder stops writing samples.",
            show_default=False,
        ),
    ] = None,
    gpu: Gpus = None,
) -> None:
    """Show where a metric goes, how far off that may be, and when it meets a limit."""
    from gpuledger.answers.history import forecast_answer
    from query.catalogue import find_metric
    from query.history.forecast import forecast as forecast_of
    from query.history.forecast import totals
    from query.lengths import length_s
    from query.quantities import quantity

    wanted = find_metric(metric)
    span = asked.window(window)
    ahead_s = length_s(ahead) if ahead else None
    if limit:
        met: float | Mapping[str, float] | None = quantity(limit, wanted.unit)
    elif wanted.name == "ledger.filesystem_free_bytes":
        met = float(asked.settings.collector.low_space_bytes)
    else:
        met = totals(asked.source, wanted.name, span)
    found = forecast_of(asked.source, wanted.name, span, ahead_s=ahead_s, limit=met, gpus=tuple(gpu or ()))
    if not found.series:
        raise _nothing([wanted.name], span)
    asked.emit(forecast_answer(found))


def _length(text: str) -> timedelta:
    from query.lengths import length_s

    return timedelta(seconds=length_s(text))


def _nothing(metrics: Sequence[str], window: "Window") -> NoDataError:
    from gpuledger.answers.output import window_words

    return NoDataError(
        f"There is no {' and no '.join(metrics[:3])} in {window_words(window)}",
        "'gpuledger status' says what is recorded",
    )
