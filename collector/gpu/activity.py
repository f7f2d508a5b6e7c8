"""What a GPU did between two ticks: the driver's own sample buffers, and GPM on Hopper and newer.

Both remember where they were, so each GPU and session has its own.
"""

import ctypes
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pynvml

from collector.gpu.nvml import Absent, Call, Handle, absence_reason, numbers, refuse
from collector.probe import Answers
from store.events import AbsenceReason

_SAMPLES_FIRST = 128
_SAMPLES_MAX = 16_384
_ROOM_MATTERS = (pynvml.NVML_SUCCESS, pynvml.NVML_ERROR_INSUFFICIENT_SIZE)
_SAMPLE_BYTES = ctypes.sizeof(pynvml.c_nvmlSample_t)
_GPM_LOCK = threading.Lock()  # NVML's GPM calls crash the process when two threads are in them, whatever the GPUs
_MEBI = 1 << 20


def _ratio(percent: float) -> float:
    return percent / 100.0


def _bytes(mebibytes: float) -> int:
    return round(mebibytes * _MEBI)


_GPM_METRICS: Mapping[int, tuple[str, Callable[[float], float]]] = {
    pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL: ("graphics_active_ratio", _ratio),
    pynvml.NVML_GPM_METRIC_SM_UTIL: ("sm_active_ratio", _ratio),
    pynvml.NVML_GPM_METRIC_SM_OCCUPANCY: ("sm_occupancy_ratio", _ratio),
    pynvml.NVML_GPM_METRIC_INTEGER_UTIL: ("integer_active_ratio", _ratio),
    pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL: ("tensor_active_ratio", _ratio),
    pynvml.NVML_GPM_METRIC_DFMA_TENSOR_UTIL: ("tensor_dfma_active_ratio", _ratio),
    pynvml.NVML_GPM_METRIC_HMMA_TENSOR_UTIL: ("tensor_hmma_active_ratio", _ratio),
    pynvml.NVML_GPM_METRIC_IMMA_TENSOR_UTIL: ("tensor_imma_active_ratio", _ratio),
    pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL: ("dram_active_ratio", _ratio),
    pynvml.NVML_GPM_METRIC_FP64_UTIL: ("fp64_active_ratio", _ratio),
    pynvml.NVML_GPM_METRIC_FP32_UTIL: ("fp32_active_ratio", _ratio),
    pynvml.NVML_GPM_METRIC_FP16_UTIL: ("fp16_active_ratio", _ratio),
    pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC: ("pcie_tx_bytes_per_second", _bytes),
    pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC: ("pcie_rx_bytes_per_second", _bytes),
    pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_TX_PER_SEC: ("nvlink_tx_bytes_per_second", _bytes),
    pynvml.NVML_GPM_METRIC_NVLINK_TOTAL_RX_PER_SEC: ("nvlink_rx_bytes_per_second", _bytes),
}
"""Each metric's column, and the way from the vendor's scale to the column's unit."""


