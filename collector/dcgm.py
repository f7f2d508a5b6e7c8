"""The families of NVIDIA's dcgm-exporter, from the same readings: dashboards made for it, as 12239, go on working.

Names, labels and units are DCGM's: MiB, MHz, mJ and ns. Its counters have no `_total`; prometheus_client would write
one that is declared as a counter with it, so they are of unknown type here, which no dashboard looks at.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from collector.sampler import Latest
from store.events import GPU_SAMPLE, Event, Field

_UNITS: Mapping[str, float] = {"bytes": 2.0**-20, "hertz": 1e-6, "joules": 1e3, "seconds": 1e9}
"""DCGM's units of a gauge's last word; a counter's bytes stay."""


@cache
def dcgm_fields() -> Sequence[Field]:
    """The columns of GPU samples that are one of DCGM's fields; what it makes of several columns is left out."""
    named = [column for column in GPU_SAMPLE.fields if column.dcgm and column.type not in ("string", "json")]
    count = Counter(column.dcgm for column in named)
    return [column for column in named if count[column.dcgm] == 1]


class DcgmCollector(Collector):
    """The newest tick as dcgm-exporter would tell it.

    Args:
        latest: Gives the state after the newest tick.
        is_fresh: Whether that tick is recent enough to stand for now.
        hostname: The label `Hostname`.
    """

    def __init__(self, latest: Callable[[], Latest], is_fresh: Callable[[], bool], hostname: str) -> None:
        self._latest = latest
        self._is_fresh = is_fresh
        self._hostname = hostname

    def collect(self) -> Iterable[Metric]:
        if not self._is_fresh():
            return
        latest = self._latest()
        newest = {event.values["gpu_uuid"]: event for event in latest.events if event.kind == "gpu_sample"}
        rows = [(event, self._labels(event, latest)) for event in newest.values()]
        for column in dcgm_fields():
            metric = Metric(str(column.dcgm), column.meaning, "gauge" if column.instrument != "counter" else "unknown")
            for row, labels in rows:
                if (value := row.values.get(column.name)) is not None:
                    metric.add_sample(metric.name, labels, float(value) * _factor(column))
            if metric.samples:
                yield metric

    def _labels(self, row: Event, latest: Latest) -> dict[str, str]:
        values = row.values
        described: Mapping[str, Any] = latest.inventory.get(values["gpu_uuid"], {})
        labels = {
            "gpu": values["gpu_index"],
            "UUID": values["gpu_uuid"],
            "pci_bus_id": described.get("pci_bus_id"),
            "device": f"nvidia{values['gpu_index']}",
            "modelName": described.get("name"),
            "Hostname": self._hostname,
            "DCGM_FI_DRIVER_VERSION": described.get("driver_version"),
            "GPU_I_ID": values.get("mig_gpu_instance_id"),
        }
        return {name: str(value) for name, value in labels.items() if value is not None}


def _factor(column: Field) -> float:
    if column.instrument == "counter" and column.unit == "bytes":
        return 1.0
    return _UNITS.get(column.unit, 1.0)
