"""What a server said in Prometheus' text format, as the columns of its rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from collector.histograms import counted
from collector.scraping.dialects import Dialect, dialect_of
from store.events import SERVER_SAMPLE

SERIES_MAX = 16  # models and engines of one server
NAME_CHARACTERS_MAX = 200
BOUNDS: Mapping[str, float] = {"int32": 2.0**31, "int64": 2.0**63, "float32": 3.4e38}
"""What a column can hold: a server that says more, or NaN, is taken at no word rather than spoil the whole tick."""

Series = tuple[str | None, str | None]
"""Model and engine."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Observations so far: the upper bound of each bucket, how many lie at or below it, and their sum."""

    bounds: tuple[float, ...]
    cumulative: tuple[float, ...]
    total: float

    def since(self, before: "Histogram") -> "Histogram | None":
        """What came after `before`; None where these are not the same buckets, or began anew."""
        grown = tuple(now - then for now, then in zip(self.cumulative, before.cumulative, strict=False))
        if self.bounds != before.bounds or min(grown, default=0) < 0:
            return None
        return Histogram(self.bounds, grown, self.total - before.total)

    @property
    def count(self) -> int:
        return round(self.cumulative[-1]) if self.cumulative else 0

    def as_json(self) -> dict[str, Any]:
        counts = [self.cumulative[0], *(right - left for left, right in pairwise(self.cumulative))]
        return counted(self.bounds[:-1], [round(count) for count in counts], self.total)


@dataclass(frozen=True, slots=True)
class Scrape:
    """One server at one moment.

    Args:
        server_kind: Which kind of server it is.
        asked: The columns that this kind of server can fill.
        values: Of each model and engine, the columns that it gave.
        histograms: Of each, the histograms that it gave, by column.
        started_s: When the server's process started; None where it does not say.
    """

    server_kind: str
    asked: Sequence[str]
    values: Mapping[Series, Mapping[str, float]] = field(default_factory=dict)
    histograms: Mapping[Series, Mapping[str, Histogram]] = field(default_factory=dict)
    started_s: float | None = None


class UnknownServerError(Exception):
    """Nothing of what was scraped tells which kind of server it is."""


def parse_scrape(text: str) -> Scrape:
    """What a server said.

    Raises:
        ValueError: It is not in Prometheus' text format.
        UnknownServerError: It is no inference server that is known.
    """
    by_name: dict[str, list[Sample]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            by_name.setdefault(sample.name, []).append(sample)
    dialect = dialect_of(by_name)
    if dialect is None:
        raise UnknownServerError
    started = by_name.get("process_start_time_seconds")
    return Scrape(
        dialect.server_kind,
        (*dialect.values, *dialect.histograms),
        _values(by_name, dialect),
        _histograms(by_name, dialect),
        started[0].value if started else None,
    )


def _first(by_name: Mapping[str, list[Sample]], names: Iterable[str]) -> list[Sample]:
    return next((by_name[name] for name in names if name in by_name), [])


def _series(sample: Sample, dialect: Dialect) -> Series:
    model, engine = (sample.labels.get(label) for label in (dialect.model_label, dialect.engine_label))
    return model and model[:NAME_CHARACTERS_MAX], engine and engine[:NAME_CHARACTERS_MAX]


def _values(by_name: Mapping[str, list[Sample]], dialect: Dialect) -> dict[Series, dict[str, float]]:
    """Each column, added up over the other labels, such as why a request finished; of shares the largest."""
    values: dict[Series, dict[str, float]] = {}
    for column, names in dialect.values.items():
        is_share = SERVER_SAMPLE.by_name[column].unit == "ratio"
        for sample in _first(by_name, names):
            series = _series(sample, dialect)
            if series in values or len(values) < SERIES_MAX:
                of_series = values.setdefault(series, {})
                before = of_series.get(column, 0.0)
                of_series[column] = max(before, sample.value) if is_share else before + sample.value
    return {series: _storable(of_series) for series, of_series in values.items()}


def _storable(values: Mapping[str, float]) -> dict[str, float]:
    return {
        column: value for column, value in values.items() if abs(value) < BOUNDS[SERVER_SAMPLE.by_name[column].type]
    }


def _histograms(by_name: Mapping[str, list[Sample]], dialect: Dialect) -> dict[Series, dict[str, Histogram]]:
    histograms: dict[Series, dict[str, Histogram]] = {}
    for column, names in dialect.histograms.items():
        buckets: dict[Series, dict[float, float]] = {}
        sums: dict[Series, float] = {}
        for sample in _first(by_name, [f"{name}_bucket" for name in names]):
            of_series = buckets.setdefault(_series(sample, dialect), {})
            bound = float(sample.labels["le"])
            of_series[bound] = of_series.get(bound, 0.0) + sample.value
        for sample in _first(by_name, [f"{name}_sum" for name in names]):
            series = _series(sample, dialect)
            sums[series] = sums.get(series, 0.0) + sample.value
        for series, of_series in buckets.items():
            bounds = tuple(sorted(of_series))
            found = Histogram(bounds, tuple(of_series[bound] for bound in bounds), sums.get(series, 0.0))
            histograms.setdefault(series, {})[column] = found
    return histograms
