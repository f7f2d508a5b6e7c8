"""What requests like some are expected to take, and which of them were fast.

A baseline is of one operation and model, of the hours before. Where these hours were slow themselves, so that nothing
in them would stand out, an earlier one is taken: `faster_before` looks at the medians of each hour of the week before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from query.engine import Engine, Source, in_window, sql_text
from query.requests.summary import RequestFilter, requests_with_model, summarize_requests
from query.statistics.robust_line import MAD_TO_SIGMA, SCALE_MIN, RobustLine, fit_robust_line
from query.windows import Window
from store.rollups.cells import Floats
from store.times import HOUR_US

LOOK_BACK_US = 6 * HOUR_US
LOOK_FURTHER = timedelta(days=7)
BASELINE_MAX = 40
BASELINE_MIN = 8
FASTER_RATIO = 0.8  # hours whose median is that much below are faster ones
HOUR_MIN = 20  # requests, for the median of an hour to say anything

Key = tuple[str | None, str | None]
"""Operation and model."""

COLUMNS = (
    "seq", "observed_at", "host", "started_at", "ended_at", "operation", "model", "duration_seconds", "queue_seconds",
    "prefill_seconds", "time_to_first_token_seconds", "decode_seconds", "input_tokens", "output_tokens",
    "cached_input_tokens", "preemption_count",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Baseline:
    """Requests of one operation and model.

    Args:
        table: Those that ended well: `COLUMNS`.
        line: What one takes by its tokens.
        took_s, tokens_in, tokens_out: Of each.
    """

    table: pa.Table
    line: RobustLine
    took_s: Floats
    tokens_in: Floats
    tokens_out: Floats

    @classmethod
    def of(cls, table: pa.Table) -> "Baseline | None":
        """None of fewer than `BASELINE_MIN`."""
        if table.num_rows < BASELINE_MIN:
            return None
        took_s, tokens_in, tokens_out = (
            table[name].cast(pa.float64()).fill_null(0.0).to_numpy()
            for name in ("duration_seconds", "input_tokens", "output_tokens")
        )
        line = fit_robust_line(took_s, tokens_in, tokens_out) or _level(took_s)
        return cls(table, line, took_s, tokens_in, tokens_out)

    def expected_s(self, row: dict[str, Any]) -> float:
        return self.line.predicted(float(row["input_tokens"] or 0), float(row["output_tokens"] or 0))

    def fast_like(self, rows: Sequence[dict[str, Any]], count: int = BASELINE_MAX) -> list[dict[str, Any]]:
        """The fast half of them, those nearest by their tokens to some requests."""
        explained = np.array([self.line.predicted(*one) for one in zip(self.tokens_in, self.tokens_out, strict=True)])
        ratio = self.took_s / explained
        is_fast = ratio <= np.median(ratio)
        distance = np.full(len(ratio), np.inf)
        for row in rows:
            own = (np.log1p(float(row["input_tokens"] or 0)), np.log1p(float(row["output_tokens"] or 0)))
            of_row = np.abs(np.log1p(self.tokens_in) - own[0]) + np.abs(np.log1p(self.tokens_out) - own[1])
            distance = np.minimum(distance, of_row)
        near = np.argsort(np.where(is_fast, distance, np.inf), kind="stable")[: min(count, int(is_fast.sum()))]
        found: list[dict[str, Any]] = self.table.take(pa.array(np.sort(near))).to_pylist()
        return found


def _level(took_s: Floats) -> RobustLine:
    """Of too few for a line: their median."""
    median = float(np.median(took_s))
    scale = MAD_TO_SIGMA * float(np.median(np.abs(took_s - median))) / median if median else 0.0
    return RobustLine(len(took_s), median, 0.0, 0.0, max(scale, SCALE_MIN), median / 10)


def read_like(engine: Engine, span: tuple[int, int], key: Key, *, but_seq: int = -1) -> pa.Table:
    """The requests of one operation and model that ended well in [from, to), some thousands at most, but for one."""
    conditions, bound = [], {}
    for name, value in zip(("operation", "model"), key, strict=True):
        if value is None:
            conditions.append(f"{name} is null")
        else:
            conditions.append(f"{name} = {engine.parameter(name, 'text')}")
            bound[name] = value
    text = sql_text("like_requests").format(
        columns=", ".join(COLUMNS),
        relation=requests_with_model(engine),
        in_window=in_window(engine),
        filter=" and ".join(conditions),
        seq=engine.parameter("seq", "int"),
    )
    return engine.query(text, start=span[0], end=span[1], **bound, seq=but_seq)


def faster_before(source: Source, key: Key, before_us: int, *, now: datetime) -> tuple[int, int] | None:
    """The newest hours of the week before `before_us` that were clearly faster than the `LOOK_BACK_US` before it.

    By the median time per output token, or of the duration where no source says that; None where there are none.
    """
    edges = (before_us - LOOK_FURTHER // timedelta(microseconds=1), before_us)
    start, end = (datetime.fromtimestamp(edge / 1e6, now.tzinfo) for edge in edges)
    window = Window(start, end, str(now.tzinfo), "the week before")
    only = RequestFilter(operation=key[0], model=key[1], status="ok")
    by, measures = ("operation", "model"), ("time_per_output_token",)
    summary = summarize_requests(source, window, now=now, by=by, only=only, step_s=3600, measures=measures)
    medians: dict[int, float] = {}
    for one in summary.groups:
        spread = one.time_per_output_token or one.duration
        if (one.operation, one.model) == key and one.begins_at and spread and spread.n >= HOUR_MIN:
            medians[round(one.begins_at.timestamp() * 1e6)] = spread.p50
    recent = [median for begins_us, median in medians.items() if begins_us >= before_us - LOOK_BACK_US]
    if not recent:
        return None
    earlier = {at: one for at, one in medians.items() if at + HOUR_US <= before_us - LOOK_BACK_US}
    fast = [at for at, one in earlier.items() if one <= FASTER_RATIO * float(np.median(recent))]
    return (max(fast), max(fast) + HOUR_US) if fast else None
