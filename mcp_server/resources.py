"""What can be read by its address: descriptions of the data and of the machine, and how it is now.

Each is JSON without what is not known. All of it can be had of a tool, too: models rarely read resources unasked. The
addresses of the system that this one descends from, under `dgx://`, give the same.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import anyio.to_thread
from mcp.server import MCPServer
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from mcp.server.mcpserver.resources import FunctionResource
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourceUpdated, ServerEvent

from mcp_server.answers import Answer
from mcp_server.figures import figure, json_value
from mcp_server.names import clean
from mcp_server.tools.asked import diagnosis_answer
from mcp_server.tools.data import capabilities_answer, extent_answer
from mcp_server.tools.desk import Desk
from mcp_server.tools.now import health_answer, live_answer
from mcp_server.tools.past import events_answer, metrics_answer
from query.describe import SQL_EXAMPLES, describe_kind, describe_metrics
from query.history.recorded import recorded, recorded_share
from query.history.trends import trend
from query.present.absence import why_no_values
from query.present.capabilities import capabilities
from query.present.health import health
from query.present.live import live_state
from query.present.machine import descriptions, newest
from query.present.status import ledger_status
from query.present.timeline import timeline
from query.windows import zone_info
from store.errors import GpuledgerError
from store.events import KINDS

LIVE_URI = "telemetry://live"
PUBLISHED_EVERY_S = 2.0
UTILIZATION = "gpu.utilization_percent"
_NVLINK = ("gpu_index", "link", "active", "version", "remote_kind", "remote_pci_bus_id", "speed_bytes_per_second")
_GPU_MEMORY = ("gpu_index", "memory_kind", "memory_total_bytes", "memory_used_bytes", "memory_available_bytes")


class ListenedBus(InMemorySubscriptionBus):
    """Tells listeners that there is a newer live state, and works only while somebody listens.

    Args:
        newest: Gives something that differs when there is news; asked in a thread.
        every_s: How often it is asked.
    """

    def __init__(self, newest: Callable[[], object], every_s: float = PUBLISHED_EVERY_S) -> None:
        super().__init__()
        self._newest = newest
        self._every_s = every_s
        self._listener_count = 0
        self._task: asyncio.Task[None] | None = None

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        leave = super().subscribe(listener)
        self._listener_count += 1
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._publish())
        is_listening = True

        def left() -> None:
            nonlocal is_listening
            leave()
            self._listener_count -= is_listening
            is_listening = False
            if not self._listener_count and self._task is not None:
                self._task.cancel()
                self._task = None

        return left

    async def _publish(self) -> None:
        known = await anyio.to_thread.run_sync(self._newest)
        while True:
            await asyncio.sleep(self._every_s)
            found = await anyio.to_thread.run_sync(self._newest)
            if found != known:
                known = found
                await self.publish(ResourceUpdated(uri=LIVE_URI))


@dataclass(frozen=True, slots=True)
class Readable:
    """One resource.

    Args:
        path: The address after `telemetry://`.
        description: What it holds.
        read: Gives that.
        is_inherited: Whether the predecessor had it, under `dgx://`.
    """

    path: str
    description: str
    read: Callable[[], Any]
    is_inherited: bool = False


class Resources:
    """What can be read of one ledger."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def readables(self) -> Sequence[Readable]:
        return (
            Readable("schema", "The views of SQL: what one row is, and the columns", self._schema),
            Readable("metrics", "Every metric with its unit", self._metrics),
            Readable("sql/examples", "SQL to begin with", lambda: dict(SQL_EXAMPLES)),
            Readable("status", "What is being recorded, how much, and what is absent", self._status),
            Readable("live", "GPUs and host now; listeners are told when it changes", self._live),
            Readable("events/recent", "The newest 50 events of the last day", self._events),
            Readable("hardware/specs", "The host and its GPUs, as they describe themselves", self._specs, True),
            Readable("hardware/topology", "NVLinks, PCIe links, MIG devices", self._topology, True),
            Readable("hardware/gpus", "Each GPU with its limits", lambda: self._described("gpu"), True),
            Readable("hardware/cpu", "The CPU, and how busy it is", self._cpu, True),
            Readable("hardware/memory", "Memory of the host and of each GPU", self._memory, True),
            Readable("hardware/storage", "Disks, and the room on the ledger's", lambda: self._devices("disk"), True),
            Readable("hardware/network", "Network cards and InfiniBand ports", self._network, True),
            Readable("system/capabilities", "What the driver does not tell", self._capabilities, True),
            Readable("system/health", "Whether GPUs, host and recording are well", self._health, True),
            Readable("server/info", "This server", self._info, True),
        )

    def _now(self) -> datetime:
        return self._desk.now()

    def _schema(self) -> Any:
        return {name: {"row": kind.row, "columns": [one.name for one in kind.columns]} for name, kind in KINDS.items()}

    def _metrics(self) -> Any:
        return {one.name: one.unit for one in describe_metrics()}

    def _status(self) -> Any:
        found = ledger_status(self._desk.source, now=self._now())
        return {
            "recording": found.is_recording,
            "newest_age_s": figure(found.newest_age_s),
            "size_bytes": found.size_bytes,
            "probes": {probe: clean(words, 240) for probe, words in found.probes.items()},
            "absent": dict(found.absent),
            "kinds": {one.kind: one.event_count for one in found.kinds if one.event_count},
            "set_aside": len(found.set_aside),
        }

    def _live(self) -> Any:
        return live_answer(live_state(self._desk.source, now=self._now()), "full")

    def _events(self) -> Any:
        now = self._now()
        window = self._desk.window("24h", None, now)
        found = timeline(self._desk.source, window, top=50)
        return events_answer(found, recorded(self._desk.source, window, now=now))

    def _described(self, subject: str) -> list[Any]:
        return [_row(row) for row in descriptions(self._desk.source, subject)]

    def _specs(self) -> Any:
        return {"host": self._described("host"), "gpus": self._described("gpu")}

    def _topology(self) -> Any:
        links = newest(self._desk.source, "nvlink_sample", now=self._now())
        pcie = ("gpu_index", "pci_bus_id", "pcie_link_maximum_generation", "pcie_link_maximum_width_lanes")
        return {
            "nvlinks": [_row(row, _NVLINK) for row in links],
            "pcie": [_row(row, pcie) for row in descriptions(self._desk.source, "gpu")],
            "mig": self._described("mig"),
        }

    def _cpu(self) -> Any:
        names = ("host", "cpu_utilization_percent", "load_1m_count", "load_5m_count", "load_15m_count", "cpu_count")
        samples = newest(self._desk.source, "system_sample", now=self._now())
        described = [_row(row, ("cpu_model", "cpu_count", "architecture")) for row in self._described("host")]
        return {"described": described, "now": [_row(row, names) for row in samples]}

    def _memory(self) -> Any:
        names = ("host", *(name for name in KINDS["system_sample"].by_name if name.startswith(("memory_", "swap_"))))
        host, gpus = (newest(self._desk.source, kind, now=self._now()) for kind in ("system_sample", "gpu_sample"))
        return {"host": [_row(row, names) for row in host], "gpus": [_row(row, _GPU_MEMORY) for row in gpus]}

    def _devices(self, *types: str) -> Any:
        found = newest(self._desk.source, "device_sample", now=self._now())
        return [_row(row) for row in found if row["device_type"] in types]

    def _network(self) -> Any:
        return self._devices("network", "infiniband")

    def _capabilities(self) -> Any:
        zone = zone_info(self._desk.settings.time_zone)
        with self._desk.source.reader() as reader:
            window = extent_answer(reader.extents(), self._now())
        return capabilities_answer(capabilities(self._desk.source), zone, window)

    def _health(self) -> Any:
        found = health(self._desk.source, now=self._now())
        return health_answer(found, recorded_share(self._desk.source, found.window, now=found.window.end))

    def _info(self) -> Any:
        settings = self._desk.settings
        return {"name": "gpuledger", "version": settings.version, "time_zone": settings.time_zone}

    def table(self, table: str) -> Any:
        """The columns of one view, with their meaning."""
        found = describe_kind(table)
        return {
            "view": found.name,
            "row": found.row,
            "columns": {one.name: f"{one.type}; {one.meaning}" for one in found.columns},
        }

    def gpu(self, index: int) -> Any:
        """One GPU: what it is, and how it is now."""
        described = [row for row in self._described("gpu") if row.get("gpu_index") == index]
        live = live_answer(live_state(self._desk.source, now=self._now(), gpus=[index]), "full")
        return {"described": described, "now": _plain(live)}

    def gpu_history(self, index: int, metric: str = UTILIZATION, window: str = "1h") -> Any:
        """How a metric of one GPU went."""
        now = self._now()
        found = trend(self._desk.source, metric, self._desk.window(window, None, now), now=now, gpus=[index])
        reasons = {} if found.series else {found.metric: why_no_values(self._desk.source, found)}
        return metrics_answer([found], reasons, "full")

    def request(self, request: str) -> Any:
        """Why one request took as long as it did."""
        from query.requests.diagnosis import diagnose  # noqa: PLC0415 - takes 0.1 s: not of every start

        now = self._now()
        return diagnosis_answer(diagnose(self._desk.source, request, now=now), now)

    def templates(self) -> Mapping[str, Callable[..., Any]]:
        """What answers for which addresses with places in them."""
        return {
            "telemetry://schema/{table}": self.table,
            "telemetry://gpu/{index}": self.gpu,
            "telemetry://gpu/{index}/history{?metric,window}": self.gpu_history,
            "telemetry://request/{request}": self.request,
        }

    def newest_sample(self) -> object:
        """Something that differs when there is a newer sample."""
        try:
            with self._desk.source.reader() as reader:
                return [reader.tail_edges(kind) for kind in ("gpu_sample", "system_sample")]
        except GpuledgerError as error:
            return str(error)


