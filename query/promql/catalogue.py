"""Which series there are."""

from collections.abc import Collection, Sequence

from query.engine import Engine, in_window
from query.promql import info
from query.promql.families import HistoryFamily, Labels, labels_of
from query.promql.history import History, families_of, fits
from query.promql.tree import Matcher
from query.reading.local_source import LocalSource
from store.derivations import prometheus_labels
from store.events import Kind

LOOKED_AT_US = 86_400_000_000
"""To look at every sample of a year for its labels would take minutes; who left earlier is found by asking of then."""


def series_between(
    source: LocalSource, selections: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
) -> list[Labels]:
    """The series that any of the selections means and that have a value in [start, end], in their order.

    Of a longer time its last day with events is looked at.
    """
    families = list(dict.fromkeys(family for matchers in selections for family in families_of(matchers)))
    found: list[Labels] = []
    if info.FAMILY in families:
        families.remove(info.FAMILY)
        found += _infos(source, start_ms, end_ms)
    for kind in dict.fromkeys(family.kind for family in families):
        of_kind = [family for family in families if family.kind is kind]
        found += _series_of(source, kind, of_kind, start_ms * 1000, (end_ms + 1) * 1000)
    return sorted(one for one in set(found) if any(fits(dict(one), matchers) for matchers in selections))


def _infos(source: LocalSource, start_ms: int, end_ms: int) -> list[Labels]:
    last_us = _last_us(source, "gpu_sample")
    if last_us is None:
        return []
    end_ms = min(end_ms, last_us // 1000)
    start_ms = max(start_ms, end_ms - LOOKED_AT_US // 1000)
    name = Matcher("__name__", "=", info.FAMILY.name)
    return [series.labels for series in History(source).select([name], start_ms, end_ms, None, "")]


def _last_us(source: LocalSource, kind: str) -> int | None:
    with source.reader() as reader:
        return reader.extents()[kind].last_observed_at_us


def _series_of(
    source: LocalSource, kind: Kind, families: Collection[HistoryFamily], start_us: int, end_us: int
) -> list[Labels]:
    last_us = _last_us(source, kind.name)
    if last_us is None:
        return []
    end_us = min(end_us, last_us + 1)
    start_us = max(start_us, end_us - LOOKED_AT_US)
    members = [(family, member) for family in families for member in family.members]
    with source.engine([kind.name], start_us=start_us, end_us=end_us) as engine:
        sql = _sql(engine, kind, list(dict.fromkeys(member.field.name for _, member in members)))
        rows = engine.query(sql, start=start_us, end=end_us).to_pylist()
    return [
        labels_of(family, member, str(row["host"]), row)
        for row in rows
        for family, member in members
        if row[f"n_{member.field.name}"]
    ]


def _sql(engine: Engine, kind: Kind, columns: Sequence[str]) -> str:
    keys = ", ".join(dict.fromkeys(("host", *prometheus_labels(kind).values())))
    counts = ", ".join(f"count({column}) as n_{column}" for column in columns)
    return f"select {keys}, {counts} from {engine.relation(kind.name)} where {in_window(engine)} group by {keys}"
