"""Why a request or a window was slow: what else went on, against requests like these that were fast.

A request is compared with up to `BASELINE_MAX` others of its operation and model, of like tokens, that ended well in
the hours before and were at least as fast as half of their kind for their tokens (`query.requests.baselines`). Of a
window, those that took longer than their tokens explain are compared, up to `MOMENTS_MAX` of them; of a window without
requests, pieces of it with pieces of the time before. What the samples around them say (`query.requests.surroundings`)
is told where it stands out (`query.requests.causes`): it went on at the same time, and that it is the cause is a
conclusion for whoever reads the evidence.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from query.analysis import Analysis
from query.engine import Source, in_window, sql_text
from query.history.recorded import recorded_share
from query.requests.baselines import BASELINE_MIN, LOOK_BACK_US, Baseline, Key, faster_before, read_like
from query.requests.causes import NEAR_US, Cause, Moment, Scene, causes_of, decode_s, prefill_s
from query.requests.summary import RequestFilter, filter_text, requests_with_model
from query.requests.surroundings import READ, Interval, Surroundings, read_surroundings
from query.windows import Window
from store.errors import NoDataError
from store.times import DAY_US, HOUR_US

SLOW_SCALES = 4.0
SLOW_LEAST = 0.15  # below that share of excess there is nothing to explain
SLOW_WINDOW_SHARE = 0.01  # of a window's requests: less is what always happens
MOMENTS_MAX = 40
KINDS_MAX = 4  # operations and models of a window that are looked at: those with most requests
PIECES_MAX = 60
PIECE_US_LEAST = 10_000_000
HOURS_BACK = LOOK_BACK_US // HOUR_US
METHOD = "compared with fast requests of the same operation and model with like token counts"
PHASES = {
    "queue": lambda row: row["queue_seconds"],
    "prefill": prefill_s,
    "decode": decode_s,
}


@dataclass(frozen=True, slots=True)
class Phase:
    """One part of a request: `queue`, `prefill` (the prompt) or `decode` (the answer).

    Args:
        name: Which.
        seconds: How long it took.
        usual_seconds: The median of the baseline; None where none of it says.
    """

    name: str
    seconds: float
    usual_seconds: float | None


@dataclass(frozen=True, slots=True)
class Diagnosis(Analysis):
    """What went on while a request ran.

    Args:
        seq: The request's number in the ledger.
        window: From its beginning to its end.
        coverage: Share of that time that lies near a sample of the GPUs and of the host.
        n: How many requests the baseline has.
        method: How it was compared.
        duration_seconds: How long it took.
        expected_seconds: What its token counts, or its kind, explain; None where too few are like it.
        is_slow: Whether it took clearly longer; None where that is not known.
        phases: Where the time went, as far as its source says.
        causes: What stands out, the largest effect first; none where nothing does.
    """

    seq: int
    duration_seconds: float
    expected_seconds: float | None
    is_slow: bool | None
    phases: tuple[Phase, ...]
    causes: tuple[Cause, ...]


@dataclass(frozen=True, slots=True)
class WindowDiagnosis(Analysis):
    """What went on in a window.

    Args:
        coverage: Share of it in which the collector was recording.
        n: How many fast requests, or pieces of the time before, it was compared with.
        request_count: How many requests that ended well in it could be judged; 0 where there was none at all.
        slow_count: How many of them took longer than their tokens explain.
        slowdown_ratio: What they took altogether, as a multiple of what was expected; None without requests.
        is_slow: Whether there is something to explain; None where that is not known.
        causes: What stands out, the largest effect first; effects are sums over what was looked at.
    """

    request_count: int
    slow_count: int
    slowdown_ratio: float | None
    is_slow: bool | None
    causes: tuple[Cause, ...]


# One request --------------------------------------------------------------------------------------------------------


def diagnose(source: Source, request: str, *, now: datetime) -> Diagnosis:
    """What went on while a request ran.

    Args:
        source: Where the events are.
        request: Its seq, event_id, source_event_id or trace_id.
        now: The time of the question: it gives the time zone.

    Raises:
        NoDataError: There is no such request, or it does not say how long it took.
    """
    row = _find(source, request, now)
    start_us, end_us = _interval(row)
    key: Key = (row["operation"], row["model"])
    span = (start_us - LOOK_BACK_US, end_us + NEAR_US)
    with source.engine(["request"], start_us=span[0], end_us=span[1]) as engine:
        baseline = Baseline.of(read_like(engine, span, key, but_seq=row["seq"]))
    notes = []
    if baseline and (earlier := _faster(source, key, start_us, row, now)):
        baseline = earlier
        notes = [
            f"the {HOURS_BACK} hours before were slow too: it is compared with earlier ones, {_when(earlier, now)}"
        ]
    usual = _moments(baseline.fast_like([row])) if baseline else []
    expected_s = baseline.expected_s(row) if baseline else None
    excess_s = row["duration_seconds"] - expected_s if expected_s is not None else 0.0
    moment = Moment((start_us, end_us), excess_s, row)
    seen = _seen(source, [moment], usual, row["gpu_uuids"] or (), row["server_address"], now)
    coverage = _coverage(seen, moment.interval)
    is_slow = _is_slow(baseline, row) if baseline else None
    return Diagnosis(
        seq=row["seq"],
        window=_window(start_us, end_us, now),
        coverage=coverage,
        n=len(usual),
        method=METHOD,
        limits=(*notes, *_limits(seen, moment, coverage, is_known=baseline is not None)),
        duration_seconds=row["duration_seconds"],
        expected_seconds=expected_s,
        is_slow=is_slow,
        phases=tuple(_phases(row, usual)),
        causes=causes_of(Scene([moment], usual, seen)) if is_slow else (),
    )


def _faster(source: Source, key: Key, before_us: int, row: dict[str, Any], now: datetime) -> Baseline | None:
    """A baseline of earlier hours that were clearly faster; None where the hours before are as good as any."""
    span = faster_before(source, key, before_us, now=now)
    if span is None:
        return None
    with source.engine(["request"], start_us=span[0], end_us=span[1]) as engine:
        return Baseline.of(read_like(engine, span, key, but_seq=row["seq"]))


def _when(baseline: Baseline, now: datetime) -> str:
    first, last = (baseline.table["observed_at"][at].as_py().astimezone(now.tzinfo) for at in (0, -1))
    return f"{first:%Y-%m-%d %H:%M} to {last:%H:%M}"


def _is_slow(baseline: Baseline, row: dict[str, Any]) -> bool:
    expected_s = baseline.expected_s(row)
    share = max(SLOW_SCALES * baseline.line.relative_scale, SLOW_LEAST)
    return bool(row["duration_seconds"] > (1 + share) * expected_s)


def _find(source: Source, request: str, now: datetime) -> dict[str, Any]:
    """A request by one of its names: a number's time is in the catalogue; else the newest are looked at first."""
    is_number = request.isascii() and request.isdecimal() and len(request) < 19
    rows: list[dict[str, Any]] = []
    if is_number:
        times = source.times_of("request", int(request))
        rows = _read_one(source, request, times, by_seq=True) if times else []
    else:
        for span in _backwards(round(now.timestamp() * 1e6)):
            if rows := _read_one(source, request, span, by_seq=False):
                break
    if not rows:
        raise NoDataError(f"There is no request {request[:80]!r}", "'gpuledger slow' lists some, the number first")
    if not rows[0]["duration_seconds"]:
        raise NoDataError(f"Request {request[:80]!r} does not say how long it took", "diagnose another")
    return rows[0]


