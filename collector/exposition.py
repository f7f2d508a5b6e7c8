"""The live values in Prometheus' exposition format: a custom collector built from the declarations.

A family without a value is absent; so is everything about a GPU that does not answer, but for `dgx_gpu_up` and what
it is. When sampling has stopped, all but the collector's own are: a value that nobody reads any more is not fresh.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from collector.ingest.tally import Tally
from collector.probe import Condition
from collector.sampler import Latest
from store.derivations import GPU_INFO, GPU_INFO_LABELS, PrometheusFamily, prometheus_families, prometheus_labels
from store.errors import GpuledgerError
from store.events import KINDS, Event, Field

_KINDS = ("gpu_sample", "system_sample", "device_sample", "server_sample")
"""Sample kinds that are exposed."""

_UP = (Condition.ANSWERS, Condition.PAUSED)


@dataclass(frozen=True, slots=True)
class UpkeepFigures:
    """The children that seal, compact and retain, since the start of this process.

    Args:
        runs: How many ended.
        failures: How many of them failed, or could not be started.
        seconds: How long those that ended took, as the ticks saw them.
    """

    runs: int = 0
    failures: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class LedgerFigures:
    """What the folder of the ledger is like at each scrape.

    Args:
        quarantined_files: How many files were set aside.
        free_bytes: Bytes left on its file system.
        size_bytes: Bytes that the ledger itself takes.
        upkeep: What its upkeep did.
    """

    quarantined_files: Callable[[], int]
    free_bytes: Callable[[], int]
    size_bytes: Callable[[], int]
    upkeep: Callable[[], UpkeepFigures]


@dataclass(frozen=True, slots=True)
class Received:
    """What came over HTTP, and what inference servers said of themselves.

    Args:
        tally: Counts of what came.
        servers: Gives the rows of servers that stand for now, scraped or sent.
    """

    tally: Tally
    servers: Callable[[], Sequence[Event]]


class LiveCollector(Collector):
    """Turns the newest tick into families.

    Args:
        latest: Gives the state after the newest tick.
        is_fresh: Whether that tick is recent enough to stand for now.
        version: Of the program.
        ledger: What the ledger's folder is like; left out where there is none.
        received: What came over HTTP; left out where nothing can.
    """

    def __init__(
        self,
        latest: Callable[[], Latest],
        is_fresh: Callable[[], bool],
        version: str,
        ledger: LedgerFigures | None = None,
        received: Received | None = None,
    ) -> None:
        self._ledger = ledger
        self._received = received
        self._latest = latest
        self._is_fresh = is_fresh
        self._version = version

    def collect(self) -> Iterable[Metric]:
        latest = self._latest()
        yield from self._own(latest)
        if self._ledger:
            yield from _of_ledger(self._ledger)
        if self._received:
            yield from _of_intake(self._received.tally)
        yield from _xids(latest)
        if self._is_fresh():
            yield from _info(latest)
            for kind in _KINDS:
                labels = prometheus_labels(KINDS[kind])
                rows = _newest(self._seen(kind, latest), kind, labels.values())
                for family in prometheus_families(KINDS[kind]):
                    yield from _filled(family, labels, rows)

    def _seen(self, kind: str, latest: Latest) -> Sequence[Event]:
        if kind == "server_sample":
            return self._received.servers() if self._received else ()
        return latest.devices if kind == "device_sample" else latest.events

    def _own(self, latest: Latest) -> Iterable[Metric]:
        build = GaugeMetricFamily("dgx_collector_build_info", "Version of the collector.", labels=["version"])
        build.add_metric([self._version], 1)
        yield build
        yield CounterMetricFamily("dgx_collector_ticks", "Ticks taken.", latest.ticks)
        yield CounterMetricFamily(
            "dgx_collector_missed_ticks", "Ticks that were due and not taken.", latest.missed_ticks
        )
        yield CounterMetricFamily(
            "dgx_collector_append_failures",
            "Ticks whose events the ledger did not take.",
            latest.append_failures,
        )
        yield CounterMetricFamily(
            "dgx_collector_dropped_events",
            "Events given up because the ledger took none for too long.",
            latest.dropped_events,
        )
        yield CounterMetricFamily(
            "dgx_collector_reading_seconds", "Time that ticks took to read every probe.", latest.reading_s
        )
        yield CounterMetricFamily(
            "dgx_collector_append_seconds", "Time that ticks took to append their events.", latest.append_s
        )
        yield GaugeMetricFamily(
            "dgx_collector_lag_seconds", "How much after it was due the newest tick began.", latest.late_s
        )
        up = GaugeMetricFamily(
            "dgx_collector_probe_up", "Whether a probe answers, also that it is paused.", labels=["probe"]
        )
        paused = GaugeMetricFamily(
            "dgx_collector_probe_paused", "Whether a probe was told not to look.", labels=["probe"]
        )
        for probe, condition in latest.conditions.items():
            up.add_metric([probe], float(condition in _UP))
            paused.add_metric([probe], float(condition is Condition.PAUSED))
        yield from (family for family in (up, paused) if family.samples)
        if latest.now:
            yield GaugeMetricFamily(
                "dgx_collector_last_sample_timestamp_seconds",
                "When the newest tick was taken.",
                latest.now.wall_us / 1e6,
            )


def _xids(latest: Latest) -> Iterable[Metric]:
    """When each last was is what an alert asks for: of a counter's first value there is no increase."""
    labels = ["gpu", "uuid", "xid"]
    errors = CounterMetricFamily(
        "dgx_gpu_xid_errors", "Xids the driver told of since the collector began.", labels=labels
    )
    last = GaugeMetricFamily(
        "dgx_gpu_xid_last_timestamp_seconds", "When the driver last told of an Xid.", labels=labels
    )
    for of, xid in latest.xids.items():
        errors.add_metric(of, xid.count)
        last.add_metric(of, xid.last_us / 1e6)
    yield from (family for family in (errors, last) if family.samples)


