"""`dgx_gpu_info`: what each GPU is, while it is sampled.

The inventory is written when it changes, so each sample of a GPU is joined with the newest description before it.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from query.engine import Engine
from query.promql.families import JOB, HistoryFamily, Labels
from query.promql.series import Series
from query.promql.vectors import Bools
from query.reading.local_source import LocalSource
from store.derivations import GPU_INFO, GPU_INFO_LABELS
from store.events import INVENTORY

FAMILY = HistoryFamily(GPU_INFO, "gauge", "What each GPU is.", INVENTORY, ())

Described = tuple[int, dict[str, str]]
"""From when on, in milliseconds, and the labels."""


def info_series(source: LocalSource, sampled: Sequence[Series], end_ms: int) -> list[Series]:
    """The descriptions of GPUs as series of 1.

    Args:
        source: The ledger.
        sampled: The series of `dgx_gpu_up`, whose times they get.
        end_ms: Up to when descriptions count.
    """
    described = _descriptions(source, end_ms)
    found = []
    for series in sampled:
        labels = dict(series.labels)
        history = described.get((labels["instance"], labels["uuid"]), [])
        begins_ms = np.array([from_ms for from_ms, _ in history], np.int64)
        which = np.searchsorted(begins_ms, series.time_ms, "right") - 1
        for one in _distinct(history):
            is_it = np.isin(which, [place for place, (_, told) in enumerate(history) if told == one])
            if is_it.any():
                found.append(_while(series, is_it, _labels(labels, one)))
    return found


def _distinct(history: Sequence[Described]) -> list[dict[str, str]]:
    return [dict(one) for one in dict.fromkeys(tuple(told.items()) for _, told in history)]


def _labels(of_gpu: dict[str, str], described: dict[str, str]) -> Labels:
    told = {name: value for name, value in described.items() if value}
    same = {name: of_gpu[name] for name in ("gpu", "uuid", "instance")}
    return tuple(sorted({**same, **told, "job": JOB, "__name__": GPU_INFO}.items()))


def _while(series: Series, is_it: Bools, labels: Labels) -> Series:
    """1 at the samples that the description is of, stale at the others."""
    values = np.where(is_it & ~np.isnan(series.values), 1.0, np.nan)
    return replace(series, labels=labels, values=values)


def _descriptions(source: LocalSource, end_ms: int) -> dict[tuple[str, str], list[Described]]:
    """Of each host and GPU what it was described as, in order of time."""
    with source.engine([INVENTORY.name], end_us=end_ms * 1000 + 1000) as engine:
        rows = engine.query(_sql(engine), end=end_ms * 1000 + 1000).to_pylist()
    found: dict[tuple[str, str], list[Described]] = {}
    for row in rows:
        told = {name: str(row[name] or "") for name in GPU_INFO_LABELS}
        found.setdefault((row["host"], row["gpu_uuid"]), []).append((row["at_us"] // 1000, told))
    return found


def _sql(engine: Engine) -> str:
    return (
        f"select host, gpu_uuid, {', '.join(GPU_INFO_LABELS)}, {engine.epoch_us('observed_at')} as at_us "
        f"from {engine.relation(INVENTORY.name)} "
        f"where gpu_uuid is not null and observed_at < {engine.parameter('end', 'time')} order by observed_at, seq"
    )