def _backwards(now_us: int) -> Iterator[Interval]:
    """The last day and what is dated later than now, and then all before: mostly it is a new one that is asked for."""
    yield now_us - DAY_US, 2**53
    yield 0, now_us - DAY_US


NAMES = ("event_id", "source_event_id", "trace_id")


def _read_one(source: Source, request: str, span: Interval, *, by_seq: bool) -> list[dict[str, Any]]:
    with source.engine(["request"], start_us=span[0], end_us=span[1]) as engine:
        columns = ("seq",) if by_seq else NAMES
        name = engine.parameter("name", "int" if by_seq else "text")
        # one column a scan: an "or" of them would not ask the files' Bloom filters
        text = " union all ".join(
            sql_text("requests_named").format(
                relation=requests_with_model(engine), in_window=in_window(engine), column=column, name=name
            )
            for column in columns
        )
        found = engine.query(text, start=span[0], end=span[1], name=int(request) if by_seq else request)
    return sorted(found.to_pylist(), key=lambda row: -row["seq"])


def _phases(row: dict[str, Any], usual: Sequence[Moment]) -> Iterator[Phase]:
    for name, figure in PHASES.items():
        value = figure(row)
        known = [one for moment in usual if (one := figure(moment.row)) is not None]
        if value is not None:
            yield Phase(name, float(value), float(np.median(known)) if known else None)