def add_resources(server: MCPServer[Any], resources: Resources) -> None:
    """Enter every resource and template into the server."""
    for readable in resources.readables():
        schemes = ("telemetry", "dgx") if readable.is_inherited else ("telemetry",)
        for scheme in schemes:
            server.add_resource(
                FunctionResource(
                    uri=f"{scheme}://{readable.path}",
                    name=readable.path.replace("/", "_"),
                    description=readable.description,
                    mime_type="application/json",
                    fn=_as_json(readable.read),
                )
            )
    schema, gpu, history, request = resources.templates().items()
    reads: Mapping[str, Callable[..., str]] = {
        schema[0]: lambda table: _text(schema[1], table),
        gpu[0]: lambda index: _text(gpu[1], _index(index)),
        history[0]: lambda index, metric=UTILIZATION, window="1h": _text(history[1], _index(index), metric, window),
        request[0]: lambda request: _text(resources.request, request),
    }
    for uri, function in resources.templates().items():
        server.resource(uri, name=function.__name__, description=function.__doc__, mime_type="application/json")(
            reads[uri]
        )


def _index(text: str) -> int:
    if not text.isdecimal():
        raise ResourceNotFoundError(f"There is no GPU {text[:20]!r}: give its index, as in telemetry://gpu/0")
    return int(text)


def _as_json(read: Callable[[], Any]) -> Callable[[], str]:
    return lambda: _text(read)


def _text(read: Callable[..., Any], *arguments: Any) -> str:
    try:
        found = read(*arguments)
    except GpuledgerError as error:
        raise ResourceNotFoundError(str(error)) from error
    return json.dumps(_plain(found), ensure_ascii=False, separators=(",", ":"))


def _plain(found: Any) -> Any:
    return found.model_dump(mode="json", by_alias=True, exclude_none=True) if isinstance(found, Answer) else found


def _row(row: Mapping[str, Any], names: Sequence[str] | None = None) -> dict[str, Any]:
    return {name: json_value(value) for name, value in row.items() if names is None or name in names}