def _newest(seen: Iterable[Event], kind: str, identity: Collection[str]) -> list[Event]:
    """The rows of a kind; of one that came late and the one of the tick itself, the second."""
    rows = (event for event in seen if event.kind == kind)
    return list({tuple(row.values.get(column) for column in identity): row for row in rows}.values())


def _of_ledger(ledger: LedgerFigures) -> Iterable[Metric]:
    told = (
        ("dgx_ledger_quarantined_files", "Files that could not be read and were set aside.", ledger.quarantined_files),
        ("dgx_ledger_free_bytes", "Bytes left on the ledger's file system.", ledger.free_bytes),
        ("dgx_ledger_size_bytes", "Bytes that the ledger takes: segments, rollups and head.", ledger.size_bytes),
    )
    for name, meaning, figure in told:
        with suppress(OSError, GpuledgerError):  # absent, as every value that cannot be had
            yield GaugeMetricFamily(name, meaning, figure())
    upkeep = ledger.upkeep()
    yield CounterMetricFamily("dgx_ledger_upkeep_runs", "Sealings, with what else was due, that ended.", upkeep.runs)
    yield CounterMetricFamily("dgx_ledger_upkeep_failures", "Those that failed; they are tried again.", upkeep.failures)
    yield CounterMetricFamily("dgx_ledger_upkeep_seconds", "Time that they took.", upkeep.seconds)


def _of_intake(tally: Tally) -> Iterable[Metric]:
    """What came in, by the path that it was sent to; nothing of a path that nobody sends to."""
    events = CounterMetricFamily(
        "dgx_ingest_events", "Events that were sent, by what became of them.", labels=["path", "outcome"]
    )
    for (path, outcome), count in tally.events.items():
        events.add_metric([path, outcome], count)
    received = CounterMetricFamily("dgx_ingest_body_bytes", "Bytes of bodies as they came.", labels=["path"])
    for path, count in tally.body_bytes.items():
        received.add_metric([path], count)
    refused = CounterMetricFamily(
        "dgx_ingest_refused_bodies", "Bodies of which nothing was taken, by HTTP status.", labels=["path", "status"]
    )
    for (path, status), count in tally.refusals.items():
        refused.add_metric([path, status], count)
    yield from (family for family in (events, received, refused) if family.samples)


def _info(latest: Latest) -> Iterable[Metric]:
    info = GaugeMetricFamily(GPU_INFO, "What each GPU is.", labels=["gpu", "uuid", *GPU_INFO_LABELS])
    for uuid, values in latest.inventory.items():
        if uuid:
            words = [str(values.get(label) or "") for label in GPU_INFO_LABELS]
            info.add_metric([str(values["gpu_index"]), uuid, *words], 1)
    if info.samples:
        yield info


def _filled(family: PrometheusFamily, columns: Mapping[str, str], rows: list[Event]) -> Iterable[Metric]:
    make = CounterMetricFamily if family.type == "counter" else GaugeMetricFamily
    field_labels = [name for name, _ in family.members[0][1]] or (["reason"] if family.members[0][0].bits else [])
    metric = make(family.name, family.help, labels=[*columns, *field_labels])
    for row in rows:
        label_values = [_label(row.values.get(column)) for column in columns.values()]
        for column, labels in family.members:
            for extra, value in _values(column, row.values.get(column.name)):
                metric.add_metric([*label_values, *(value for _, value in labels), *extra], value)
    if metric.samples:
        yield metric


def _label(value: Any) -> str:
    return "" if value is None else str(value)


def _values(column: Field, value: Any) -> Iterable[tuple[tuple[str, ...], float]]:
    if value is None:
        return
    if column.bits:
        yield from (((reason,), float(bool(value & bit))) for bit, reason in column.bits.items())
    else:
        yield (), float(value)


def expose(*collectors: Collector, accept: str) -> tuple[bytes, str]:
    """The body and content type of one scrape; text or OpenMetrics, as the scraper's Accept header asks."""
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
