"""What a GPU did between two ticks: the driver's own sample buffers, and GPM on Hopper and newer.

Both remember where they were, so each GPU has its own.
"""

import threading
from collections.abc import Callable, Mapping
from typing import Any

import pynvml

from collector.nvml import Absent, Handle, Nvml, absence_reason, union_value
from collector.probe import Answers
from store.events import AbsenceReason

_GPM_LOCK = threading.Lock()  # NVML's GPM calls crash the process when two threads are in them, whatever the GPUs
_GPM_METRICS: Mapping[int, str] = {
    pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL: "graphics_active_ratio",
    pynvml.NVML_GPM_METRIC_SM_UTIL: "sm_active_ratio",
    pynvml.NVML_GPM_METRIC_SM_OCCUPANCY: "sm_occupancy_ratio",
    pynvml.NVML_GPM_METRIC_INTEGER_UTIL: "integer_active_ratio",
    pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL: "tensor_active_ratio",
    pynvml.NVML_GPM_METRIC_DRAM_BW_UTIL: "dram_active_ratio",
    pynvml.NVML_GPM_METRIC_FP64_UTIL: "fp64_active_ratio",
    pynvml.NVML_GPM_METRIC_FP32_UTIL: "fp32_active_ratio",
    pynvml.NVML_GPM_METRIC_FP16_UTIL: "fp16_active_ratio",
}


class DriverSamples:
    """The driver's samples of one quantity since they were read last: least, greatest, mean and count.

    Args:
        sampling_type: Which buffer, NVML_*_SAMPLES.
        quantity: What it is, the first word of its columns.
        unit: Their last word.
        scaled: From the vendor's scale to that unit.
    """

    def __init__(self, sampling_type: int, quantity: str, unit: str, scaled: Callable[[float], float]) -> None:
        self._sampling_type = sampling_type
        self._scaled = scaled
        self._seen_us: int | None = None
        measures = ("minimum", "maximum", "mean")
        self.columns = (*(f"{quantity}_{measure}_{unit}" for measure in measures), f"{quantity}_sample_count")

    def read(self, nvml: Nvml, device: Handle) -> Answers:
        fresh = self._fresh(nvml, device)
        if not fresh:
            return dict.fromkeys(self.columns, AbsenceReason.NO_DATA)
        measured = (min(fresh), max(fresh), sum(fresh) / len(fresh), len(fresh))
        return dict(zip(self.columns, measured, strict=True))

    def _fresh(self, nvml: Nvml, device: Handle) -> list[float]:
        """The values that came since; none the first time, when the buffer tells of a time before the recording."""
        try:
            value_type, samples = nvml.ask("nvmlDeviceGetSamples", device, self._sampling_type, self._seen_us or 0)
        except Absent as absent:
            if absent.code == pynvml.NVML_ERROR_INVALID_ARGUMENT:
                return []  # pynvml's way to say that there are none: it asks again for an array of length 0
            raise
        # The buffer may hold placeholders of time 0, entries out of order, and ones that were told before.
        newer = [sample for sample in samples if sample.timeStamp > (self._seen_us or 0)]
        is_first, self._seen_us = self._seen_us is None, max((one.timeStamp for one in newer), default=self._seen_us)
        values = () if is_first else (union_value(value_type, one.sampleValue) for one in newer)
        return [self._scaled(value) for value in values if not isinstance(value, AbsenceReason)]


class Gpm:
    """GPU performance monitoring: what the multiprocessors and pipes did since the tick before.

    Needs Hopper or newer and no DCGM, and may be reserved to root (RmProfilingAdminOnly).
    """

    columns = tuple(_GPM_METRICS.values())

    def __init__(self) -> None:
        self._before: Any = None
        self._spare: Any = None

    def read(self, nvml: Nvml, device: Handle) -> Answers:
        # Not waited for: whoever holds it in another thread hangs in the driver.
        if not _GPM_LOCK.acquire(blocking=False):
            raise Absent(AbsenceReason.NO_DATA)
        try:
            return self._measured(nvml, device)
        finally:
            _GPM_LOCK.release()

    def _measured(self, nvml: Nvml, device: Handle) -> Answers:
        if self._spare is None:
            self._allocate(nvml, device)
        nvml.ask("nvmlGpmSampleGet", device, self._spare)
        before, self._before, self._spare = self._before, self._spare, self._before
        if before is None:
            self._spare = nvml.ask("nvmlGpmSampleAlloc")
            return dict.fromkeys(self.columns, AbsenceReason.NO_DATA)  # a share of time needs two samples
        return self._compared(nvml, before, self._before)

    def _allocate(self, nvml: Nvml, device: Handle) -> None:
        if not nvml.ask("nvmlGpmQueryDeviceSupport", device).isSupportedDevice:
            raise Absent(AbsenceReason.NOT_SUPPORTED, pynvml.NVML_ERROR_NOT_SUPPORTED)
        self._spare = nvml.ask("nvmlGpmSampleAlloc")

    @staticmethod
    def _compared(nvml: Nvml, before: Any, after: Any) -> Answers:
        question = pynvml.c_nvmlGpmMetricsGet_t()
        question.version = pynvml.NVML_GPM_METRICS_GET_VERSION
        question.sample1, question.sample2, question.numMetrics = before, after, len(_GPM_METRICS)
        for slot, metric_id in enumerate(_GPM_METRICS):
            question.metrics[slot].metricId = metric_id
        nvml.ask("nvmlGpmMetricsGet", question)
        answers: dict[str, Any] = {}
        for slot, column in enumerate(_GPM_METRICS.values()):
            metric = question.metrics[slot]
            is_told = metric.nvmlReturn == pynvml.NVML_SUCCESS
            answers[column] = metric.value / 100.0 if is_told else absence_reason(metric.nvmlReturn)
        return answers
