"""A GPU's NVLinks: one `nvlink_sample` a link and minute, and their sums where the driver gives none."""

import ctypes
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pynvml

from collector.clock import Now
from collector.gpu.calls import MEGA, Reading, kibi, unscaled
from collector.gpu.capabilities import RETRY_LAST_S, Capability, Ways
from collector.gpu.nvml import Absent, Call, FieldBatch, Handle, plain, refuse
from collector.probe import Answers, CounterEpoch, Row
from store.events import NVLINK_SAMPLE, AbsenceReason, Event

LINKS_MAX = 18  # NVLinks of one GPU, Hopper and Blackwell


def _mega(value: float) -> int:
    return int(value) * MEGA


def _bit_error_ratio(packed: float) -> float:
    """NVML packs a mantissa of four bits over a negative exponent of ten of eight."""
    return float(f"{int(packed) >> 8 & 0xF}e-{int(packed) & 0xFF}")


_FIELDS: Sequence[tuple[int, str, Callable[[float], float]]] = (
    (146, "remote_link", unscaled),
    (164, "speed_bytes_per_second", _mega),
    (138, "tx_bytes", kibi),
    (139, "rx_bytes", kibi),
    (140, "raw_tx_bytes", kibi),
    (141, "raw_rx_bytes", kibi),
    (201, "tx_packets_count", unscaled),
    (203, "rx_packets_count", unscaled),
    (206, "malformed_packets_count", unscaled),
    (207, "buffer_overruns_count", unscaled),
    (208, "rx_errors_count", unscaled),
    (209, "rx_remote_errors_count", unscaled),
    (210, "rx_general_errors_count", unscaled),
    (211, "link_integrity_errors_count", unscaled),
    (212, "tx_discards_count", unscaled),
    (213, "recoveries_count", unscaled),
    (214, "failed_recoveries_count", unscaled),
    (219, "effective_errors_count", unscaled),
    (220, "effective_bit_errors_ratio", _bit_error_ratio),
    (221, "symbol_errors_count", unscaled),
    (222, "symbol_bit_errors_ratio", _bit_error_ratio),
)
"""Field, column, and the way from the vendor's scale to the column's unit."""
_BLACKWELL_FIELDS = ((202, "tx_bytes", unscaled), (204, "rx_bytes", unscaled))
"""What takes the place of 138 and 139 there."""
_FEC_FIELDS = range(235, 251)  # blocks with 0, 1, … 15 errors
_ALL_FIELDS = (*(one[0] for one in (*_FIELDS, *_BLACKWELL_FIELDS)), *_FEC_FIELDS)
_ERRORS = (
    "replay_error_count",
    "recovery_error_count",
    "crc_flit_error_count",
    "crc_data_error_count",
    "ecc_error_count",
)
"""In the order of nvmlNvLinkErrorCounter_t."""
_REMOTE_KINDS: Mapping[int, str] = {0: "gpu", 1: "ibm_npu", 2: "nvswitch"}
_COUNTERS = [column.name for column in NVLINK_SAMPLE.fields if column.instrument == "counter"]


