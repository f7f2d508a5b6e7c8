"""Trends from rollups equal those from the events, wherever both can answer."""

from contextlib import closing
from dataclasses import replace
from typing import Any

import apsw
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from query.errors import UnknownGpuError
from query.history import trends
from query.history.trends import Trend, TrendSeries, trend
from query.reading import resolutions
from store.events import Event
from store.rollups.sketch import RELATIVE_ERROR
from store.rollups.updating import rebuild_rollups, update_rollups

HOUR_S = 3600
DAY_S = 24 * HOUR_S
FIGURES = ("label", "series", "n", "min", "avg", "max", "last", "increase", "coverage")


def roll(book, at_s: float) -> None:
    """Seal everything and bring the rollups up, as the child does at that time."""
    book.seal()
    update_rollups(book.folder, now_us=round(book.at(at_s).timestamp() * 1e6))


def from_events(book, metric: str, start_s: float, end_s: float, *, points: int = 3, **asked: Any) -> Trend:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trends, "plan_rollups", lambda *_: None)
        window = book.window(start_s, end_s)
        return trend(book.source, metric, window, now=book.at(end_s), points=points, **asked)


def from_rollups(
    book, metric: str, start_s: float, end_s: float, resolution: str, *, points: int = 3, **asked: Any
) -> Trend:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(resolutions, "RAW_UPTO_S", -1.0)
        patched.setattr(resolutions, "MINUTE_UPTO_S", -1.0 if resolution == "hour" else 1e12)
        window = book.window(start_s, end_s)
        found = trend(book.source, metric, window, now=book.at(end_s), points=points, **asked)
    assert found.resolution in (resolution, "raw")  # raw where nothing of the window is rolled up
    return found


def near(one: float | None) -> Any:
    return None if one is None else pytest.approx(one, rel=1e-9, abs=1e-9)


def figures(one: TrendSeries) -> tuple[Any, ...]:
    return (*(getattr(one, name) for name in FIGURES), *one.points)


def assert_equal(rolled: Trend, raw: Trend) -> None:
    """All figures alike, and percentiles within the sketch's error."""
    assert (rolled.step_s, rolled.first_point_at) == (raw.step_s, raw.first_point_at)
    assert (rolled.newest_age_s, rolled.coverage) == (near(raw.newest_age_s), near(raw.coverage))
    assert [figures(one) for one in rolled.series] == [
        tuple(near(value) if isinstance(value, float) else value for value in figures(one)) for one in raw.series
    ]
    for ours, theirs in zip(rolled.series, raw.series, strict=True):
        reach = max(abs(theirs.min), abs(theirs.max)) if theirs.min < 0 < theirs.max else 0
        for name in ("p50", "p95"):
            exact = getattr(theirs, name)
            tolerance = RELATIVE_ERROR * (reach or abs(exact)) * (1 + 1e-6) + 1e-9
            assert getattr(ours, name) == pytest.approx(exact, rel=0, abs=tolerance), name


def readings(book, count: int, *, every_s: float, gpus: int = 2) -> list[Event]:
    """A load that comes and goes, a value missing now and then, counters that restart and one that wraps."""
    events = []
    for number in range(count):
        second = number * every_s
        for gpu in range(gpus):
            load = (number * 37 + gpu * 11) % 101
            values: dict[str, Any] = {
                "utilization_percent": load,
                "power_watts": None if number % 17 == gpu else 60.0 + 5.5 * load,
                "energy_joules": 1000.0 + (number % 500) * 3.25 * (gpu + 1),
                "counter_epoch": number // 500,
                "pcie_tx_bytes": (number * 1_000_003) % 2**32,
                "fan_speed_percent": 40 + load // 10 if number % 5 == 0 else None,
                "interval_seconds": every_s,
            }
            events.append(book.gpu(second, gpu, **values))
    return events


@pytest.mark.parametrize("resolution", ["minute", "hour"])
@pytest.mark.parametrize(
    "metric",
    ["gpu.utilization_percent", "gpu.power_watts", "gpu.energy_joules", "gpu.pcie_tx_bytes", "gpu.fan_speed_percent"],
)
@pytest.mark.parametrize("window", [(0, 5 * HOUR_S), (HOUR_S, 3 * HOUR_S), (2 * HOUR_S, 5 * HOUR_S + 17)])
def test_every_figure_of_a_trend_is_the_same_from_rollups(long_book, resolution, metric, window):
    raw = from_events(long_book, metric, *window, points=3)
    rolled = from_rollups(long_book, metric, *window, resolution, points=3)
    assert (raw.resolution, rolled.resolution) == ("raw", resolution)
    assert len(rolled.series) == 2
    assert_equal(rolled, raw)


