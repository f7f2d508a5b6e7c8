"""How many requests there were, and how long they took: by service, operation, model and status, over time.

Windows of up to six hours are answered from every request, and percentiles are exact. Longer ones are answered from the
cells of the rollups (`query.requests.cells`) where they are there and the step is whole hours: percentiles within 1 %.

The mean concurrency is Little's law, L = λ · W (Little, "A proof for the queuing formula L = λW", Operations Research
9, 1961): the durations of what finished in the window, added up, divided by its length.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from query.analysis import Analysis
from query.engine import Engine, Source, in_window, sql_text
from query.errors import GroupingError
from query.history.recorded import recorded_share
from query.reading.resolutions import RAW_UPTO_S, Resolution
from query.windows import Window
from store.errors import did_you_mean

GROUPINGS = ("service", "operation", "model", "status")
MEASURES: Mapping[str, str] = {
    "duration": "duration_seconds",
    "queue": "queue_seconds",
    "time_to_first_token": "time_to_first_token_seconds",
    "time_per_output_token": "time_per_output_token_seconds",
}
SHARES: Mapping[str, float] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
FAILED = ("error", "timeout", "rejected")
STEPS_MAX = 2000


@dataclass(frozen=True, slots=True)
class RequestFilter:
    """Which requests are asked for; None for any."""

    service: str | None = None
    operation: str | None = None
    model: str | None = None
    status: str | None = None

    @property
    def given(self) -> dict[str, str]:
        return {name: value for name in GROUPINGS if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Spread:
    """How long something took, in seconds, over the `n` requests that say it."""

    n: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class RequestGroup:
    """Requests of one group, in one step where steps were asked for.

    Args:
        service, operation, model, status: What they have in common; None where it was not asked for or is not known.
        begins_at: Beginning of the step, aligned to the epoch, so the first may begin before the window; None where no
            step was asked for.
        n: How many finished.
        per_second: The same divided by the time.
        concurrency_mean: How many were in progress, on average.
        error_ratio: Share that ended as error, timeout or rejected.
        output_tokens_per_second: Tokens generated, divided by the time; None where no request says them.
        duration, queue, time_to_first_token, time_per_output_token: None where no request says it.
    """

    service: str | None
    operation: str | None
    model: str | None
    status: str | None
    begins_at: datetime | None
    n: int
    per_second: float
    concurrency_mean: float
    error_ratio: float
    output_tokens_per_second: float | None
    duration: Spread | None
    queue: Spread | None
    time_to_first_token: Spread | None
    time_per_output_token: Spread | None


@dataclass(frozen=True, slots=True)
class RequestSummary(Analysis):
    """Requests by group.

    Args:
        window: The window that was asked for, resolved; a request belongs to it that finished in it.
        coverage: Share of it in which the collector was recording.
        n: How many requests there were.
        resolution: From what it was answered; see `query.reading.resolutions`.
        method: The same in words.
        by: By what the requests are grouped.
        step_s: Width of a step; None where it is one.
        groups: Those there are, in order of their names and then of time.
    """

    resolution: Resolution
    by: tuple[str, ...]
    step_s: int | None
    groups: tuple[RequestGroup, ...]


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """One group in one step, before it is put against the time. `key` has the values of `by`."""

    key: tuple[str | None, ...]
    bucket: int
    n: int
    failed: int
    output_tokens: float | None
    spreads: Mapping[str, Spread | None]


def summarize_requests(
    source: Source,
    window: Window,
    *,
    now: datetime,
    by: Sequence[str] = ("operation", "model"),
    only: RequestFilter | None = None,
    step_s: int | None = None,
    measures: Sequence[str] = tuple(MEASURES),
) -> RequestSummary:
    """How many requests finished in `window` and how long they took.

    Args:
        source: Where the events are.
        window: The time asked about.
        now: The time of the question.
        by: Some of `GROUPINGS`; one group for all where empty.
        only: Which requests.
        step_s: Width of the steps; one step where None.
        measures: Some of `MEASURES`: from cells only these are told, and the duration.

    Raises:
        GroupingError: Something to group by that there is not, or too many steps.
    """
    _check(window, by, step_s)
    only = only or RequestFilter()
    figures, resolution = _figures(source, window, tuple(by), only, step_s, measures)
    groups = tuple(_group(one, tuple(by), window, step_s) for one in figures)
    return RequestSummary(
        window=window,
        coverage=recorded_share(source, window, now=now),
        n=sum(one.n for one in groups),
        resolution=resolution,
        method="every request" if resolution == "raw" else f"cells per {resolution}, percentiles within 1 %",
        limits=_limits(resolution),
        by=tuple(by),
        step_s=step_s,
        groups=groups,
    )


def _check(window: Window, by: Sequence[str], step_s: int | None) -> None:
    for name in by:
        if name not in GROUPINGS:
            hint = did_you_mean(name, GROUPINGS, f"give some of {', '.join(GROUPINGS)}")
            raise GroupingError(f"Requests are not grouped by {name!r}", hint)
    if step_s is not None and window.seconds / step_s > STEPS_MAX:
        raise GroupingError(f"This window has more than {STEPS_MAX:,} steps of {step_s} s", "give a longer step")


def _limits(resolution: Resolution) -> tuple[str, ...]:
    always = "counts what the ledger was told of: a request that no source reported is not in it"
    if resolution == "raw":
        return (always,)
    widened = (
        "the edges of the window are whole minutes and those of percentiles whole hours" if resolution == "hour" else ""
    )
    no_duration = "a request without a duration is not counted"
    return tuple(text for text in (always, no_duration, widened) if text)


def _figures(
    source: Source,
    window: Window,
    by: tuple[str, ...],
    only: RequestFilter,
    step_s: int | None,
    measures: Sequence[str],
) -> tuple[list[GroupFigures], Resolution]:
    from query.requests.cells import figures_from_cells  # noqa: PLC0415 - short windows need no cells

    if window.seconds > RAW_UPTO_S and (step_s is None or step_s % 3600 == 0):
        found = figures_from_cells(source, window, by, only, step_s, measures)
        if found is not None:
            return found
    return _asked(source, window, by, only, step_s), "raw"


def _asked(
    source: Source, window: Window, by: tuple[str, ...], only: RequestFilter, step_s: int | None
) -> list[GroupFigures]:
    with source.engine(["request"], start_us=window.start_us, end_us=window.end_us) as engine:
        text = sql_text("requests").format(
            groups=", ".join(by) or "'' as everything",
            bucket=engine.bucket("observed_at", engine.parameter("step", "int")),
            spreads=", ".join(_spread_columns(engine)),
            relation=requests_with_model(engine),
            in_window=in_window(engine),
            filter=filter_text(engine, only),
        )
        edges = {"start": window.start_us, "end": window.end_us}
        rows = engine.query(text, **edges, **only.given, step=step_s or _ONE_BUCKET_S).to_pylist()
    return [_of_row(row, by) for row in rows]


_ONE_BUCKET_S = 10**10  # three centuries from the epoch on are one bucket


def requests_with_model(engine: Engine) -> str:
    """The requests, with the model that answered, or where that is not known the one that was asked for."""
    return f"(select *, coalesce(response_model, request_model) as model from {engine.relation('request')}) as asked"


def filter_text(engine: Engine, only: RequestFilter) -> str:
    """The condition that a request is asked for; the values are bound by the filter's names."""
    conditions = [f"{name} = {engine.parameter(name, 'text')}" for name in only.given]
    return " and ".join(conditions) or "true"


