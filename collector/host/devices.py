"""The host's devices, each in a row of its own: disks, network cards, InfiniBand ports, thermal zones, NUMA nodes.

Only what is hardware, or a hypervisor's stand-in for it, has a row: its number is bounded by the machine and not by
what runs there. Loops, device mapper and RAID count again what their disks count; so do bridges, bonds, VLANs and the
two ends of every container's veth, which come and go by the hundred.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

from collector import proc
from collector.clock import Now
from collector.probe import Condition, CounterEpoch, Row, Turn
from store.events import DEVICE_SAMPLE, WARM_SECONDS, AbsenceReason, Event

DEVICES_MAX = 64  # of each type, in the kernel's order: a card with SR-IOV shows a hundred of itself
SECTOR_BYTES = 512  # of diskstats, whatever the device's own sectors are
ABSOLUTE_ZERO_CELSIUS = -273.15
_STACKED_DISKS = ("loop", "ram", "zram", "dm-", "md")


def whole_disks(root: Path) -> dict[str, list[int]]:
    """Name to the numbers of diskstats, of each disk that reaches hardware: no partitions, loops, RAM disks, stacks."""
    return {
        words[2]: [int(word) for word in words[3:]]
        for words in proc.table(f"{root}/proc/diskstats")
        if not words[2].startswith(_STACKED_DISKS) and proc.exists(f"{root}/sys/block/{words[2].replace('/', '!')}")
    }


def network_cards(root: Path) -> dict[str, list[int]]:
    """Name to the numbers of net/dev, of each interface with a device behind it.

    In a container none may have one: there it is each but loopback.
    """
    interfaces = {words[0].rstrip(":"): words[1:] for words in proc.table(f"{root}/proc/net/dev")[2:]}
    cards = [name for name in interfaces if proc.exists(f"{root}/sys/class/net/{name}/device")]
    chosen = cards or [name for name in interfaces if name != "lo"]
    return {name: [int(word) for word in interfaces[name]] for name in chosen}


@dataclass(frozen=True, slots=True)
class _Card:
    """A network card: its numbers of net/dev, and its folder under /sys."""

    numbers: Sequence[int]
    folder: str


def _cards(root: Path) -> dict[str, _Card]:
    return {name: _Card(numbers, f"{root}/sys/class/net/{name}") for name, numbers in network_cards(root).items()}


_CARD_IS_UP: Mapping[str, bool | AbsenceReason] = {
    "up": True,
    **dict.fromkeys(("down", "lowerlayerdown", "notpresent", "dormant", "testing"), False),
    "unknown": AbsenceReason.NO_DATA,
}
"""By operstate (RFC 2863)."""


def _card_speed(card: _Card) -> int | AbsenceReason:
    megabits = proc.number(f"{card.folder}/speed")
    return megabits * 125_000 if megabits > 0 else AbsenceReason.NO_DATA  # -1 where the driver does not know


def _ports(root: Path) -> dict[str, str]:
    """DEVICE/PORT to the port's folder."""
    folder = root / "sys/class/infiniband"
    return {
        f"{device.name}/{port.name}": str(port)
        for device in sorted(folder.iterdir())
        for port in sorted((device / "ports").iterdir())
    }


def _port_counter(*files: str, unit: int = 1) -> Callable[[str], int]:
    """The first of these files that there is; `unit` is that of the first. Amazon's EFA has names of its own."""

    def read(port: str) -> int:
        first, *others = files
        try:
            return unit * proc.number(f"{port}/{first}")
        except FileNotFoundError:
            if not others:
                raise
            return _port_counter(*others)(port)

    return read


def _port_speed(port: str) -> int:
    gigabits = proc.word(f"{port}/rate").partition(" ")[0]  # 400 Gb/sec (4X NDR)
    return round(float(gigabits) * 125_000_000)


def _zones(root: Path) -> dict[str, str]:
    """TYPE/ZONE to the zone's folder: two zones may be of one type, and their numbers say nothing."""
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"), key=lambda zone: (len(zone.name), zone.name))
    return {f"{proc.text(zone / 'type') or 'unknown'}/{zone.name}": str(zone) for zone in zones}