class GpuLinks:
    """Reads one `nvlink_sample` per NVLink of one GPU.

    Args:
        device: The GPU.
        interval_s: Time between two reads, for `interval_seconds`.
    """

    def __init__(self, device: Handle, *, interval_s: float) -> None:
        self._device = device
        self._interval_s = interval_s
        self._state = ctypes.c_uint()
        self._states = [
            Call("nvmlDeviceGetNvLinkState", device, link, ctypes.byref(self._state)) for link in range(LINKS_MAX)
        ]
        self._ways = Ways(("nvmlDeviceGetNvLinkState", self._read_states))
        self._links: dict[int, _Link] = {}
        self._fields = _LinkFields(device, ())

    @property
    def capabilities(self) -> list[Capability]:
        return self._ways.capabilities

    def read(self, identity: Mapping[str, Any], gpu_epoch: int, now: Now) -> list[Event]:
        """The rows; none of a GPU without NVLink.

        Args:
            identity: The GPU's `gpu_uuid` and `gpu_index`.
            gpu_epoch: The epoch of the GPU's own counters: what takes them back takes the links' back.
            now: The time of the rows.

        Raises:
            DriverAway: The driver is gone.
        """
        try:
            states = self._ways.take(now)
        except Absent:
            return []
        if states.keys() != self._links.keys():
            self._links = {number: self._links.get(number) or _Link(self._device, number) for number in states}
            self._fields = _LinkFields(self._device, tuple(states))
        told = self._fields.read(now)
        return [
            self._event(identity, link, link.row(states[number], told[place]), gpu_epoch, now)
            for place, (number, link) in enumerate(self._links.items())
        ]

    def _read_states(self) -> dict[int, bool]:
        """Whether each link is active, by its number; the numbers may have gaps."""
        states: dict[int, bool] = {}
        for link, call in enumerate(self._states):
            code = call.code()
            if code != pynvml.NVML_ERROR_INVALID_ARGUMENT:
                refuse(code)
                states[link] = self._state.value == pynvml.NVML_FEATURE_ENABLED
        if not states:
            raise Absent(AbsenceReason.NOT_SUPPORTED, pynvml.NVML_ERROR_NOT_SUPPORTED)
        return states

    def _event(self, identity: Mapping[str, Any], link: "_Link", row: Row, gpu_epoch: int, now: Now) -> Event:
        values = {
            **identity,
            "link": link.number,
            "interval_seconds": self._interval_s,
            "counter_epoch": max(gpu_epoch, link.epoch.follow(row.values, now)),
            **row.event_values(),
        }
        return Event("nvlink_sample", now.wall_us, values)


class _LinkFields:
    """The fields of all links of one GPU in one call; what none of them has is left alone for a while.

    A Hopper lacks half of them, and each costs the driver a look.

    Args:
        device: The GPU.
        links: The numbers of its links.
    """

    def __init__(self, device: Handle, links: Sequence[int]) -> None:
        self._device = device
        self._links = links
        self._lacking: frozenset[int] = frozenset()
        self._ask_all_s = float("-inf")
        self._batch: FieldBatch

    def read(self, now: Now) -> list[Mapping[int, float | AbsenceReason]]:
        """The fields of each link, by id, in the order of the links.

        Raises:
            DriverAway: The driver is gone.
        """
        if now.monotonic_s >= self._ask_all_s:
            self._ask(frozenset())
            self._ask_all_s = now.monotonic_s + RETRY_LAST_S
        asked = [field for field in _ALL_FIELDS if field not in self._lacking]
        try:
            _, values = self._batch.read()
        except Absent as absent:
            return [dict.fromkeys(_ALL_FIELDS, absent.reason) for _ in self._links]
        unasked: dict[int, float | AbsenceReason] = dict.fromkeys(self._lacking, AbsenceReason.NOT_SUPPORTED)
        told: list[Mapping[int, float | AbsenceReason]] = [
            unasked | dict(zip(asked, values[begin : begin + len(asked)], strict=True))
            for begin in range(0, len(values), len(asked))
        ]
        lacking = {field for field in asked if all(one[field] is AbsenceReason.NOT_SUPPORTED for one in told)}
        if lacking and len(lacking) < len(asked):
            self._ask(self._lacking | lacking)
        return told

    def _ask(self, lacking: frozenset[int]) -> None:
        self._lacking = lacking
        fields = [field for field in _ALL_FIELDS if field not in lacking]
        self._batch = FieldBatch(self._device, [(field, link) for link in self._links for field in fields])