class DriverSamples:
    """The driver's samples of one quantity since they were read last.

    Args:
        device: The GPU.
        sampling_type: Which buffer, NVML_*_SAMPLES.
    """

    def __init__(self, device: Handle, sampling_type: int) -> None:
        self._device = device
        self._sampling_type = sampling_type
        self._since_us = ctypes.c_ulonglong()
        self._value_type = ctypes.c_int()
        self._count = ctypes.c_uint()
        self._make_room(_SAMPLES_FIRST)

    def read(self) -> Sequence[float]:
        """The values, on the vendor's scale; none the first time, when the buffer tells of before the recording.

        Raises:
            Absent, DriverAway: As `collector.gpu.nvml.Call`.
        """
        told, seen_us = self._told(), self._since_us.value
        # The buffer may hold placeholders of time 0, entries out of order, and ones that were told before.
        times = told.cast("Q")[:: _SAMPLE_BYTES // 8].tolist()
        values = numbers(self._value_type.value, told, _SAMPLE_BYTES, 8)
        self._since_us.value = max([seen_us, *times])
        if not seen_us:
            return ()
        return [
            value
            for time_us, value in zip(times, values, strict=True)
            if time_us > seen_us and not isinstance(value, AbsenceReason)
        ]

    def _told(self) -> memoryview:
        """The samples as the driver wrote them; it says nothing where it had more than there was room for."""
        while True:
            self._count.value = self._room
            code = self._fetch.code()
            if code not in _ROOM_MATTERS or self._count.value < self._room or self._room >= _SAMPLES_MAX:
                break
            self._make_room(2 * self._room)
        if code == pynvml.NVML_ERROR_NOT_FOUND:
            return memoryview(b"")  # nothing is newer
        refuse(code)
        return memoryview(self._memory).cast("B")[: self._count.value * _SAMPLE_BYTES]

    def _make_room(self, count: int) -> None:
        self._room = count
        self._memory = ctypes.create_string_buffer(count * _SAMPLE_BYTES)
        told = (ctypes.byref(self._value_type), ctypes.byref(self._count), self._memory)
        self._fetch = Call("nvmlDeviceGetSamples", self._device, self._sampling_type, self._since_us, *told)


class Gpm:
    """GPU performance monitoring: what the multiprocessors and pipes did since the tick before.

    Needs Hopper or newer and no DCGM, and may be reserved to root (RmProfilingAdminOnly).

    Args:
        device: The GPU.
        gpu_instance_id: Which part of it, where that is a MIG device.
    """

    columns = tuple(column for column, _ in _GPM_METRICS.values())
    _METRIC = struct.Struct(f"IId{ctypes.sizeof(pynvml.c_nvmlGpmMetric_t) - 16}x")  # id, code, value, its description

    def __init__(self, device: Handle, gpu_instance_id: int | None = None) -> None:
        self._device = device
        self._gpu_instance_id = gpu_instance_id
        self._before: Any = None
        self._spare: Any = None
        self._question = pynvml.c_nvmlGpmMetricsGet_t()
        self._question.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        self._question.numMetrics = len(_GPM_METRICS)
        for slot, metric_id in enumerate(_GPM_METRICS):
            self._question.metrics[slot].metricId = metric_id
        self._compare = Call("nvmlGpmMetricsGet", ctypes.byref(self._question))
        begin = pynvml.c_nvmlGpmMetricsGet_t.metrics.offset
        self._metrics = memoryview(self._question).cast("B")[begin : begin + len(_GPM_METRICS) * self._METRIC.size]

    def read(self) -> Answers:
        """Since the tick before, by column: shares of time or of the most possible, 0 to 1, and bytes per second.

        Raises:
            Absent, DriverAway: As `collector.gpu.nvml.Call`.
        """
        # Not waited for: whoever holds it in another thread hangs in the driver.
        if not _GPM_LOCK.acquire(blocking=False):
            raise Absent(AbsenceReason.NO_DATA)
        try:
            return self._measured()
        finally:
            _GPM_LOCK.release()

    def _measured(self) -> Answers:
        if self._spare is None:
            self._spare = self._first_sample()
        self._take(self._spare)
        before, self._before, self._spare = self._before, self._spare, self._before
        if before is None:
            self._spare = _new_sample()
            return dict.fromkeys(self.columns, AbsenceReason.NO_DATA)  # a share of time needs two samples
        self._question.sample1, self._question.sample2 = before, self._before
        self._compare()
        answers: dict[str, Any] = {}
        told = self._METRIC.iter_unpack(self._metrics)
        for (column, scaled), (_, code, value) in zip(_GPM_METRICS.values(), told, strict=True):
            answers[column] = absence_reason(code) if code else scaled(value)
        return answers

    def _first_sample(self) -> Any:
        support = pynvml.c_nvmlGpmSupport_t()
        support.version = pynvml.NVML_GPM_SUPPORT_VERSION
        Call("nvmlGpmQueryDeviceSupport", self._device, ctypes.byref(support))()
        if not support.isSupportedDevice:
            raise Absent(AbsenceReason.NOT_SUPPORTED, pynvml.NVML_ERROR_NOT_SUPPORTED)
        return _new_sample()

    def _take(self, sample: Any) -> None:
        if self._gpu_instance_id is None:
            Call("nvmlGpmSampleGet", self._device, sample)()
        else:
            Call("nvmlGpmMigSampleGet", self._device, self._gpu_instance_id, sample)()


def _new_sample() -> Any:
    sample = pynvml.c_nvmlGpmSample_t()
    Call("nvmlGpmSampleAlloc", ctypes.byref(sample))()
    return sample