@pytest.fixture(scope="module")
def long_book(tmp_path_factory: pytest.TempPathFactory, open_book):
    """Five hours of which four are rolled up: part of the last hour is sealed, part is in the tail. Not to be added to."""
    book = open_book(tmp_path_factory.mktemp("long") / "ledger")
    events = readings(book, 1800, every_s=10)
    book.append(events[:3300])
    roll(book, 4 * HOUR_S + 60)
    book.append(events[3300:])
    return book


def test_a_point_stands_where_it_stands_in_the_answer_of_the_events(long_book):
    raw = from_events(long_book, "gpu.power_watts", 0, 5 * HOUR_S, points=300)
    rolled = from_rollups(long_book, "gpu.power_watts", 0, 5 * HOUR_S, "minute", points=300)
    assert raw.step_s == 60
    assert_equal(rolled, raw)


def test_only_the_gpus_that_were_asked_for_are_answered_from_rollups(long_book):
    asked = ("gpu.power_watts", 0, 5 * HOUR_S)
    assert [one.label for one in from_rollups(long_book, *asked, "hour", gpus=[1]).series] == ["1"]
    with pytest.raises(UnknownGpuError, match="There is no GPU 7 in this window: it has GPU 0, 1"):
        from_rollups(long_book, *asked, "hour", gpus=[1, 7])


def test_why_a_metric_is_absent_is_known_where_rollups_answer(long_book):
    found = from_rollups(long_book, "gpu.sm_active_ratio", 0, 5 * HOUR_S, "hour")
    assert (found.series, found.absent) == ((), {"not_asked": 3600})


def test_edges_within_an_hour_are_exact_per_minute_and_whole_minutes_per_hour(long_book):
    asked = ("gpu.utilization_percent", 20 * 60 + 25, 3 * HOUR_S + 10 * 60 + 5)
    assert_equal(from_rollups(long_book, *asked, "minute"), from_events(long_book, *asked))
    by_hour = from_rollups(long_book, *asked, "hour")
    widened = from_events(long_book, asked[0], 20 * 60, 3 * HOUR_S + 11 * 60)
    assert [(one.n, one.avg, one.max) for one in by_hour.series] == [
        (one.n, near(one.avg), one.max) for one in widened.series
    ]
    assert by_hour.coverage == widened.coverage == 1.0


@pytest.mark.parametrize(
    ("seconds", "points", "resolution"),
    [
        (HOUR_S, 24, "raw"),
        (6 * HOUR_S, 24, "raw"),
        (7 * HOUR_S, 24, "minute"),
        (2 * DAY_S, 24, "minute"),
        (3 * DAY_S, 24, "hour"),
        (30 * DAY_S, 24, "hour"),
        (3 * DAY_S, 500, "minute"),
        (10 * HOUR_S, 50_000, "raw"),
    ],
)
def test_the_window_and_its_steps_decide_from_what_it_is_answered(book, seconds, points, resolution):
    every_s = seconds / 100
    book.append([book.gpu(number * every_s, power_watts=1.0, interval_seconds=every_s) for number in range(101)])
    roll(book, seconds + HOUR_S)
    window = book.window(0, seconds)
    found = trend(book.source, "gpu.power_watts", window, now=book.at(seconds), points=points)
    assert (found.resolution, found.series[0].n, found.coverage) == (resolution, 100, pytest.approx(1.0))


def test_a_window_far_longer_than_the_recording_says_how_little_of_it_is_covered(book):
    book.append([book.gpu(s, power_watts=5.0) for s in range(2 * HOUR_S)])
    roll(book, 2 * HOUR_S + 60)
    window = replace(book.window(0, 0), start=book.at(-29 * DAY_S), end=book.at(DAY_S))
    found = trend(book.source, "gpu.power_watts", window, now=book.at(DAY_S))
    assert (found.resolution, found.series[0].n) == ("hour", 2 * HOUR_S)
    assert found.coverage == pytest.approx(2 / (30 * 24))
    assert [point for point in found.series[0].points if point is not None] == [5.0]