def _limits(seen: Surroundings, moment: Moment, coverage: float, *, is_known: bool) -> Iterator[str]:
    if not is_known:
        before = f"in the {HOURS_BACK} hours before"
        yield f"fewer than {BASELINE_MIN} requests like it ended well {before}: nothing to compare with"
    if coverage < 0.995:
        near = (moment.interval[0] - NEAR_US, moment.interval[1] + NEAR_US)
        gaps = [one["message"] for one in seen.rows("ledger_event", near) if one["event"] == "gap"]
        why = f" ({gaps[0]})" if gaps and gaps[0] else ""
        yield f"there are no samples of part of that time{why}: what went on then cannot be known"
    if not moment.row["gpu_uuids"]:
        yield "the request does not say which GPUs it used: all of the host are looked at"


# A window -----------------------------------------------------------------------------------------------------------


def diagnose_window(
    source: Source, window: Window, *, now: datetime, only: RequestFilter | None = None
) -> WindowDiagnosis:
    """What went on in a window: while its slow requests ran, or in all of it where it has no requests.

    Args:
        source: Where the events are.
        window: Which.
        now: The time of the question.
        only: Which requests.

    Raises:
        NoDataError: There are requests, but none of those asked for.
    """
    judged = _judged(source, window, only or RequestFilter(), now)
    if judged is not None:
        return _of_requests(source, window, judged, now)
    if only and only.given:
        raise NoDataError("There is no such request in this window", "ask without --operation and --model")
    return _of_time(source, window, now)


@dataclass(frozen=True, slots=True)
class _Judged:
    """The requests of a window beside what was expected of them."""

    count: int
    slow: tuple[Moment, ...]
    usual: tuple[Moment, ...]
    slowdown_ratio: float | None
    notes: tuple[str, ...]


def _judged(source: Source, window: Window, only: RequestFilter, now: datetime) -> _Judged | None:
    """None where the window has no requests."""
    keys = _kinds(source, window, only)
    if not keys:
        return None
    count, took_s, expected_s = 0, 0.0, 0.0
    slow: list[Moment] = []
    usual: list[Moment] = []
    notes = []
    unknown = 0
    for key in keys:
        with source.engine(["request"], start_us=window.start_us - LOOK_BACK_US, end_us=window.end_us) as engine:
            inside = read_like(engine, (window.start_us, window.end_us), key).to_pylist()
            before = Baseline.of(read_like(engine, (window.start_us - LOOK_BACK_US, window.start_us), key))
        if before is None or not inside:
            unknown += 1
            continue
        if earlier := _faster(source, key, window.start_us, {"seq": -1}, now):
            before = earlier
            notes.append(f"the {HOURS_BACK} hours before were slow too: compared with {_when(earlier, now)}")
        count += len(inside)
        took_s += sum(row["duration_seconds"] for row in inside)
        expected_s += sum(before.expected_s(row) for row in inside)
        of_key = [row for row in inside if _is_slow(before, row)]
        slow += [Moment(_interval(row), row["duration_seconds"] - before.expected_s(row), row) for row in of_key]
        usual += _moments(before.fast_like(of_key[:MOMENTS_MAX])) if of_key else []
    if unknown:
        words = f"{unknown} of {len(keys)} kinds of request (operation and model) are not judged"
        notes.append(f"{words}: fewer than {BASELINE_MIN} of the kind in the {HOURS_BACK} hours before")
    ratio = took_s / expected_s if expected_s else None
    return _Judged(count, tuple(slow), tuple(usual), ratio, tuple(notes))


def _kinds(source: Source, window: Window, only: RequestFilter) -> list[Key]:
    """Operations and models of a window, those with most requests."""
    with source.engine(["request"], start_us=window.start_us, end_us=window.end_us) as engine:
        text = sql_text("request_kinds").format(
            relation=requests_with_model(engine),
            in_window=in_window(engine),
            filter=filter_text(engine, only),
            top=engine.parameter("top", "int"),
        )
        edges = {"start": window.start_us, "end": window.end_us}
        rows = engine.query(text, **edges, **only.given, top=KINDS_MAX).to_pylist()
    return [(row["operation"], row["model"]) for row in rows]


