"""Stragglers: the GPU of a group doing the same work that is slower or hotter than its peers, all the time.

A step of a job that runs on many GPUs takes as long as the slowest. In each minute in which a GPU and at least three
of its peers are busy, it is put against the median of those peers, in units of their median absolute deviation times
1.4826 (Iglewicz and Hoaglin, "How to detect and handle outliers", 1993). It stands out where it is beyond three of
them, and by what matters, in four minutes of five.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from query.analysis import Analysis
from query.engine import Engine, Source, in_window, sql_text
from query.history.recorded import recorded_seconds, recorded_share
from query.statistics.robust_line import MAD_TO_SIGMA
from query.windows import Window
from store.rollups.cells import Floats

BUSY_PERCENT = 50
PEERS_LEAST = 3
MINUTES_LEAST = 10
PERSISTENT_RATIO = 0.8
Z_LEAST = 3.0
BUCKETS_MAX = 2000


@dataclass(frozen=True, slots=True)
class _Measure:
    """What is compared.

    Args:
        column: Of the answer to `gpu_minutes`.
        metric: What it is called elsewhere.
        sign: 1 where more is worse, -1 where less is.
        least: By how much it must differ to matter: as a share of the peers' median where `is_share`, else in its unit.
        is_share: See `least`.
    """

    column: str
    metric: str
    sign: int
    least: float
    is_share: bool


MEASURES = (
    _Measure("clock", "clock_sm_hertz", -1, 0.02, is_share=True),
    _Measure("temperature", "temperature_celsius", 1, 8.0, is_share=False),
    _Measure("power", "power_watts", -1, 0.08, is_share=True),
    _Measure("sm_active", "sm_active_ratio", 1, 0.1, is_share=False),
)


@dataclass(frozen=True, slots=True)
class Deviation:
    """In what a GPU stands out.

    Args:
        metric: `clock_sm_hertz` (lower), `temperature_celsius` (higher), `power_watts` (lower) or `sm_active_ratio`
            (higher: its peers wait for it).
        value: Its median over the minutes, in the metric's unit.
        peers_value: The median of its peers'.
        robust_z: The median of its distance in the peers' scaled deviations.
        persistent_ratio: In which share of the minutes it stood out.
    """

    metric: str
    value: float
    peers_value: float
    robust_z: float
    persistent_ratio: float


@dataclass(frozen=True, slots=True)
class PeerGpu:
    """One GPU beside its peers.

    Args:
        host, gpu_uuid, gpu_index: Which.
        compared_minutes: How many minutes it was busy beside enough peers.
        deviations: In what it stands out, most distant first.
    """

    host: str
    gpu_uuid: str
    gpu_index: int | None
    compared_minutes: float
    deviations: tuple[Deviation, ...]


@dataclass(frozen=True, slots=True)
class PeerGroup:
    """GPUs that do the same work.

    Args:
        name: Their product; None where it is not known.
        work: The Slurm job, pod or container they have in common; None for the GPUs of one host that have none.
        host: Of GPUs without such work.
        n: How many there are.
        reason: Why they were not compared; None where they were.
        gpus: Each of them, those that stand out first.
    """

    name: str | None
    work: str | None
    host: str | None
    n: int
    reason: str | None
    gpus: tuple[PeerGpu, ...]


@dataclass(frozen=True, slots=True)
class Stragglers(Analysis):
    """Which GPUs lag behind their peers.

    Args:
        n: How many GPUs were compared.
        groups: All groups of GPUs.
    """

    groups: tuple[PeerGroup, ...]

    @property
    def found(self) -> tuple[PeerGpu, ...]:
        return tuple(gpu for group in self.groups for gpu in group.gpus if gpu.deviations)


def stragglers(source: Source, window: Window, *, now: datetime) -> Stragglers:
    """Which GPUs lag behind peers that do the same work in `window`.

    Args:
        source: Where the events are.
        window: The time asked about.
        now: The time of the question.
    """
    kinds = ["gpu_sample", "process_sample"]
    with source.engine(kinds, start_us=window.start_us, end_us=window.end_us) as engine:
        bucket_s = max(60, round(recorded_seconds(engine, "gpu_sample", window) / BUCKETS_MAX))
        rows = _minutes(engine, window, bucket_s)
        work = _work(engine, window)
    with source.engine(["inventory"]) as engine:
        named = engine.query(sql_text("gpu_names").format(relation=engine.relation("inventory"))).to_pylist()
    names = {row["gpu_uuid"]: row["name"] for row in named}
    groups = _groups(rows, work, names, bucket_s)
    return Stragglers(
        window=window,
        coverage=recorded_share(source, window, now=now),
        n=sum(group.n for group in groups if group.reason is None),
        method=f"robust z against the peers' median and MAD in each {bucket_s} s in which both are at least "
        f"{BUSY_PERCENT} % utilized; beyond {Z_LEAST:g} in {100 * PERSISTENT_RATIO:g} % of them",
        limits=(
            "that GPUs of one job, pod, container or else of one host do the same work is taken for granted",
            "where most of a group lags, the median lags with it",
        ),
        groups=groups,
    )


def _minutes(engine: Engine, window: Window, bucket_s: int) -> list[dict[str, Any]]:
    text = sql_text("gpu_minutes").format(
        bucket=engine.bucket("observed_at", engine.parameter("step", "int")),
        relation=engine.relation("gpu_sample"),
        in_window=in_window(engine),
    )
    rows: list[dict[str, Any]] = engine.query(text, start=window.start_us, end=window.end_us, step=bucket_s).to_pylist()
    return rows


def _work(engine: Engine, window: Window) -> dict[tuple[str, str], str]:
    """What was seen most often on each GPU."""
    text = sql_text("gpu_work").format(relation=engine.relation("process_sample"), in_window=in_window(engine))
    found: dict[tuple[str, str], str] = {}
    for row in engine.query(text, start=window.start_us, end=window.end_us).to_pylist():
        found.setdefault((row["host"], row["gpu_uuid"]), row["work"])
    return found


_Gpu = tuple[str, str]


def _groups(
    rows: Sequence[dict[str, Any]], work: Mapping[_Gpu, str], names: Mapping[str, str | None], bucket_s: int
) -> tuple[PeerGroup, ...]:
    by_gpu: dict[_Gpu, list[dict[str, Any]]] = {}
    for row in rows:
        by_gpu.setdefault((row["host"], row["gpu_uuid"]), []).append(row)
    members: dict[tuple[str | None, str | None, str | None], list[_Gpu]] = {}
    for gpu in by_gpu:
        own = work.get(gpu)
        members.setdefault((names.get(gpu[1]), own, None if own else gpu[0]), []).append(gpu)
    groups = [_group(key, {gpu: by_gpu[gpu] for gpu in gpus}, bucket_s) for key, gpus in members.items()]
    return tuple(sorted(groups, key=lambda one: (one.reason is not None, str(one.host), str(one.work))))


def _group(
    key: tuple[str | None, str | None, str | None], by_gpu: Mapping[_Gpu, list[dict[str, Any]]], bucket_s: int
) -> PeerGroup:
    columns = _columns(by_gpu)
    is_busy = columns["utilization"] >= BUSY_PERCENT  # NaN is not
    gpus = [_peer(at, gpu, by_gpu[gpu], columns, is_busy, bucket_s) for at, gpu in enumerate(by_gpu)]
    gpus.sort(key=lambda one: (not one.deviations, one.host, one.gpu_index is None, one.gpu_index or 0))
    longest = max(one.compared_minutes for one in gpus)
    return PeerGroup(*key[:2], host=key[2], n=len(gpus), reason=_why_not(len(gpus), longest), gpus=tuple(gpus))


def _why_not(n: int, compared_minutes: float) -> str | None:
    if n <= PEERS_LEAST:
        return f"{n} of a kind do the same work, and a GPU is compared with {PEERS_LEAST} peers at least"
    if compared_minutes < MINUTES_LEAST:
        return f"they were busy together for {compared_minutes:g} minutes, and it takes {MINUTES_LEAST}"
    return None


def _columns(by_gpu: Mapping[_Gpu, list[dict[str, Any]]]) -> dict[str, Floats]:
    """Of each measure, a row a GPU and a column a bucket; NaN where there is nothing."""
    buckets = sorted({row["bucket"] for rows in by_gpu.values() for row in rows})
    place = {bucket: at for at, bucket in enumerate(buckets)}
    found = {}
    for column in ("utilization", *(one.column for one in MEASURES)):
        values = np.full((len(by_gpu), len(buckets)), np.nan)
        for at, rows in enumerate(by_gpu.values()):
            for row in rows:
                if row[column] is not None:
                    values[at, place[row["bucket"]]] = row[column]
        found[column] = values
    return found


def _peer(
    at: int,
    gpu: _Gpu,
    rows: Sequence[dict[str, Any]],
    columns: Mapping[str, Floats],
    is_busy: NDArray[np.bool_],
    bucket_s: int,
) -> PeerGpu:
    is_compared = is_busy[at] & (is_busy.sum(axis=0) > PEERS_LEAST)
    minutes = float(is_compared.sum()) * bucket_s / 60
    deviations = []
    if minutes >= MINUTES_LEAST:
        told = (_deviation(one, at, np.where(is_busy, columns[one.column], np.nan)[:, is_compared]) for one in MEASURES)
        deviations = [one for one in told if one]
    deviations.sort(key=lambda one: -abs(one.robust_z))
    return PeerGpu(gpu[0], gpu[1], rows[-1]["index_then"], minutes, tuple(deviations))


def _deviation(measure: _Measure, at: int, values: Floats) -> Deviation | None:
    """How one GPU differs from the others in one measure; None where it does not, or too few say."""
    is_known = np.isfinite(values[at]) & (np.isfinite(values).sum(axis=0) > PEERS_LEAST)
    if is_known.sum() < values.shape[1] / 2 or not is_known.any():
        return None
    own, peers = values[at, is_known], np.delete(values, at, axis=0)[:, is_known]
    median = np.nanmedian(peers, axis=0)
    least = measure.least * (np.abs(median) if measure.is_share else 1.0)
    # Peers that are all alike would make every difference infinite: a third of what matters is the least deviation.
    scale = np.maximum(MAD_TO_SIGMA * np.nanmedian(np.abs(peers - median), axis=0), least / Z_LEAST)
    z = (own - median) / scale
    stands_out = (measure.sign * z >= Z_LEAST) & (measure.sign * (own - median) >= least)
    persistent = float(stands_out.mean())
    if persistent < PERSISTENT_RATIO:
        return None
    return Deviation(
        metric=measure.metric,
        value=float(np.median(own)),
        peers_value=float(np.median(median)),
        robust_z=float(np.median(z)),
        persistent_ratio=persistent,
    )