def test_a_long_window_without_rollups_is_answered_from_the_tail_alone(book):
    book.append([book.gpu(s, power_watts=5.0) for s in range(4)])
    found = trend(book.source, "gpu.power_watts", book.window(0, 10 * DAY_S), now=book.at(10 * DAY_S))
    assert (found.resolution, found.series[0].n) == ("raw", 4)


def test_what_is_late_is_in_the_answer_before_and_after_the_next_update(book):
    book.append([book.gpu(s, power_watts=10.0, energy_joules=10.0 * s) for s in range(0, 3 * HOUR_S, 10)])
    roll(book, 3 * HOUR_S + 60)
    book.append([book.gpu(HOUR_S + 5, power_watts=999.0)])
    asked = ("gpu.power_watts", 0, 3 * HOUR_S)
    for make_known in (lambda: None, book.seal, lambda: roll(book, 3 * HOUR_S + 120)):
        make_known()
        for resolution in ("minute", "hour"):
            found = from_rollups(book, *asked, resolution)
            assert found.resolution == resolution
            assert_equal(found, from_events(book, *asked))
            assert (found.series[0].n, found.series[0].max) == (1081, 999.0)


def test_rollups_answer_alone_where_the_events_are_gone(book):
    book.append([book.gpu(s, power_watts=float(s % 600), energy_joules=2.0 * s) for s in range(0, 4 * HOUR_S, 10)])
    book.seal()
    book.append([book.gpu(s, power_watts=7.0, energy_joules=2.0 * s) for s in range(4 * HOUR_S, 5 * HOUR_S, 10)])
    roll(book, 5 * HOUR_S + 60)
    asked = [(metric, 0, 5 * HOUR_S) for metric in ("gpu.power_watts", "gpu.energy_joules")]
    raw = [from_events(book, *one) for one in asked]
    forget_segments(book, before_s=4 * HOUR_S)
    for resolution in ("minute", "hour"):
        for one, exact in zip(asked, raw, strict=True):
            found = from_rollups(book, *one, resolution)
            assert found.resolution == resolution
            assert_equal(found, exact)
    # And a short window, which the events would answer, is answered from what is left.
    short = trend(book.source, "gpu.power_watts", book.window(HOUR_S, 2 * HOUR_S), now=book.at(5 * HOUR_S))
    assert (short.resolution, short.series[0].n, short.series[0].max) == ("minute", 360, 590.0)


def forget_segments(book, *, before_s: float) -> None:
    """What retention does."""
    with closing(apsw.Connection(str(book.folder / "head.sqlite"))) as head:
        edge_us = round(book.at(before_s).timestamp() * 1e6)
        for (path,) in head.execute("select path from segment where last_observed_at_us < ?", (edge_us,)).fetchall():
            (book.folder / path).unlink()
            head.execute("delete from segment where path = ?", (path,))


SECONDS = st.integers(0, 3 * HOUR_S - 1)
READING = st.fixed_dictionaries(
    {
        "power_watts": st.none() | st.floats(-1e6, 1e6, width=32).map(lambda one: one if abs(one) > 1e-30 else 0.0),
        "pcie_tx_bytes": st.none() | st.integers(0, 1000) | st.integers(2**63 - 1000, 2**63 - 1),
        "energy_joules": st.none() | st.integers(0, 10**6).map(lambda thousandths: thousandths / 1000),
        "counter_epoch": st.integers(0, 1),
    }
)
BATCHES = st.lists(
    st.tuples(
        st.lists(st.tuples(SECONDS, READING), max_size=25),
        st.sampled_from(["boot-1", "boot-2"]),
        st.sampled_from(["tail", "seal", "roll", "rebuild"]),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], phases=[Phase.generate])