class _Link:
    """One link: its calls, and what is known of it from row to row.

    Args:
        device: The GPU.
        number: Which of its links.
    """

    def __init__(self, device: Handle, number: int) -> None:
        self.number = number
        self.epoch = CounterEpoch(_COUNTERS)
        self._far_end: Answers = {}
        self._word, self._count, self._pci = ctypes.c_uint(), ctypes.c_ulonglong(), plain(pynvml.nvmlPciInfo_t)()
        word, count = ctypes.byref(self._word), ctypes.byref(self._count)
        self._version = Call("nvmlDeviceGetNvLinkVersion", device, number, word)
        self._remote_type = Call("nvmlDeviceGetNvLinkRemoteDeviceType", device, number, word)
        self._remote_pci = Call("nvmlDeviceGetNvLinkRemotePciInfo_v2", device, number, ctypes.byref(self._pci))
        self._errors = [
            (column, Call("nvmlDeviceGetNvLinkErrorCounter", device, number, counter, count))
            for counter, column in enumerate(_ERRORS)
        ]

    def row(self, is_active: bool, told: Mapping[int, float | AbsenceReason]) -> Row:
        """What it tells.

        Args:
            is_active: Its state.
            told: Its fields, by id.
        """
        row = Row()
        row.put({"active": is_active, **self._follow_far_end(is_active)})
        row.put(_scaled(_FIELDS, told))
        for column, answer in _scaled(_BLACKWELL_FIELDS, told).items():
            if row.absence.get(column) is AbsenceReason.NOT_SUPPORTED:  # never two counters in one column
                row.put({column: answer})
        row.put({"fec_histogram": _histogram([told[field] for field in _FEC_FIELDS])})
        row.put({column: _asked(call, lambda: self._count.value) for column, call in self._errors})
        return row

    def _follow_far_end(self, is_active: bool) -> Answers:
        """What is at the other end: asked when the link comes up, since it cannot change before it goes down."""
        if not is_active:
            self._far_end = {}
            return dict.fromkeys(("version", "remote_kind", "remote_pci_bus_id"), AbsenceReason.NO_DATA)
        if not self._far_end:
            self._far_end = {
                "version": _asked(self._version, lambda: self._word.value),
                "remote_kind": _asked(self._remote_type, lambda: _REMOTE_KINDS.get(self._word.value, "other")),
                "remote_pci_bus_id": _asked(self._remote_pci, lambda: self._pci.busId.decode(errors="replace").upper()),
            }
        return self._far_end


def _asked(call: Call, value: Callable[[], Any]) -> Any:
    """What the call left in its memory, or why it left nothing."""
    try:
        call()
    except Absent as absent:
        return absent.reason
    return value()


def _scaled(
    fields: Iterable[tuple[int, str, Callable[[float], float]]], told: Mapping[int, float | AbsenceReason]
) -> dict[str, Any]:
    values = ((column, scaled, told[field]) for field, column, scaled in fields)
    return {column: value if isinstance(value, AbsenceReason) else scaled(value) for column, scaled, value in values}


def _histogram(blocks: Sequence[float | AbsenceReason]) -> list[float | None] | AbsenceReason:
    """How many blocks had 0, 1, … errors; where none of it is known, the reason of the first."""
    known = [None if isinstance(count, AbsenceReason) else count for count in blocks]
    first = blocks[0]
    return first if isinstance(first, AbsenceReason) and not any(one is not None for one in known) else known


def link_sums(device: Handle, columns: Mapping[str, int]) -> Reading:
    """Sums over the NVLinks of fields that each link has.

    Args:
        device: The GPU.
        columns: Each column and its field.
    """
    batch = FieldBatch(device, [(field_id, link) for field_id in columns.values() for link in range(LINKS_MAX)])

    def read() -> Answers:
        codes, values = batch.read()
        if all(codes):
            refuse(codes[0])  # a GPU without NVLink is left alone for a while
        return {
            column: _sum(values[place * LINKS_MAX : (place + 1) * LINKS_MAX]) for place, column in enumerate(columns)
        }

    return Reading(tuple(columns), ("fields " + " ".join(map(str, columns.values())) + " by link", read))


def _sum(values: Sequence[float | AbsenceReason]) -> float | AbsenceReason:
    """The sum of what is there; where nothing is, the reason of the first."""
    known = [value for value in values if not isinstance(value, AbsenceReason)]
    return sum(known) if known else values[0]