def _spread_columns(engine: Engine) -> list[str]:
    columns = []
    for measure, column in MEASURES.items():
        columns += [
            f"count({column}) as {measure}_n",
            f"avg({column}) as {measure}_mean",
            f"max({column}) as {measure}_max",
        ]
        columns += [f"{engine.quantile(column, share)} as {measure}_{name}" for name, share in SHARES.items()]
    return columns


def _of_row(row: Mapping[str, Any], by: tuple[str, ...]) -> GroupFigures:
    return GroupFigures(
        key=tuple(row[name] for name in by),
        bucket=row["bucket"],
        n=row["n"],
        failed=row["failed"],
        output_tokens=None if row["output_tokens"] is None else float(row["output_tokens"]),
        spreads={measure: _spread(row, measure) for measure in MEASURES},
    )


def _spread(row: Mapping[str, Any], measure: str) -> Spread | None:
    if not row[f"{measure}_n"]:
        return None
    return Spread(**{name: row[f"{measure}_{name}"] for name in Spread.__slots__})


def _group(one: GroupFigures, by: tuple[str, ...], window: Window, step_s: int | None) -> RequestGroup:
    seconds = _seconds(one.bucket, window, step_s)
    duration = one.spreads["duration"]
    names = dict(zip(by, one.key, strict=True))
    return RequestGroup(
        service=names.get("service"),
        operation=names.get("operation"),
        model=names.get("model"),
        status=names.get("status"),
        begins_at=datetime.fromtimestamp(one.bucket * step_s, window.start.tzinfo) if step_s else None,
        n=one.n,
        per_second=one.n / seconds,
        concurrency_mean=duration.n * duration.mean / seconds if duration else 0.0,
        error_ratio=one.failed / one.n,
        output_tokens_per_second=None if one.output_tokens is None else one.output_tokens / seconds,
        duration=duration,
        queue=one.spreads["queue"],
        time_to_first_token=one.spreads["time_to_first_token"],
        time_per_output_token=one.spreads["time_per_output_token"],
    )


def _seconds(bucket: int, window: Window, step_s: int | None) -> float:
    """How much of a step lies in the window."""
    if step_s is None:
        return window.seconds
    edges = (bucket * step_s * 1_000_000, (bucket + 1) * step_s * 1_000_000)
    return (min(window.end_us, edges[1]) - max(window.start_us, edges[0])) / 1e6