@given(batches=BATCHES, edges=st.tuples(st.integers(0, 1), st.integers(1, 3)))
def test_any_events_in_any_order_answer_alike_from_rollups(batches, edges, tmp_path_factory, open_book):
    """Appended, sealed and rolled up in any order, so that much of it comes late; at the end once more rolled up."""
    book = open_book(tmp_path_factory.mktemp("any") / "ledger")
    book.append([book.gpu(0, power_watts=1.0, energy_joules=1.0, pcie_tx_bytes=1, counter_epoch=0)])
    for events, boot, what in batches:
        book.append([book.gpu(second, **values) for second, values in events], boot=boot)
        if what != "tail":
            book.seal()
        if what in ("roll", "rebuild"):
            make = update_rollups if what == "roll" else rebuild_rollups
            make(book.folder, now_us=round(book.at(2 * HOUR_S + 60).timestamp() * 1e6))
    roll(book, 2 * HOUR_S + 120)
    start_s, end_s = edges[0] * HOUR_S, max(edges[0] + 1, edges[1]) * HOUR_S
    for metric in ("gpu.power_watts", "gpu.pcie_tx_bytes", "gpu.energy_joules"):
        exact = from_events(book, metric, start_s, end_s, points=1)
        for resolution in ("minute", "hour"):
            assert_equal(from_rollups(book, metric, start_s, end_s, resolution, points=1), exact)


@pytest.mark.parametrize("resolution", ["minute", "hour"])
@pytest.mark.parametrize("metric", ["device.read_bytes", "device.temperature_celsius", "nvlink.tx_bytes"])
def test_devices_and_links_are_rolled_up_each_for_itself(book, metric, resolution):
    def device(second: int, name: str) -> Event:
        identity = {"device_type": "disk", "device": name, "interval_seconds": 60.0, "counter_epoch": 0}
        figures = {"read_bytes": second * len(name), "temperature_celsius": float(second % 70)}
        return book.event("device_sample", second, **identity, **figures)

    def link(second: int, number: int) -> Event:
        identity = {"gpu_uuid": "GPU-0", "gpu_index": 0, "link": number, "interval_seconds": 60.0, "counter_epoch": 0}
        return book.event("nvlink_sample", second, **identity, tx_bytes=second * (number + 1))

    times = range(0, 3 * HOUR_S, 60)
    book.record(one for s in times for one in (device(s, "nvme0n1"), device(s, "sda"), link(s, 0), link(s, 1)))
    roll(book, 3 * HOUR_S + 60)
    raw = from_events(book, metric, 0, 3 * HOUR_S)
    rolled = from_rollups(book, metric, 0, 3 * HOUR_S, resolution)
    assert (rolled.resolution, len(rolled.series)) == (resolution, 2)
    assert_equal(rolled, raw)


def test_processes_of_one_gpu_are_answered_from_the_events(book):
    def process(second: int, gpu: int) -> Event:
        identity = {"gpu_uuid": f"GPU-{gpu}", "gpu_index": gpu, "pid": 7, "name": "python", "interval_seconds": 60.0}
        return book.event("process_sample", second, **identity, memory_used_bytes=10 * gpu)

    book.record(process(s, gpu) for s in range(0, 3 * HOUR_S, 60) for gpu in (0, 1))
    roll(book, 3 * HOUR_S + 60)
    found = from_rollups(book, "process.memory_used_bytes", 0, 3 * HOUR_S, "minute", gpus=[1])
    assert ([(one.n, one.avg) for one in found.series], found.resolution) == ([(180, 10.0)], "raw")


@pytest.mark.parametrize("step", ["minute", "hour"])
def test_a_damaged_rollup_costs_no_answer_while_the_events_are_there(book, step):
    book.record(book.gpu(s, power_watts=float(s % 7)) for s in range(0, 3 * HOUR_S, 60))
    roll(book, 3 * HOUR_S + 60)
    for path in (book.folder / "rollups/gpu_sample" / step).glob("*.parquet"):
        path.write_bytes(bytes(path.stat().st_size))
    found = from_rollups(book, "gpu.power_watts", 0, 3 * HOUR_S, step)
    assert found.resolution == "raw"
    assert_equal(found, from_events(book, "gpu.power_watts", 0, 3 * HOUR_S))
    assert any(note.startswith(f"rollups/gpu_sample/{step}/") for note in book.source.notes())


def test_a_damaged_segment_costs_its_own_events_beside_rollups(book):
    book.append(book.gpu(s, power_watts=1.0) for s in range(0, 3 * HOUR_S, 60))
    roll(book, 3 * HOUR_S + 60)
    book.append(book.gpu(3 * HOUR_S + s, power_watts=1.0) for s in range(60))
    book.seal()
    newest = max(book.folder.glob("events/gpu_sample/**/*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(b"no Parquet")
    found = from_rollups(book, "gpu.power_watts", 0, 4 * HOUR_S, "minute")
    assert (found.resolution, sum(one.n for one in found.series)) == ("minute", 180)
    assert len(book.source.notes()) == 1
