"""Trends of gauges: against numpy on the same data, over sealed segments and the tail at once."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query.errors import UnknownGpuError, UnknownMetricError
from query.figures import sparkline
from query.history.trends import DAY_S, STEPS_S, Trend, bucket_width_s, trend
from query.reading import trend_reading
from query.windows import Window

Samples = Sequence[tuple[float, float | None]]  # second after the beginning, watts


def by_numpy(samples: Samples, start_s: float, end_s: float, step_s: int) -> dict[str, Any]:
    """The figures of one series of samples a second, as numpy computes them."""
    present = [(second, watts) for second, watts in samples if start_s <= second < end_s and watts is not None]
    seconds = np.array([second for second, _ in present])
    watts = np.array([watts for _, watts in present], np.float32).astype(np.float64)
    buckets = range(int(start_s // step_s), int(-(-end_s // step_s)))
    means = [watts[seconds // step_s == bucket].mean() if bucket in seconds // step_s else None for bucket in buckets]
    return {
        "n": len(watts),
        "min": watts.min(),
        "avg": watts.mean(),
        "p50": np.percentile(watts, 50),
        "p95": np.percentile(watts, 95),
        "max": watts.max(),
        "last": watts[seconds.argmax()],
        "slope_per_hour": np.polyfit(seconds / 3600, watts, 1)[0] if len(set(seconds)) > 1 else None,
        "increase": None,
        "coverage": len(watts) / (end_s - start_s),
        **{f"point {place}": mean for place, mean in enumerate(means)},
    }


def figures(found: Trend) -> dict[str, dict[str, Any]]:
    """The figures of each series by its label, as `by_numpy` gives them."""
    flat = {}
    for one in found.series:
        points = {f"point {place}": point for place, point in enumerate(one.points)}
        flat[one.label] = {name: value for name, value in asdict(one).items() if name not in NO_FIGURES} | points
    return flat


NO_FIGURES = ("label", "series", "points")


def near(expected: dict[str, Any], **tolerance: float) -> dict[str, Any]:
    return {name: value if value is None else pytest.approx(value, **tolerance) for name, value in expected.items()}


def power(book, start_s: float, end_s: float, **asked: Any) -> Trend:
    return trend(book.source, "gpu.power_watts", book.window(start_s, end_s), now=book.at(end_s), **asked)


def test_the_figures_of_several_gpus_are_those_of_numpy(book):
    random = np.random.default_rng(7)
    by_gpu: dict[str, Samples] = {
        # more samples than the 8,192 above which a quantile that samples would show itself
        str(gpu): [
            (s, None if random.random() < 0.1 else float(random.normal(300 + s / 100, 80))) for s in range(9_000)
        ]
        for gpu in range(2)
    }
    book.record(
        book.gpu(s, int(gpu), power_watts=w) for s in range(9_000) for gpu in by_gpu for _, w in by_gpu[gpu][s : s + 1]
    )
    found = power(book, 0, 9_000)
    assert figures(found) == {gpu: near(by_numpy(samples, 0, 9_000, 600), rel=1e-9) for gpu, samples in by_gpu.items()}
    assert found.step_s == 600


@settings(max_examples=20, deadline=None)
@given(
    samples=st.lists(
        st.tuples(st.integers(0, 99), st.none() | st.floats(-1e6, 1e6, width=32)),
        max_size=40,
        unique_by=lambda one: one[0],
    ),
    edges=st.tuples(st.integers(0, 99), st.integers(1, 60)),
)
def test_any_samples_in_any_order_give_the_figures_of_numpy(samples, edges, tmp_path_factory, open_book):
    book = open_book(tmp_path_factory.mktemp("any") / "ledger")
    book.record(book.gpu(second, power_watts=watts) for second, watts in samples)
    start_s, end_s = edges[0], edges[0] + edges[1]
    found = power(book, start_s, end_s)
    if any(start_s <= second < end_s and watts is not None for second, watts in samples):
        expected = by_numpy(samples, start_s, end_s, found.step_s)
        assert figures(found) == {"0": near(expected, rel=1e-6, abs=1e-3)}
    else:
        assert found.series == ()


def test_sealing_changes_no_answer(book):
    events = [book.gpu(s, gpu, power_watts=100 + s % 13 / 4) for s in range(60) for gpu in range(3)]
    answers = []
    book.append(events[:120])
    book.append(events[120:])
    answers.append(power(book, 5, 55))
    book.seal()
    answers.append(power(book, 5, 55))
    book.append([book.gpu(60, power_watts=1.0)])
    answers.append(power(book, 5, 55))
    slopes = [pytest.approx(one.slope_per_hour, rel=1e-9) for one in answers[0].series]
    assert (
        answers[1:]
        == [
            replace(
                answers[0],
                series=tuple(
                    replace(one, slope_per_hour=slope) for one, slope in zip(answers[0].series, slopes, strict=True)
                ),
            )
        ]
        * 2
    )
    assert [one.n for one in answers[0].series] == [50, 50, 50]


@pytest.mark.parametrize("metric", ["gpu.power_watts", "gpu.energy_joules"])
def test_more_events_than_are_held_in_memory_are_the_engines_with_the_same_answer(book, metric, monkeypatch):
    random = np.random.default_rng(3)
    energy = np.round(np.cumsum(random.normal(300, 80, (300, 2)), 0), 3)
    book.record(
        book.gpu(
            s,
            gpu,
            power_watts=float(random.normal(300, 80)),
            energy_joules=float(energy[s, gpu]),
            counter_epoch=s // 100,
        )
        for s in range(300)
        for gpu in range(2)
        if s % 17
    )
    at_hand = trend(book.source, metric, book.window(20, 290), now=book.at(300))
    monkeypatch.setattr(trend_reading, "EVENTS_MAX", 0)
    asked = trend(book.source, metric, book.window(20, 290), now=book.at(300))
    assert figures(asked) == {label: near(expected, rel=1e-9) for label, expected in figures(at_hand).items()}
    assert [one.n for one in asked.series] == [254 - 3 * (metric == "gpu.energy_joules")] * 2


def test_the_same_question_again_opens_no_sealed_file(book):
    book.record(book.gpu(s, power_watts=float(s)) for s in range(60))
    first = power(book, 0, 60)
    for path in book.folder.rglob("*.parquet"):
        path.unlink()
    assert power(book, 0, 60) == first


def test_a_trend_says_what_was_asked_and_how_it_was_cut(book):
    book.record(book.gpu(s, power_watts=float(s)) for s in range(4))
    window = book.window(0, 4)
    found = trend(book.source, " GPU.power_watts ", window, now=book.at(10), points=2)
    assert found == Trend(
        metric="gpu.power_watts",
        unit="W",
        increase_unit="",
        meaning="Board power, averaged by the driver over one second on Ampere and newer (not GA100).",
        window=window,
        resolution="raw",
        step_s=2,
        first_point_at=book.at(0),
        coverage=1.0,
        newest_age_s=7.0,
        series=found.series,
        absent={},
    )
    assert found.series[0].points == (0.5, 2.5)
    assert (found.series[0].label, found.series[0].series) == ("0", "GPU-0")


def test_a_window_holds_its_beginning_and_not_its_end(book):
    book.record(book.gpu(s, power_watts=s) for s in (9.999999, 10, 19.999999, 20))
    assert [(one.n, one.min, one.max) for one in power(book, 10, 20).series] == [(2, 10.0, pytest.approx(19.999999))]


def test_points_are_aligned_to_the_clock_and_none_where_nothing_was_sampled(book):
    book.record(book.gpu(s, power_watts=float(s)) for s in (7, 8, 9, 10, 30, 66, 67))
    found = power(book, 7, 67)
    assert (found.step_s, found.first_point_at) == (5, book.at(5))
    points = found.series[0].points
    assert points == (8.0, 10.0, None, None, None, 30.0, None, None, None, None, None, None, 66.0)
    assert sparkline(points) == "▁▁   ▄      █"


def test_buckets_begin_in_the_zone_of_the_window(book):
    book.record([book.gpu(0, power_watts=1.0), book.gpu(1, power_watts=2.0)])
    zone = ZoneInfo("Asia/Kathmandu")
    window = Window(book.at(0).astimezone(zone), book.at(60).astimezone(zone), zone.key, "1m")
    found = trend(book.source, "gpu.power_watts", window, now=book.at(60))
    assert found.first_point_at.isoformat() == "2026-11-22T13:45:00+05:45"


@pytest.mark.parametrize(
    ("seconds", "points", "step_s"),
    [
        (0.5, 24, 1),
        (24, 24, 1),
        (25, 24, 2),
        (3600, 24, 180),
        (3600, 60, 60),
        (86_400, 24, 3600),
        (604_800, 24, 43_200),
        (24 * 43_200 + 1, 24, DAY_S),
        (365 * DAY_S, 24, 16 * DAY_S),
    ],
)
def test_a_bucket_is_the_least_round_width_that_gives_few_enough(seconds, points, step_s):
    assert bucket_width_s(seconds, points) == step_s


@given(st.floats(0.001, 1e10), st.integers(1, 500))
def test_a_window_never_has_more_buckets_than_asked_but_one_at_its_edges(seconds, points):
    step_s = bucket_width_s(seconds, points)
    assert step_s * points >= seconds
    assert step_s in STEPS_S or step_s % DAY_S == 0
    assert all(step * points < seconds for step in STEPS_S if step < step_s)


@pytest.mark.parametrize("length", [timedelta(days=1), timedelta(days=30), timedelta(days=20_000)])
def test_a_long_window_is_cut_into_long_buckets(book, length):
    book.record(book.gpu(s, power_watts=float(s)) for s in range(4))
    window = Window(book.at(4) - length, book.at(4), "UTC", "long")
    found = trend(book.source, "gpu.power_watts", window, now=book.at(4))
    assert [point for point in found.series[0].points if point is not None] == [1.5]


@pytest.mark.parametrize(
    ("samples", "coverage"),
    [
        ([(s, 1.0) for s in range(60)], 1.0),
        ([(s, 1.0) for s in range(0, 60, 2)], 0.5),
        ([(s, 1.0) for s in range(30)] + [(s, 5.0) for s in range(30, 60, 5)], 1.0),
        ([(s, 1.0) for s in range(30)] + [(s, 5.0) for s in range(45, 60, 5)], 0.75),
        ([(s, 0.5) for s in range(60)], 0.5),
        ([(s / 10, 0.1) for s in range(600)], 1.0),
        ([(s, None) for s in range(30)], 0.5),
        ([(s, 2.0) for s in range(60)], 1.0),
    ],
    ids=[
        "complete",
        "every second one",
        "slower halfway",
        "a gap",
        "half the rate",
        "tenths",
        "by its kind",
        "too many",
    ],
)
def test_coverage_is_the_share_of_the_window_that_samples_stand_for(book, samples, coverage):
    book.record(book.gpu(s, power_watts=1.0, interval_seconds=interval_s) for s, interval_s in samples)
    found = power(book, 0, 60)
    assert [one.coverage for one in found.series] == [pytest.approx(coverage)]
    assert found.coverage == pytest.approx(coverage)


def test_the_coverage_of_a_trend_is_the_mean_over_its_series(book):
    book.record([book.gpu(s, power_watts=1.0) for s in range(10)] + [book.gpu(s, 1, power_watts=1.0) for s in range(5)])
    found = power(book, 0, 10)
    assert ([one.coverage for one in found.series], found.coverage) == ([1.0, 0.5], 0.75)


def test_a_row_without_the_value_is_not_covered_and_does_not_make_the_answer_young(book):
    book.record(book.gpu(s, power_watts=70.0 if s < 4 else None) for s in range(10))
    found = power(book, 0, 10)
    assert (found.coverage, found.newest_age_s, found.series[0].last) == (0.4, 7.0, 70.0)


def test_gpus_come_in_the_order_of_their_numbers(book):
    book.record(book.gpu(s, gpu, power_watts=1.0) for s in range(2) for gpu in (10, 2, 0, 1))
    assert [one.label for one in power(book, 0, 2).series] == ["0", "1", "2", "10"]


def test_only_the_gpus_that_were_asked_for_are_answered(book):
    book.record(book.gpu(s, gpu, power_watts=float(gpu)) for s in range(4) for gpu in range(4))
    assert [(one.label, one.avg) for one in power(book, 0, 4, gpus=(3, 1)).series] == [("1", 1.0), ("3", 3.0)]


def test_a_gpu_that_the_window_lacks_is_refused_with_those_it_has(book):
    book.record(book.gpu(s, gpu, power_watts=1.0) for s in range(4) for gpu in (0, 2, 10))
    with pytest.raises(UnknownGpuError) as refused:
        power(book, 0, 4, gpus=(2, 7))
    assert str(refused.value) == "There is no GPU 7 in this window: it has GPU 0, 2, 10"


def test_a_metric_of_the_host_cannot_be_asked_per_gpu(book):
    book.record([book.host(0, cpu_utilization_percent=1.0)])
    with pytest.raises(UnknownGpuError) as refused:
        trend(book.source, "cpu.utilization_percent", book.window(0, 1), now=book.at(1), gpus=(0,))
    assert str(refused.value) == "cpu.utilization_percent is not measured per GPU: ask for it without a GPU"


def test_an_unknown_metric_is_refused_with_the_nearest(book):
    with pytest.raises(UnknownMetricError) as refused:
        trend(book.source, "gpu.power_wats", book.window(0, 1), now=book.at(1))
    assert str(refused.value) == "There is no metric 'gpu.power_wats': did you mean 'gpu.power_watts'?"


@pytest.mark.parametrize("gpus", [(), (0,)])
def test_a_window_without_data_has_no_series_and_no_age(book, gpus):
    book.record(book.gpu(s, power_watts=1.0) for s in range(4))
    found = power(book, 100, 200, gpus=gpus)
    assert (found.series, found.coverage, found.newest_age_s, found.absent) == ((), 0.0, None, {})
    assert found.step_s == 5


def test_the_reasons_of_absent_values_are_counted(book):
    reasons = [{"power_watts": "no_permission"}] * 3 + [{"*": "lost"}] * 2 + [{"power": "not_supported"}]
    reasons += [{"temperature_celsius": "no_data"}, None, None, None]
    book.record(book.gpu(s, absence=absence) for s, absence in enumerate(reasons))
    found = power(book, 0, 60)
    assert (found.series, found.coverage, found.newest_age_s) == ((), 0.0, None)
    assert found.absent == {"no_permission": 3, "lost": 2, "not_supported": 1, "not_asked": 4}
    assert power(book, 3, 5, gpus=(0,)).absent == {"lost": 2}


def test_a_column_that_was_never_recorded_was_not_asked_for(book):
    book.record(book.gpu(s, power_watts=1.0) for s in range(6))
    found = trend(book.source, "gpu.fan_speed_percent", book.window(0, 6), now=book.at(6))
    assert (found.series, found.absent) == ((), {"not_asked": 6})


def test_an_empty_ledger_answers_with_nothing(book):
    found = power(book, 0, 60)
    assert (found.series, found.absent, found.coverage) == ((), {}, 0.0)


def test_reasons_are_left_out_where_there_are_values(book):
    book.record([book.gpu(0, power_watts=1.0), book.gpu(1, absence={"power_watts": "lost"})])
    assert power(book, 0, 2).absent == {}


def test_a_gpu_bears_its_newest_number(book):
    book.record(book.gpu(s, gpu_index=3 if s < 3 else 1, power_watts=1.0) for s in range(6))
    assert [(one.label, one.series, one.n) for one in power(book, 0, 6).series] == [("1", "GPU-0", 6)]


def test_of_two_samples_of_one_instant_the_later_recorded_is_the_last(book):
    book.record(book.gpu(0, power_watts=watts) for watts in (5.0, 9.0, 1.0, 7.0))
    assert power(book, 0, 1).series[0].last == 7.0


def test_series_that_share_a_name_are_told_apart_by_their_identity(book):
    instances = [book.gpu(s, gpu_uuid=uuid, power_watts=1.0) for s in range(2) for uuid in ("MIG-a", "MIG-b")]
    book.record([*instances, book.gpu(0, 1, power_watts=1.0)])
    labels = [(one.label, one.series) for one in power(book, 0, 2).series]
    assert labels == [("0 MIG-a", "MIG-a"), ("0 MIG-b", "MIG-b"), ("1", "GPU-1")]


def test_processes_of_one_name_are_series_of_their_own(book):
    def process(second: float, pid: int, used: int) -> Any:
        values = {"gpu_uuid": "GPU-0", "gpu_index": 0, "pid": pid, "name": "python", "interval_seconds": 5.0}
        return book.event("process_sample", second, **values, memory_used_bytes=used)

    book.record(process(s, pid, pid * 10) for s in range(0, 20, 5) for pid in (1, 2))
    found = trend(book.source, "process.memory_used_bytes", book.window(0, 20), now=book.at(20))
    assert [(one.label, one.n, one.avg, one.coverage) for one in found.series] == [
        ("python GPU-0 1", 4, 10.0, 1.0),
        ("python GPU-0 2", 4, 20.0, 1.0),
    ]


def device(book, second: float, kind: str, name: str, epoch: int = 0, **values: Any) -> Any:
    identity = {"device_type": kind, "device": name, "interval_seconds": 5.0, "counter_epoch": epoch}
    return book.event("device_sample", second, **identity, **values)


def test_each_device_is_a_series_with_its_own_rate(book):
    book.record(
        event
        for s in range(0, 20, 5)
        for event in (
            device(book, s, "disk", "nvme0n1", read_bytes=s * 10),
            device(book, s, "disk", "nvme1n1", read_bytes=s * 30),
            device(book, s, "thermal_zone", "x86_pkg_temp/thermal_zone0", temperature_celsius=50.0),
        )
    )
    found = trend(book.source, "device.read_bytes", book.window(0, 20), now=book.at(20))
    assert (found.unit, found.coverage) == ("B/s", 1.0)
    assert [(one.label, one.series, one.n, one.avg, one.increase) for one in found.series] == [
        ("nvme0n1", "disk nvme0n1", 3, 10.0, 150),
        ("nvme1n1", "disk nvme1n1", 3, 30.0, 450),
    ]


def test_a_disk_that_was_plugged_in_again_has_no_rate_over_the_gap_and_its_neighbour_has(book):
    book.record(
        event
        for s in range(0, 20, 5)
        for event in (
            device(book, s, "disk", "sda", epoch=s // 10, read_bytes=1000 if s < 10 else 1_000_000 + s),
            device(book, s, "disk", "sdb", read_bytes=s),
        )
    )
    found = trend(book.source, "device.read_bytes", book.window(0, 20), now=book.at(20))
    assert [(one.label, one.n, one.increase) for one in found.series] == [("sda", 2, 5), ("sdb", 3, 15)]


def test_devices_of_two_types_that_share_a_name_are_told_apart(book):
    book.record(
        device(book, s, kind, "mlx5_0", received_bytes=s * factor)
        for s in range(0, 20, 5)
        for kind, factor in (("network", 1), ("infiniband", 100))
    )
    found = trend(book.source, "device.received_bytes", book.window(0, 20), now=book.at(20))
    assert [(one.label, one.avg) for one in found.series] == [
        ("mlx5_0 infiniband mlx5_0", 100.0),
        ("mlx5_0 network mlx5_0", 1.0),
    ]


def test_events_that_lack_their_identity_are_not_lost(book):
    served = [("vllm", "chat"), ("vllm", None), (None, None)]
    book.record(
        book.event("request", s, service=service, operation=operation, duration_seconds=0.5)
        for s in range(4)
        for service, operation in served
    )
    found = trend(book.source, "request.duration_seconds", book.window(0, 4), now=book.at(4))
    assert [(one.label, one.series, one.n, one.avg) for one in found.series] == [
        ("", "", 4, 0.5),
        ("vllm", "vllm", 4, 0.5),
        ("chat", "vllm chat", 4, 0.5),
    ]
    assert found.coverage is None
    assert [one.coverage for one in found.series] == [None, None, None]


def test_the_host_is_one_series_without_a_label(book):
    book.record(book.host(s, cpu_utilization_percent=50.0) for s in range(4))
    found = trend(book.source, "cpu.utilization_percent", book.window(0, 4), now=book.at(4))
    assert [(one.label, one.series, one.n) for one in found.series] == [("", "node", 4)]


def test_a_host_that_was_renamed_is_two_series(book):
    book.record([book.host(0, cpu_utilization_percent=10.0)], host="old")
    book.record([book.host(1, cpu_utilization_percent=20.0)], host="new")
    found = trend(book.source, "cpu.utilization_percent", book.window(0, 4), now=book.at(4))
    assert [(one.label, one.series, one.avg) for one in found.series] == [("new", "new", 20.0), ("old", "old", 10.0)]


def test_the_answer_does_not_depend_on_the_time_zone_of_the_machine(
    book, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, open_book: Callable[[Path], Any]
):
    book.record(book.gpu(s, power_watts=1.0) for s in range(4))
    in_utc = power(book, 0, 4)
    monkeypatch.setenv("TZ", "Asia/Kathmandu")
    elsewhere = open_book(book.folder)
    assert power(elsewhere, 0, 4) == in_utc
    with elsewhere.source.engine(["gpu_sample"]) as engine:
        observed = engine.query("select observed_at from gpu_sample")["observed_at"]
    assert str(observed.type) == "timestamp[us, tz=UTC]"


def test_a_column_that_is_read_every_five_seconds_covers_the_time_between(book):
    book.record(
        book.gpu(s, power_watts=1.0, interval_seconds=1.0, **({"fan_speed_percent": 40} if s % 5 == 0 else {}))
        for s in range(20)
    )
    found = trend(book.source, "gpu.fan_speed_percent", book.window(0, 20), now=book.at(20))
    assert [(one.n, one.avg, one.coverage) for one in found.series] == [(4, 40.0, 1.0)]