def _zone_temperature(zone: str) -> float | AbsenceReason:
    celsius = proc.number(f"{zone}/temp") / 1000
    return celsius if celsius > ABSOLUTE_ZERO_CELSIUS else AbsenceReason.NO_DATA  # firmware's word for no reading


@dataclass(frozen=True)
class _Node:
    """A NUMA node, each of its files read once."""

    folder: Path

    @cached_property
    def memory(self) -> Mapping[str, int]:
        return proc.meminfo_bytes(str(self.folder))

    @cached_property
    def pages(self) -> Mapping[str, str]:
        return proc.lines(f"{self.folder}/numastat")


def _nodes(root: Path) -> dict[str, _Node]:
    """The nodes with memory, where there is more than one: a single one is the host, which `system_sample` has."""
    folder = root / "sys/devices/system/node"
    numbers = list(_listed(proc.word(f"{folder}/has_memory")))
    return {f"node{number}": _Node(folder / f"node{number}") for number in numbers} if len(numbers) > 1 else {}


def _listed(ranges: str) -> Iterable[int]:
    """0, 2 and 3 for `0,2-3`."""
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


@dataclass(frozen=True, slots=True, eq=False)
class _DeviceType:
    """Devices that are read alike.

    Args:
        name: As in `device_type`.
        words: One of them, and several, for a person.
        find: From the root of the file system, name to whatever the columns are read from.
        columns: How each column comes from that.
        wrapping: Counters that go back by themselves, which is no restart.
    """

    name: str
    words: tuple[str, str]
    find: Callable[[Path], Mapping[str, Any]]
    columns: proc.Columns
    wrapping: frozenset[str] = frozenset()

    def new_epoch(self) -> CounterEpoch:
        counters = (column for column in self.columns if DEVICE_SAMPLE.by_name[column].instrument == "counter")
        return CounterEpoch([column for column in counters if column not in self.wrapping])

    def count_words(self, count: int) -> str:
        count_words = f"{DEVICES_MAX} of {count}" if count > DEVICES_MAX else str(count)
        return f"{count_words} {self.words[count != 1]}"


_DISK_TIMES: Mapping[str, int] = {"read_seconds": 3, "write_seconds": 7, "busy_seconds": 9, "queue_seconds": 10}
"""Column to place; the kernel keeps them in 32 bits of milliseconds."""


def _at(place: int, unit: int = 1) -> Callable[[Sequence[int]], int]:
    return lambda numbers: numbers[place] * unit


def _milliseconds_at(place: int) -> Callable[[Sequence[int]], float]:
    return lambda numbers: numbers[place] / 1000


def _card_number(place: int) -> Callable[[_Card], int]:
    return lambda card: card.numbers[place]