def _of_requests(source: Source, window: Window, judged: _Judged, now: datetime) -> WindowDiagnosis:
    is_slow = len(judged.slow) >= max(1.0, SLOW_WINDOW_SHARE * judged.count) if judged.count else None
    worst = sorted(judged.slow, key=lambda one: -one.excess_seconds)[:MOMENTS_MAX] if is_slow else []
    causes: tuple[Cause, ...] = ()
    if worst:
        causes = causes_of(Scene(worst, judged.usual, _seen(source, worst, judged.usual, (), None, now)))
    looked_at = (
        f"{len(worst)} of the {len(judged.slow)} slow ones" if len(worst) < len(judged.slow) else "all slow ones"
    )
    return WindowDiagnosis(
        window=window,
        coverage=(coverage := recorded_share(source, window, now=now)),
        n=len(judged.usual),
        method=f"{looked_at} {METHOD}" if worst else METHOD,
        limits=(*judged.notes, *_window_limits(coverage)),
        request_count=judged.count,
        slow_count=len(judged.slow),
        slowdown_ratio=judged.slowdown_ratio,
        is_slow=is_slow,
        causes=causes,
    )


def _of_time(source: Source, window: Window, now: datetime) -> WindowDiagnosis:
    length_us = max((window.end_us - window.start_us) // PIECES_MAX, PIECE_US_LEAST)
    pieces = _pieces(window.start_us, window.end_us, length_us)
    before = _pieces(window.start_us - LOOK_BACK_US, window.start_us, length_us)[-4 * PIECES_MAX :]
    moments = [Moment(span, (span[1] - span[0]) / 1e6) for span in pieces]
    usual = [Moment(span) for span in before]
    seen = _seen(source, moments, usual, (), None, now)
    usual = [one for one in usual if _coverage(seen, one.interval) > 0]
    is_known = len(usual) >= BASELINE_MIN
    few = (
        () if is_known else (f"hardly anything was sampled in the {HOURS_BACK} hours before: nothing to compare with",)
    )
    causes = causes_of(Scene(moments, usual, seen), is_state=True) if is_known else ()
    return WindowDiagnosis(
        window=window,
        coverage=(coverage := recorded_share(source, window, now=now)),
        n=len(usual),
        method=f"{len(pieces)} pieces of {length_us / 1e6:g} s compared with such pieces before the window",
        limits=("no request finished in it: what is told is its state", *few, *_window_limits(coverage)),
        request_count=0,
        slow_count=0,
        slowdown_ratio=None,
        is_slow=bool(causes) if is_known else None,
        causes=causes,
    )


def _pieces(start_us: int, end_us: int, length_us: int) -> list[Interval]:
    return [(at, min(at + length_us, end_us)) for at in range(start_us, end_us, length_us)]


def _window_limits(coverage: float) -> Iterator[str]:
    if coverage < 0.995:
        yield f"the collector was recording for {100 * coverage:.0f} % of it: what went on in the rest cannot be known"


# Both ---------------------------------------------------------------------------------------------------------------


def _moments(rows: Sequence[dict[str, Any]]) -> list[Moment]:
    return [Moment(_interval(row), 0.0, row) for row in rows]


def _seen(
    source: Source,
    moments: Sequence[Moment],
    usual: Sequence[Moment],
    gpus: Sequence[str],
    server: str | None,
    now: datetime,
) -> Surroundings:
    spans = [one.interval for one in (*moments, *usual)]
    edges = (min(span[0] for span in spans) - NEAR_US, max(span[1] for span in spans) + NEAR_US)
    with source.engine(READ, start_us=edges[0], end_us=edges[1], columns=READ) as engine:
        return read_surroundings(engine, _window(*edges, now), spans, gpus=gpus, server=server)


def _coverage(seen: Surroundings, interval: Interval) -> float:
    """Share of an interval that lies near a sample, mean of the GPUs and of the host, as far as there are any."""
    shares = [seen.covered(kind, interval) for kind in ("gpu_sample", "system_sample")]
    known = [share for share in shares if share is not None]
    return float(np.mean(known)) if known else 0.0


def _us(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)


def _interval(row: dict[str, Any]) -> Interval:
    end_us = _us(row["ended_at"] or row["observed_at"])
    return end_us - round(row["duration_seconds"] * 1e6), end_us


def _window(start_us: int, end_us: int, now: datetime) -> Window:
    start, end = (datetime.fromtimestamp(edge / 1e6, now.tzinfo) for edge in (start_us, end_us))
    return Window(start, end, str(now.tzinfo), f"{start.isoformat()}..{end.isoformat()}")
