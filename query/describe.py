"""What can be asked: the kinds of events with their columns, the metrics, and SQL to begin with."""

from collections.abc import Mapping
from dataclasses import dataclass

from query.catalogue import find_kind, metrics
from store.derivations import DUCKDB_TYPES, unit_sign
from store.events import KINDS

SQL_EXAMPLES: Mapping[str, str] = {
    "GPU utilization per minute": (
        "select time_bucket(interval '1 minute', observed_at) as minute, gpu_index, "
        "avg(utilization_percent) as percent "
        "from gpu_sample where observed_at > now() - interval '1 hour' group by all order by all"
    ),
    "Hottest moment of each GPU": (
        "select gpu_index, max(temperature_celsius) as celsius, max_by(observed_at, temperature_celsius) as at_time "
        "from gpu_sample group by gpu_index"
    ),
    "Slowest requests": (
        "select ended_at, service, operation, duration_seconds, status "
        "from request order by duration_seconds desc limit 10"
    ),
    "Time that each disk took per read": (
        "select device, "
        "(max(read_seconds) - min(read_seconds)) / nullif(max(reads_count) - min(reads_count), 0) as seconds "
        "from device_sample where device_type = 'disk' and observed_at > now() - interval '5 minutes' "
        "group by device, counter_epoch"
    ),
    "Why a value is NULL": (
        "select gpu_index, absence ->> 'fan_speed_percent' as reason, count(*) as rows from gpu_sample group by all"
    ),
    "The recorder's own life": "select observed_at, event, message from ledger_event order by seq desc limit 20",
}


@dataclass(frozen=True, slots=True)
class ColumnDescription:
    name: str
    type: str
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True)
class KindDescription:
    """A view in SQL."""

    name: str
    row: str
    cadence: str
    columns: tuple[ColumnDescription, ...]


@dataclass(frozen=True, slots=True)
class MetricDescription:
    """A metric of `trend` and `query_metrics`."""

    name: str
    unit: str
    meaning: str


def describe_kind(name: str) -> KindDescription:
    """One kind with its columns.

    Raises:
        UnknownKindError: There is no such kind.
    """
    kind = find_kind(name)
    columns = tuple(
        ColumnDescription(column.name, DUCKDB_TYPES[column.type], unit_sign(column), column.meaning)
        for column in kind.columns
    )
    return KindDescription(kind.name, kind.row, kind.cadence, columns)


def describe_metrics(search: str = "") -> tuple[MetricDescription, ...]:
    """The metrics whose name or meaning holds every word of `search`; all where it is empty."""
    words = search.lower().split()
    return tuple(
        MetricDescription(metric.name, metric.unit, metric.column.meaning)
        for metric in metrics().values()
        if all(word in f"{metric.name} {metric.column.meaning}".lower() for word in words)
    )


def kind_names() -> tuple[str, ...]:
    return tuple(KINDS)
