"""Slow requests, by one of three rules.

| rule | a request is slow that took | for |
|---|---|---|
| `threshold` | at least so long | a promise made to somebody |
| `percentile` | at least that percentile of its own operation and model in this window | "the slowest 1 %" |
| `excess` | more than its tokens explain: `EXCESS_SCALES` times the noise above a robust line | what nobody asked for |

A long answer takes long: `excess` alone does not call it slow. The line, of each operation and model, is that of
`query.statistics.robust_line`.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import pyarrow as pa

from query.analysis import Analysis
from query.engine import Engine, Source, in_window, sql_text
from query.errors import GroupingError
from query.history.recorded import recorded_share
from query.lengths import length_s
from query.requests.duration_ranks import Durations, Ranked, furthest_beyond, read_durations
from query.requests.summary import RequestFilter, RequestSummary, filter_text, requests_with_model, summarize_requests
from query.statistics.robust_line import RobustLine, fit_robust_line
from query.windows import Window

Rule = Literal["threshold", "percentile", "excess"]
PERCENTILES: Mapping[float, str] = {50: "p50", 90: "p90", 95: "p95", 99: "p99"}
EXCESS_SCALES = 4.0  # normal noise exceeds that once in 30,000 requests
FITTED_MAX = 200_000  # requests that lines are fitted to, all groups together
JUDGED_MIN = 20  # the p99 of fewer is one request
GROUPS_MAX = 200  # operations and models that are judged apart: the largest


@dataclass(frozen=True, slots=True)
class SlowRule:
    """By which rule, with its number.

    Args:
        rule: Which.
        threshold_seconds: Of `threshold`.
        percentile: Of `percentile`: one of `PERCENTILES`.
    """

    rule: Rule = "percentile"
    threshold_seconds: float = 0.0
    percentile: float = 99


@dataclass(frozen=True, slots=True)
class JudgedGroup:
    """By what the requests of one operation and model were judged.

    Args:
        operation, model: Which.
        n: From how many requests that is known.
        limit_seconds: From when on one is slow; None where that depends on its tokens.
        line: On what it depends then.
    """

    operation: str | None
    model: str | None
    n: int
    limit_seconds: float | None
    line: RobustLine | None


@dataclass(frozen=True, slots=True)
class SlowRequest:
    """One slow request.

    Args:
        seq: Its number in the ledger: `gpuledger diagnose` takes it.
        expected_seconds: What it was judged against: the limit, or what its tokens explain.
        excess_seconds: How much longer it took.

    The other fields are columns of `request`; `model` is the one that answered, else the one asked for.
    """

    seq: int
    observed_at: datetime
    service: str | None
    operation: str | None
    model: str | None
    status: str | None
    duration_seconds: float
    expected_seconds: float
    excess_seconds: float
    queue_seconds: float | None
    time_to_first_token_seconds: float | None
    input_tokens: int | None
    output_tokens: int | None
    event_id: str | None
    trace_id: str | None


@dataclass(frozen=True, slots=True)
class SlowRequests(Analysis):
    """The slow requests of a window.

    Args:
        window: The window that was asked for, resolved; a request belongs to it that finished in it.
        coverage: Share of it in which the collector was recording.
        n: How many requests there were.
        slow_count: How many of them are slow by the rule.
        method: The rule in words.
        judged: By what each operation and model was judged.
        requests: The furthest beyond what was expected, in that order.
    """

    slow_count: int
    judged: tuple[JudgedGroup, ...]
    requests: tuple[SlowRequest, ...]


def slow_rule(*, threshold: str | None, percentile: float | None, excess: bool) -> SlowRule:
    """The rule that was asked for; the 99th percentile where none was.

    Raises:
        GroupingError: More than one was, or a percentile that is not told.
        LengthError: The threshold is no length of time.
    """
    if (threshold is not None) + (percentile is not None) + excess > 1:
        raise GroupingError("Requests are slow by one rule", "give one of a threshold, a percentile and excess")
    if threshold is not None:
        return SlowRule("threshold", threshold_seconds=length_s(threshold))
    if percentile is not None and percentile not in PERCENTILES:
        raise GroupingError(f"There is no percentile {percentile:g}", "give 50, 90, 95 or 99")
    return SlowRule("excess") if excess else SlowRule(percentile=percentile or 99)


def slow_requests(
    source: Source,
    window: Window,
    rule: SlowRule,
    *,
    now: datetime,
    only: RequestFilter | None = None,
    top: int = 20,
) -> SlowRequests:
    """The requests that finished in `window` and are slow by `rule`, the worst `top` of them."""
    only = only or RequestFilter()
    if rule.rule != "excess" and (by_duration := _ranked(source, window, rule, only, now, top)):
        return by_duration
    summary = summarize_requests(source, window, now=now, by=("operation", "model", "status"), only=only)
    judged = _judged(source, summary, rule, only)
    found, slow_count = _found(source, window, _Limits(rule, judged), only, top)
    return SlowRequests(
        window=window,
        coverage=recorded_share(source, window, now=now),
        n=summary.n,
        slow_count=slow_count,
        method=_words(rule),
        limits=_limits(summary, judged),
        judged=judged,
        requests=found,
    )


def _ranked(
    source: Source, window: Window, rule: SlowRule, only: RequestFilter, now: datetime, top: int
) -> SlowRequests | None:
    """By a limit that does not depend on tokens: from durations alone, and the rows of those that are told.

    None where durations are not at hand and an engine is to be asked.
    """
    durations = read_durations(source, window, only)
    if durations is None:
        return None
    counts = durations.counts()
    judged = _judged_by_duration(durations, rule)
    limits_s = {(one.operation, one.model): one.limit_seconds or 0.0 for one in judged}
    ranked = furthest_beyond(source, durations, limits_s, top, only)
    if ranked is None:
        return None
    limits = (COUNTED, ESTIMATED) if ranked.is_estimate else (COUNTED,)
    left_out = sum(counts.values()) - sum(counts[one.operation, one.model] for one in judged)
    return SlowRequests(
        window=window,
        coverage=recorded_share(source, window, now=now),
        n=sum(counts.values()),
        slow_count=ranked.beyond,
        method=_words(rule),
        limits=(*limits, *_left_out(left_out)),
        judged=judged,
        requests=_rows(source, window, ranked, limits_s),
    )


COUNTED = "counts what the ledger was told of, with a duration: a request that no source reported is not in it"
ESTIMATED = (
    "how many are slow is within 1 % of the limit, from sketches; for that, edges of the window are whole minutes"
)


def _judged_by_duration(durations: Durations, rule: SlowRule) -> tuple[JudgedGroup, ...]:
    if rule.rule == "threshold":
        judged = [JudgedGroup(*kind, n, rule.threshold_seconds, None) for kind, n in durations.counts().items()]
    else:
        judged = [
            JudgedGroup(*kind, n, durations.quantile(kind, rule.percentile / 100), None)
            for kind, n in durations.counts(ended_well=True).items()
            if n >= JUDGED_MIN
        ]
    return tuple(sorted(judged, key=lambda one: -one.n)[:GROUPS_MAX])


def _rows(
    source: Source, window: Window, ranked: Ranked, limits_s: Mapping[tuple[str | None, str | None], float]
) -> tuple[SlowRequest, ...]:
    """The rows of the requests that were found by their durations."""
    if not ranked.seqs:
        return ()
    with source.engine(["request"], start_us=ranked.span[0], end_us=ranked.span[1]) as engine:
        text = sql_text("requests_by_number").format(
            columns=", ".join(_COLUMNS),
            relation=requests_with_model(engine),
            in_window=in_window(engine),
            seqs=", ".join(map(str, ranked.seqs)),
        )
        rows = engine.query(text, start=ranked.span[0], end=ranked.span[1]).to_pylist()
    found = []
    for row in rows:
        expected_s = limits_s[row["operation"], row["model"]]
        excess_s = row["duration_seconds"] - expected_s
        found.append(_request(row | {"expected_seconds": expected_s, "excess_seconds": excess_s}, window))
    return tuple(sorted(found, key=lambda one: (-one.excess_seconds, one.seq)))


def _request(row: Mapping[str, Any], window: Window) -> SlowRequest:
    values = {name: row[name] for name in SlowRequest.__slots__}
    return SlowRequest(**values | {"observed_at": row["observed_at"].astimezone(window.start.tzinfo)})


def _words(rule: SlowRule) -> str:
    if rule.rule == "threshold":
        return f"at least {rule.threshold_seconds:g} s"
    if rule.rule == "percentile":
        return f"at least p{rule.percentile:g} of its own operation and model"
    return f"beyond what its tokens explain by more than {EXCESS_SCALES:g} times the noise (robust line)"


def _limits(summary: RequestSummary, judged: Sequence[JudgedGroup]) -> tuple[str, ...]:
    known = {(one.operation, one.model) for one in judged}
    left_out = sum(one.n for one in summary.groups if (one.operation, one.model) not in known)
    return (*summary.limits, *_left_out(left_out))


def _left_out(count: int) -> list[str]:
    words = f"{count:,} requests are of an operation and model with too few that ended well to be judged"
    return [words] if count else []


def _judged(source: Source, summary: RequestSummary, rule: SlowRule, only: RequestFilter) -> tuple[JudgedGroup, ...]:
    if rule.rule == "threshold":
        n: Counter[tuple[str | None, str | None]] = Counter()
        for one in summary.groups:
            n[one.operation, one.model] += one.n
        return tuple(JudgedGroup(*key, n[key], rule.threshold_seconds, None) for key in n)
    if rule.rule == "percentile":
        judged = _percentiles(summary, PERCENTILES[rule.percentile])
    else:
        judged = _lines(_token_counts(source, summary, only))
    return tuple(sorted(judged, key=lambda one: -one.n)[:GROUPS_MAX])


def _percentiles(summary: RequestSummary, name: str) -> Iterator[JudgedGroup]:
    for one in summary.groups:
        if one.status == "ok" and one.duration and one.duration.n >= JUDGED_MIN:
            yield JudgedGroup(one.operation, one.model, one.duration.n, getattr(one.duration, name), None)


def _token_counts(source: Source, summary: RequestSummary, only: RequestFilter) -> pa.Table:
    window = summary.window
    with source.engine(["request"], start_us=window.start_us, end_us=window.end_us) as engine:
        text = sql_text("request_tokens").format(
            relation=requests_with_model(engine),
            in_window=in_window(engine),
            filter=filter_text(engine, only),
            stride=engine.parameter("stride", "int"),
        )
        stride = max(1, summary.n // FITTED_MAX)
        return engine.query(text, start=window.start_us, end=window.end_us, **only.given, stride=stride)


def _lines(counts: pa.Table) -> Iterator[JudgedGroup]:
    groups: dict[tuple[str | None, str | None], list[int]] = {}
    keys = zip(counts["operation"].to_pylist(), counts["model"].to_pylist(), strict=True)
    for place, key in enumerate(keys):
        groups.setdefault(key, []).append(place)
    for key, places in groups.items():
        table = counts.take(pa.array(places))
        duration_s, tokens_in, tokens_out = (
            table[name].cast(pa.float64()).fill_null(0.0).to_numpy()
            for name in ("duration_seconds", "input_tokens", "output_tokens")
        )
        line = fit_robust_line(duration_s, tokens_in, tokens_out)
        if line:
            yield JudgedGroup(*key, line.n, None, line)


_COLUMNS = tuple(name for name in SlowRequest.__slots__ if name not in ("expected_seconds", "excess_seconds"))
_TOLD = "(input_tokens is not null or output_tokens is not null)"


class _Limits:
    """The limits as SQL: what is expected of a request, from when on it is slow, and the least limit of all.

    Args:
        rule: By which rule.
        judged: By what each operation and model is judged.
    """

    def __init__(self, rule: SlowRule, judged: Sequence[JudgedGroup]) -> None:
        self._threshold_s = rule.threshold_seconds if rule.rule == "threshold" else None
        self._judged = judged
        self.bound: dict[str, Any] = {}

    def expected(self, engine: Engine) -> str:
        if self._threshold_s is not None:
            return self._number(engine, "threshold", self._threshold_s)
        cases = [f"when {self._is_of(engine, at)} then {self._of(engine, at)}" for at in range(len(self._judged))]
        return f"case {' '.join(cases)} end" if cases else "0.0"

    def limit(self, engine: Engine) -> str:
        if not any(one.line for one in self._judged):
            return "expected_seconds"
        factors = [self._number(engine, f"factor_{at}", _factor(one)) for at, one in enumerate(self._judged)]
        cases = [f"when {self._is_of(engine, at)} then expected_seconds * {one}" for at, one in enumerate(factors)]
        return f"case {' '.join(cases)} end"

    def least(self, engine: Engine) -> str:
        least_s = [one.line.least_seconds * _factor(one) if one.line else one.limit_seconds for one in self._judged]
        return self._number(engine, "least", min((one for one in least_s if one is not None), default=0.0))

    def _is_of(self, engine: Engine, at: int) -> str:
        one = self._judged[at]
        operation = self._is(engine, "operation", one.operation, at)
        return f"{operation} and {self._is(engine, 'model', one.model, at)}{f' and {_TOLD}' if one.line else ''}"

    def _is(self, engine: Engine, column: str, value: str | None, at: int) -> str:
        if value is None:
            return f"{column} is null"
        self.bound[f"{column}_{at}"] = value
        return f"{column} = {engine.parameter(f'{column}_{at}', 'text')}"

    def _of(self, engine: Engine, at: int) -> str:
        one = self._judged[at]
        if one.line is None:
            return self._number(engine, f"limit_{at}", one.limit_seconds or 0.0)
        number = {name: self._number(engine, f"{name}_{at}", value) for name, value in _line_numbers(one.line).items()}
        tokens = f"{number['per_in']} * coalesce(input_tokens, 0) + {number['per_out']} * coalesce(output_tokens, 0)"
        return f"greatest({number['floor']}, {number['base']} + {tokens})"

    def _number(self, engine: Engine, name: str, value: float) -> str:
        self.bound[name] = value
        return engine.parameter(name, "float")


def _factor(one: JudgedGroup) -> float:
    return 1 + EXCESS_SCALES * one.line.relative_scale if one.line else 1.0


def _line_numbers(line: RobustLine) -> dict[str, float]:
    return {
        "base": line.base_seconds,
        "per_in": line.per_input_token_seconds,
        "per_out": line.per_output_token_seconds,
        "floor": line.least_seconds,
    }


def _found(
    source: Source, window: Window, limits: _Limits, only: RequestFilter, top: int
) -> tuple[tuple[SlowRequest, ...], int]:
    with source.engine(["request"], start_us=window.start_us, end_us=window.end_us) as engine:
        text = sql_text("slow_requests").format(
            columns=", ".join(_COLUMNS),
            expected=limits.expected(engine),
            limit=limits.limit(engine),
            least=limits.least(engine),
            relation=requests_with_model(engine),
            in_window=in_window(engine),
            filter=filter_text(engine, only),
            top=engine.parameter("top", "int"),
        )
        edges = {"start": window.start_us, "end": window.end_us}
        rows = engine.query(text, **edges, **only.given, **limits.bound, top=top).to_pylist()
    return tuple(_request(row, window) for row in rows), rows[0]["slow_count"] if rows else 0
