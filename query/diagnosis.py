"""Why one request was slow: what else went on, against requests like it that were fast.

The request is compared with up to `BASELINE_MAX` others of its operation and model, of like tokens, that ended well in
the hours before and were at least as fast as half of their kind for their tokens (`query.robust_line`). What the
samples around it say (`query.surroundings`) stands out where it is beyond 95 % of the baseline and differs from its
median by what matters. An effect is an estimate in seconds: the share of time in excess, times the request's duration.
What stands out went on at the same time; that it is the cause is a conclusion for whoever reads the evidence.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from query.engine import Engine, Source, in_window, sql_text
from query.requests import requests_with_model
from query.robust_line import MAD_TO_SIGMA, SCALE_MIN, RobustLine, fit_robust_line
from query.surroundings import COLUMNS, Interval, Surroundings, read_surroundings
from query.windows import Window
from store.errors import NoDataError
from store.rollup_cells import Floats

LOOK_BACK = timedelta(hours=6)
BASELINE_MAX = 40
BASELINE_MIN = 8
SLOW_SCALES = 4.0
SLOW_LEAST = 0.15  # below that share of excess there is nothing to explain
SHARE_LEAST = 0.1  # of the excess: what explains less is not told
NEAR_US = 60_000_000  # an Xid that long before or after belongs to it

THROTTLES = {
    "throttle_sw_power_cap_seconds": "software power cap",
    "throttle_sw_thermal_seconds": "software thermal slowdown",
    "throttle_hw_thermal_seconds": "hardware thermal slowdown",
    "throttle_hw_power_brake_seconds": "hardware power brake",
    "throttle_sync_boost_seconds": "sync boost",
}
PRESSURES = {"cpu": "CPU", "memory": "memory", "io": "disks"}
_COLUMNS = (
    "seq", "observed_at", "host", "started_at", "ended_at", "operation", "model", "duration_seconds",
    "queue_seconds", "input_tokens", "output_tokens", "preemption_count",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that stands out.

    Args:
        name: `throttling`, `clock_deficit`, `queueing`, `other_process` and the like.
        sentence: What it is, with its figures.
        effect_seconds: How much of the duration it may explain; None where that cannot be told.
        evidence: What speaks for it.
        counter_evidence: What speaks against it.
    """

    name: str
    sentence: str
    effect_seconds: float | None
    evidence: tuple[str, ...]
    counter_evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What went on while a request ran.

    Args:
        seq: The request's number in the ledger.
        window: From its beginning to its end.
        coverage: Share of the samples of the GPUs and the host that are there; 0 where nothing was recorded.
        n: How many requests the baseline has.
        method: How it was compared.
        limits: What it cannot say.
        duration_seconds: How long it took.
        expected_seconds: What its token counts, or its kind, explain; None where too few are like it.
        is_slow: Whether it took clearly longer; None where that is not known.
        causes: What stands out, the largest effect first; none where nothing does.
    """

    seq: int
    window: Window
    coverage: float
    n: int
    method: str
    limits: tuple[str, ...]
    duration_seconds: float
    expected_seconds: float | None
    is_slow: bool | None
    causes: tuple[Cause, ...]


def diagnose(source: Source, request: str, *, now: datetime) -> Diagnosis:
    """What went on while a request ran.

    Args:
        source: Where the events are.
        request: Its seq, event_id, source_event_id or trace_id.
        now: The time of the question: it gives the time zone.

    Raises:
        NoDataError: There is no such request, or it does not say how long it took.
    """
    row = _find(source, request)
    end_us = _us(row["ended_at"] or row["observed_at"])
    interval = (end_us - round(row["duration_seconds"] * 1e6), end_us)
    around = _window(interval[0] - round(LOOK_BACK.total_seconds() * 1e6), interval[1] + NEAR_US, now)
    kinds = ("request", *COLUMNS)
    with source.engine(kinds, start_us=around.start_us, end_us=around.end_us) as engine:
        like = read_like(engine, around, row)
        baseline, expected_s, scale = _baseline(like, row)
        spans = [_interval(one) for one in baseline]
        first_us = min([interval[0], *(one[0] for one in spans)]) - NEAR_US
        joined = _window(first_us, around.end_us, now)
        seen = read_surroundings(engine, joined, gpus=row["gpu_uuids"] or (), server=row["server_address"])
    return _Comparison(row, interval, baseline, spans, seen, expected_s, scale, _window(*interval, now)).diagnosis()


def _find(source: Source, request: str) -> dict[str, Any]:
    with source.engine(["request"]) as engine:
        name = engine.parameter("name", "text")
        is_number = request.isascii() and request.isdecimal() and len(request) < 19
        by_name = f"(event_id = {name} or source_event_id = {name} or trace_id = {name})"
        text = sql_text("one_request").format(
            relation=requests_with_model(engine),
            in_window=in_window(engine),
            filter=f"seq = {engine.parameter('seq', 'int')}" if is_number else by_name,
        )
        named: dict[str, Any] = {"seq": int(request)} if is_number else {"name": request}
        rows: list[dict[str, Any]] = engine.query(text, start=0, end=2**53, **named).to_pylist()
    if not rows:
        raise NoDataError(f"There is no request {request[:80]!r}", "'gpuledger slow' lists some, the number first")
    if not rows[0]["duration_seconds"]:
        raise NoDataError(f"Request {request[:80]!r} does not say how long it took", "diagnose another")
    return rows[0]


def read_like(engine: Engine, window: Window, row: dict[str, Any]) -> pa.Table:
    """The requests like one: of its operation and model."""
    conditions, bound = [], {}
    for name in ("operation", "model"):
        if row[name] is None:
            conditions.append(f"{name} is null")
        else:
            conditions.append(f"{name} = {engine.parameter(name, 'text')}")
            bound[name] = row[name]
    text = sql_text("like_requests").format(
        columns=", ".join(_COLUMNS),
        relation=requests_with_model(engine),
        in_window=in_window(engine),
        filter=" and ".join(conditions),
        seq=engine.parameter("seq", "int"),
    )
    return engine.query(text, start=window.start_us, end=window.end_us, **bound, seq=row["seq"])


def _baseline(like: pa.Table, row: dict[str, Any]) -> tuple[list[dict[str, Any]], float | None, float]:
    """The fast requests nearest to one by their tokens; what it should have taken, and the noise of that."""
    if like.num_rows < BASELINE_MIN:
        return [], None, 0.0
    took_s, tokens_in, tokens_out = (
        like[name].cast(pa.float64()).fill_null(0.0).to_numpy()
        for name in ("duration_seconds", "input_tokens", "output_tokens")
    )
    line = fit_robust_line(took_s, tokens_in, tokens_out) or _level(took_s)
    own = (float(row["input_tokens"] or 0), float(row["output_tokens"] or 0))
    explained = np.array([line.predicted(*one) for one in zip(tokens_in, tokens_out, strict=True)])
    is_fast = took_s / explained <= np.median(took_s / explained)
    distance = np.abs(np.log1p(tokens_in) - np.log1p(own[0])) + np.abs(np.log1p(tokens_out) - np.log1p(own[1]))
    near = np.argsort(np.where(is_fast, distance, np.inf), kind="stable")[: min(BASELINE_MAX, int(is_fast.sum()))]
    return like.take(pa.array(near)).to_pylist(), line.predicted(*own), line.relative_scale


def _level(took_s: Floats) -> RobustLine:
    """Of too few for a line: their median."""
    median = float(np.median(took_s))
    scale = MAD_TO_SIGMA * float(np.median(np.abs(took_s - median))) / median if median else 0.0
    return RobustLine(len(took_s), median, 0.0, 0.0, max(scale, SCALE_MIN), median / 10)


class _Comparison:
    """One request beside its baseline."""

    def __init__(
        self,
        row: dict[str, Any],
        interval: Interval,
        baseline: Sequence[dict[str, Any]],
        spans: Sequence[Interval],
        seen: Surroundings,
        expected_s: float | None,
        scale: float,
        window: Window,
    ) -> None:
        self._row = row
        self._interval = interval
        self._baseline = baseline
        self._spans = spans
        self._seen = seen
        self._expected_s = expected_s
        self._scale = scale
        self._window = window
        self._took_s: float = row["duration_seconds"]
        self._excess_s = self._took_s - expected_s if expected_s is not None else 0.0

    def diagnosis(self) -> Diagnosis:
        coverage = self._coverage()
        is_slow = None
        if self._expected_s is not None:
            is_slow = self._excess_s > max(SLOW_SCALES * self._scale, SLOW_LEAST) * self._expected_s
        causes = list(self._causes()) if is_slow else []
        told = [one for one in causes if one.effect_seconds is None or self._matters(one.effect_seconds)]
        told.sort(key=lambda one: -(one.effect_seconds or 0.0))
        return Diagnosis(
            seq=self._row["seq"],
            window=self._window,
            coverage=coverage,
            n=len(self._baseline),
            method="compared with fast requests of the same operation and model with like token counts",
            limits=tuple(self._limits(coverage)),
            duration_seconds=self._took_s,
            expected_seconds=self._expected_s,
            is_slow=is_slow,
            causes=tuple(told),
        )

    def _matters(self, effect_s: float) -> bool:
        return effect_s >= SHARE_LEAST * self._excess_s

    def _coverage(self) -> float:
        """Share of the kinds of samples that say anything about the time of the request."""
        wanted = [("gpu_sample", "clock_sm_hertz"), ("system_sample", "pressure_cpu_some_seconds")]
        expected = [one for one in wanted if not np.isnan(self._seen.greatest(*one, self._spans)).all()] or wanted
        return sum(not np.isnan(self._seen.greatest(*one, [self._interval])[0]) for one in expected) / len(expected)

    def _limits(self, coverage: float) -> Iterator[str]:
        if self._expected_s is None:
            before = f"in the {LOOK_BACK.seconds // 3600} hours before"
            yield f"fewer than {BASELINE_MIN} requests like it ended well {before}: nothing to compare with"
        if coverage < 1:
            gaps = [one["message"] for one in self._seen.rows("ledger_event", self._near()) if one["event"] == "gap"]
            why = f" ({gaps[0]})" if gaps and gaps[0] else ""
            yield f"there are no samples of part of that time{why}: what went on then cannot be known"
        if not self._row["gpu_uuids"]:
            yield "the request does not say which GPUs it used: all of the host are looked at"

    def _near(self) -> Interval:
        return self._interval[0] - NEAR_US, self._interval[1] + NEAR_US

    def _causes(self) -> Iterator[Cause]:
        yield from self._queueing()
        throttled = list(self._throttling())
        yield from throttled
        if not throttled:
            yield from self._clock_deficit()
        yield from self._other_process()
        yield from self._pressure()
        yield from self._kv_cache()
        yield from self._errors()

    def _queueing(self) -> Iterator[Cause]:
        usual = [one["queue_seconds"] for one in self._baseline if one["queue_seconds"] is not None]
        value = self._row["queue_seconds"]
        if value is None or not usual or value <= np.quantile(usual, 0.95):
            return
        median = float(np.median(usual))
        waiting = self._seen.greatest("server_sample", "requests_waiting_count", [self._interval])[0]
        known = () if np.isnan(waiting) else (f"{waiting:.0f} requests were waiting on the server",)
        evidence, against = (known, ()) if waiting >= 1 else ((), known)
        words = f"it waited {value:.3g} s to be scheduled; {median:.3g} s is usual"
        yield Cause("queueing", words, value - median, evidence, against)

    def _standing_out(self, kind: str, column: str, least: float) -> tuple[float, float] | None:
        """The value during the request and the baseline's median, where it is that much above and beyond 95 %."""
        value = float(self._seen.greatest(kind, column, [self._interval])[0])
        usual = self._seen.greatest(kind, column, self._spans)
        usual = usual[~np.isnan(usual)]
        if np.isnan(value) or len(usual) < BASELINE_MIN:
            return None
        median = float(np.median(usual))
        return (value, median) if value - median >= least and value > np.quantile(usual, 0.95) else None

    def _throttling(self) -> Iterator[Cause]:
        for column, words in THROTTLES.items():
            if found := self._standing_out("gpu_sample", column, SHARE_LEAST):
                value, median = found
                sentence = (
                    f"{words} held the clocks down for {100 * value:.0f} % of the time; {100 * median:.0f} % is usual"
                )
                yield Cause("throttling", sentence, (value - median) * self._took_s, (f"gpu_sample.{column}",))

    def _clock_deficit(self) -> Iterator[Cause]:
        value = float(self._seen.least("gpu_sample", "clock_sm_hertz", [self._interval])[0])
        usual = self._seen.least("gpu_sample", "clock_sm_hertz", self._spans)
        usual = usual[~np.isnan(usual)]
        if np.isnan(value) or len(usual) < BASELINE_MIN:
            return
        median = float(np.median(usual))
        deficit = 1 - value / median
        if deficit >= SHARE_LEAST and value < np.quantile(usual, 0.05):
            words = (
                f"the SM clock was {value / 1e6:.0f} MHz, {100 * deficit:.0f} % below the usual {median / 1e6:.0f} MHz"
            )
            against = ("no counter of throttling grew: the reason is not known",)
            yield Cause("clock_deficit", words, deficit * self._took_s, ("gpu_sample.clock_sm_hertz",), against)

    def _other_process(self) -> Iterator[Cause]:
        beside = [{row["pid"] for row in self._seen.rows("process_sample", _widened(span))} for span in self._spans]
        spans_of = Counter(pid for pids in beside for pid in pids)
        strangers: dict[int, dict[str, Any]] = {}
        for row in self._seen.rows("process_sample", _widened(self._interval)):
            is_strange = spans_of[row["pid"]] <= SHARE_LEAST * len(beside)
            if spans_of and is_strange and (row["sm_utilization_percent"] or 0) >= 5:
                strangers[row["pid"]] = row
        for pid, row in strangers.items():
            share = row["sm_utilization_percent"] / 100
            words = f"process {pid} ({row['name'] or 'name not known'}) used {_percent(share)} of the GPU beside it"
            yield Cause(
                "other_process",
                words,
                share * self._took_s,
                (f"it was there in {spans_of[pid]} of {len(beside)} of the baseline",),
            )

    def _pressure(self) -> Iterator[Cause]:
        for resource, words in PRESSURES.items():
            column = f"pressure_{resource}_some_seconds"
            if found := self._standing_out("system_sample", column, SHARE_LEAST):
                value, median = found
                share = f"{_percent(value)} of the time; {_percent(median)} is usual"
                sentence = f"tasks of the host waited for {words} {share}"
                swap = self._standing_out("system_sample", "swap_in_bytes", 1e6) if resource == "memory" else None
                evidence = (f"system_sample.{column}", *(["pages came back from swap"] if swap else []))
                against = ("pressure is of the whole host: whose tasks waited is not known",)
                yield Cause(f"{resource}_pressure", sentence, (value - median) * self._took_s, evidence, against)

    def _kv_cache(self) -> Iterator[Cause]:
        times = self._row["preemption_count"] or 0
        used = self._standing_out("server_sample", "kv_cache_used_ratio", SHARE_LEAST)
        if times or (used and used[0] >= 0.95):
            facts = [f"it was put aside {times} times"] if times else []
            facts += (
                [f"{100 * used[0]:.0f} % of the KV cache was in use; {100 * used[1]:.0f} % is usual"] if used else []
            )
            yield Cause("kv_pressure", "; ".join(facts), None, ("preemption_count, server_sample.kv_cache_used_ratio",))

    def _errors(self) -> Iterator[Cause]:
        for row in self._seen.rows("gpu_event", self._near()):
            if row["event"] == "xid":
                against = ("it may have come from another process",)
                yield Cause(
                    "xid", f"Xid {row['xid']} within a minute of it", None, (row["message"] or "gpu_event",), against
                )
        if found := self._standing_out("gpu_sample", "pcie_replay_count", 1.0):
            yield Cause(
                "pcie_replay",
                f"PCIe packets were sent again, {found[0]:.3g} a second",
                None,
                ("gpu_sample.pcie_replay_count",),
            )


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _widened(span: Interval) -> Interval:
    """As far as a sample of a process reaches: they are taken every 5 s."""
    return span[0] - 5_000_000, span[1] + 5_000_000


def _us(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)


def _interval(row: dict[str, Any]) -> Interval:
    end_us = _us(row["ended_at"] or row["observed_at"])
    return end_us - round(row["duration_seconds"] * 1e6), end_us


def _window(start_us: int, end_us: int, now: datetime) -> Window:
    start, end = (datetime.fromtimestamp(edge / 1e6, now.tzinfo) for edge in (start_us, end_us))
    return Window(start, end, str(now.tzinfo), f"{start.isoformat()}..{end.isoformat()}")
