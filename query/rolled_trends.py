"""A trend that is answered from rollups: two questions, what was in each bucket of time and in each of the sketches.

Both are short texts that give one row per series and bucket; what little is left to add up is added up here. As one
text they took twice as long, all of it to be planned by the engine.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from query.engine import Engine, sql_text
from query.resolutions import RollupPlan
from store.sketch import quantile

Row = Mapping[str, Any]
Key = tuple[Any, ...]


def rolled_rows(
    engine: Engine,
    keys: Sequence[str],
    fragments: Mapping[str, str],
    parameters: Mapping[str, Any],
    *,
    is_counter: bool,
) -> list[dict[str, Any]]:
    """The rows of a trend as `trend_of_gauge` and `trend_of_counter` give them, one per series and bucket."""
    plan = engine.plan
    if plan is None:
        raise ValueError("there is no plan to answer from rollups")
    suffix = "counter" if is_counter else "gauge"
    runs = sql_text("runs_of_counter").format(**fragments).rstrip() if is_counter else ""
    cells = _rows(engine, sql_text(f"cells_of_{suffix}").format(**fragments, runs=runs), parameters)
    tally = _rows(engine, sql_text(f"tally_of_{suffix}").format(**fragments, runs=runs), parameters)
    tallies = _by_series(tally, keys)
    found: list[dict[str, Any]] = []
    for key, rows in _by_series(cells, keys).items():
        statistic = _statistic(rows, tallies.get(key, ()), is_counter=is_counter)
        if statistic["n"]:
            identity = dict(zip(keys, key, strict=True))
            found += [{**identity, **statistic, "bucket": row["bucket"], "bucket_value": _mean(row)} for row in rows]
    return found


def plan_parameters(plan: RollupPlan) -> dict[str, int]:
    """The edges of a plan, as the texts name them."""
    edges = {}
    for name, span in (("rolled", plan.rolled), ("hours", plan.hours), ("sketched", plan.sketched)):
        edges[f"{name}_from"], edges[f"{name}_to"] = span
    return edges | {"upto_seq": plan.upto_seq}


def plan_fragments(engine: Engine, kind: str) -> dict[str, str]:
    """The fragments that say which cells and which events are looked at."""
    first_us, last_us = engine.epoch_us("first_at"), engine.epoch_us("last_at")
    start, step = engine.parameter("start", "int"), engine.parameter("step", "int")
    rolled_from, rolled_to = (engine.parameter(f"rolled_{edge}", "time") for edge in ("from", "to"))
    return {
        "minute_cells": engine.cells(kind, "minute"),
        "hour_cells": engine.cells(kind, "hour"),
        "in_minute_cells": f"{_in_range(engine, 'rolled')} and not ({_in_range(engine, 'hours')})",
        "in_hour_cells": _in_range(engine, "hours"),
        "in_sketched": _in_range(engine, "sketched"),
        "not_rolled": f"(observed_at < {rolled_from} or observed_at >= {rolled_to}"
        f" or seq > {engine.parameter('upto_seq', 'int')})",
        "cell_bucket": engine.bucket("begins_at", step),
        "cell_hours": f"(({first_us} + {last_us}) / 2.0 - {start}) / 3600000000.0",
        "cell_hour": engine.bucket("begins_at", "3600"),
        "hour": engine.bucket("observed_at", "3600"),
        "minute": engine.bucket("observed_at", "60"),
        "first_us": first_us,
        "last_us": last_us,
        "last_step_us": engine.epoch_us("last_step_at"),
        "start": start,
        "sketch_bucket": engine.sketch_bucket("value"),
    }


def _in_range(engine: Engine, name: str) -> str:
    first, after = (engine.parameter(f"{name}_{edge}", "time") for edge in ("from", "to"))
    return f"begins_at >= {first} and begins_at < {after}"


def _rows(engine: Engine, sql: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The answer to a text, with those of the parameters that it names."""
    return engine.rows(sql, **engine.used(sql, parameters))


def _by_series(rows: Sequence[Row], keys: Sequence[str]) -> dict[Key, list[Row]]:
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def _statistic(rows: Sequence[Row], tally: Sequence[Row], *, is_counter: bool) -> dict[str, Any]:
    """The figures of one series over all its buckets."""
    filled = [row for row in rows if row["n"]]
    newest = max(rows, key=lambda row: row["last_us"])
    n, total, weight = (sum(row[name] for row in rows) for name in ("n", "total", "weight"))
    least, greatest = min((row["min"] for row in filled), default=0.0), max((row["max"] for row in filled), default=0.0)
    return {
        "newest_name": newest["name"],
        "newest_us": newest["last_us"],
        "n": n,
        "min": least,
        "avg": total / weight if weight else 0.0,
        "p50": _percentile(tally, 0.5, least, greatest),
        "p95": _percentile(tally, 0.95, least, greatest),
        "max": greatest,
        "last": max(filled, key=lambda row: row["bucket"])["last"] if filled else None,
        "slope_per_hour": _slope(rows, n),
        "covered_seconds": sum(row["covered_seconds"] for row in rows),
        **({"increase": total} if is_counter else {}),
    }


def _mean(row: Row) -> float | None:
    return row["total"] / row["weight"] if row["n"] else None


def _percentile(tally: Sequence[Row], share: float, least: float, greatest: float) -> float | None:
    """The quantile of the sketches, within the extremes, which are exact."""
    counts: dict[int, int] = {}
    for row in tally:
        counts[row["sketch_bucket"]] = counts.get(row["sketch_bucket"], 0) + row["n"]
    found = quantile(counts, share)
    return None if found is None else max(least, min(greatest, found))


def _slope(rows: Sequence[Row], n: int) -> float | None:
    sum_x, sum_xx, sum_xy, sum_y = (sum(row[name] for row in rows) for name in ("sum_x", "sum_xx", "sum_xy", "sum_y"))
    spread = n * sum_xx - sum_x * sum_x
    # Equal times leave what rounding leaves of the difference of two equal products.
    return float((n * sum_xy - sum_x * sum_y) / spread) if spread > 1e-12 * n * sum_xx else None