_TYPES = (
    _DeviceType(
        "disk",
        ("disk", "disks"),
        whole_disks,
        {
            "reads_count": _at(0),
            "read_bytes": _at(2, SECTOR_BYTES),
            "writes_count": _at(4),
            "written_bytes": _at(6, SECTOR_BYTES),
            "in_flight_count": _at(8),
            **{column: _milliseconds_at(place) for column, place in _DISK_TIMES.items()},
        },
        wrapping=frozenset(_DISK_TIMES),
    ),
    _DeviceType(
        "network",
        ("network card", "network cards"),
        _cards,
        {
            "received_bytes": _card_number(0),
            "received_packets_count": _card_number(1),
            "receive_errors_count": _card_number(2),
            "receive_drops_count": _card_number(3),
            "sent_bytes": _card_number(8),
            "sent_packets_count": _card_number(9),
            "send_errors_count": _card_number(10),
            "send_drops_count": _card_number(11),
            "link_up": lambda card: _CARD_IS_UP[proc.word(f"{card.folder}/operstate")],
            "link_down_count": lambda card: proc.number(f"{card.folder}/carrier_down_count"),
            "link_speed_bytes_per_second": _card_speed,
        },
    ),
    _DeviceType(
        "infiniband",
        ("InfiniBand port", "InfiniBand ports"),
        _ports,
        {
            "received_bytes": _port_counter("counters/port_rcv_data", "hw_counters/rx_bytes", unit=4),
            "sent_bytes": _port_counter("counters/port_xmit_data", "hw_counters/tx_bytes", unit=4),
            "received_packets_count": _port_counter("counters/port_rcv_packets", "hw_counters/rx_pkts"),
            "sent_packets_count": _port_counter("counters/port_xmit_packets", "hw_counters/tx_pkts"),
            "receive_errors_count": _port_counter("counters/port_rcv_errors"),
            "receive_drops_count": _port_counter("hw_counters/rx_drops"),
            "send_drops_count": _port_counter("counters/port_xmit_discards"),
            "link_up": lambda port: int(proc.word(f"{port}/state").partition(":")[0]) == 4,  # 4: ACTIVE
            "link_down_count": _port_counter("counters/link_downed"),
            "link_speed_bytes_per_second": _port_speed,
            "link_recoveries_count": _port_counter("counters/link_error_recovery"),
            "symbol_errors_count": _port_counter("counters/symbol_error"),
            "send_waits_count": _port_counter("counters/port_xmit_wait"),
            "out_of_sequence_count": _port_counter("hw_counters/out_of_sequence"),
            "acknowledgement_timeouts_count": _port_counter("hw_counters/local_ack_timeout_err"),
            "congestion_notifications_sent_count": _port_counter("hw_counters/np_cnp_sent"),
            "congestion_notifications_handled_count": _port_counter("hw_counters/rp_cnp_handled"),
        },
    ),
    _DeviceType(
        "thermal_zone",
        ("thermal zone", "thermal zones"),
        _zones,
        {"temperature_celsius": _zone_temperature},
    ),
    _DeviceType(
        "numa_node",
        ("NUMA node", "NUMA nodes"),
        _nodes,
        {
            "memory_total_bytes": lambda node: node.memory["MemTotal"],
            "memory_free_bytes": lambda node: node.memory["MemFree"],
            "memory_used_bytes": lambda node: node.memory["MemUsed"],
            "memory_cached_bytes": lambda node: node.memory["FilePages"],
            "numa_hit_count": lambda node: int(node.pages["numa_hit"]),
            "numa_miss_count": lambda node: int(node.pages["numa_miss"]),
            "numa_foreign_count": lambda node: int(node.pages["numa_foreign"]),
            "numa_other_node_count": lambda node: int(node.pages["other_node"]),
        },
    ),
)


class DeviceProbe:
    """Reads one `device_sample` per device, every few seconds.

    A device that is missing has no row, and one that is plugged in again begins a new counter epoch.

    Args:
        interval_s: Time between two ticks.
        root: Root of the file system that holds proc and sys.
    """

    name = "devices"
    condition = Condition.ANSWERS

    def __init__(self, *, interval_s: float, root: Path = Path("/")) -> None:
        self._turn = Turn(WARM_SECONDS, interval_s)
        self._root = root
        self._epochs: dict[tuple[str, str], CounterEpoch] = {}
        self._status = "no device"

    def read(self, now: Now) -> Sequence[Event]:
        if not self._turn.has_come(now):
            return []
        found = {kind: _found(kind, self._root) for kind in _TYPES}
        self._status = ", ".join(kind.count_words(len(devices)) for kind, devices in found.items() if devices)
        epochs, self._epochs = self._epochs, {}
        events = []
        for kind, devices in found.items():
            for name, device in islice(devices.items(), DEVICES_MAX):
                epoch = epochs.get((kind.name, name)) or kind.new_epoch()
                self._epochs[kind.name, name] = epoch
                events.append(Event("device_sample", now.wall_us, self._row(kind, name, device, epoch, now)))
        return events

    def status(self) -> str:
        return self._status or "no device"

    def close(self) -> None:
        pass

    def _row(self, kind: _DeviceType, name: str, device: Any, epoch: CounterEpoch, now: Now) -> dict[str, Any]:
        row = Row()
        row.put(proc.answers(kind.columns, device))
        return {
            "device_type": kind.name,
            "device": name,
            "interval_seconds": self._turn.every_s,
            "counter_epoch": epoch.follow(row.values, now),
            **row.event_values(),
        }


def _found(kind: _DeviceType, root: Path) -> Mapping[str, Any]:
    """The devices of one type; none where the kernel keeps no such list."""
    devices = proc.value_or_reason(partial(kind.find, root))
    return {} if isinstance(devices, AbsenceReason) else devices
