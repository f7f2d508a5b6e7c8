"""A metric's past in steps: what was hardly recorded is unknown, and every way to read it says the same."""

from datetime import datetime
from zoneinfo import ZoneInfo

import numpy as np
import pytest

from query.catalogue import find_metric
from query.history.steps import Calendar, History, day_before, read_history, runs, usual_metrics
from query.windows import Window
from store.rollups.updating import update_rollups

HOUR_S = 3600


@pytest.fixture(scope="module")
def gappy(tmp_path_factory: pytest.TempPathFactory, open_book):
    """Four hours of two GPUs; GPU 0 has a gap from 1:02 to 1:08, in steps of ten minutes less than half."""
    book = open_book(tmp_path_factory.mktemp("gappy") / "ledger")
    book.record(
        book.gpu(
            second, gpu, power_watts=100.0 + second // 600, energy_joules=100.0 * second, interval_seconds=20.0
        )
        for second in range(0, 4 * HOUR_S, 20)
        for gpu in range(2)
        if gpu or not HOUR_S + 120 <= second < HOUR_S + 480
    )  # fmt: skip
    return book


def ask(book, metric: str = "gpu.power_watts", step_s: int = 600) -> History:
    return read_history(book.source, find_metric(metric), book.window(0, 4 * HOUR_S), step_s)


def test_a_step_of_which_less_than_half_was_recorded_is_unknown(gappy):
    one, other = ask(gappy).series
    assert (one.label, one.n, one.coverage) == ("0", 702, pytest.approx(702 / 720))
    assert np.flatnonzero(np.isnan(one.values)).tolist() == [6]
    assert other.values.tolist() == [100.0 + number for number in range(24)]


@pytest.mark.parametrize("metric", ["gpu.power_watts", "gpu.energy_joules"])
def test_events_an_engine_and_rollups_say_the_same(gappy, monkeypatch, metric):
    from_columns = ask(gappy, metric)
    monkeypatch.setattr("query.reading.trend_reading.EVENTS_MAX", 0)
    from_engine = ask(gappy, metric)
    monkeypatch.undo()
    update_rollups(gappy.folder, now_us=round(gappy.at(4 * HOUR_S + 60).timestamp() * 1e6))
    monkeypatch.setattr("query.reading.resolutions.RAW_UPTO_S", -1.0)
    from_cells = ask(gappy, metric)
    assert [one.resolution for one in (from_columns, from_engine, from_cells)] == ["raw", "raw", "minute"]
    for told in (from_engine, from_cells):
        for one, wanted in zip(told.series, from_columns.series, strict=True):
            assert (one.label, one.series, one.coverage) == (
                wanted.label,
                wanted.series,
                pytest.approx(wanted.coverage),
            )
            np.testing.assert_allclose(one.values, wanted.values)


def test_a_step_at_the_edge_of_the_window_is_not_inside():
    window = Window(
        datetime.fromtimestamp(90, ZoneInfo("UTC")), datetime.fromtimestamp(290, ZoneInfo("UTC")), "UTC", ""
    )
    starts_us = np.arange(60, 300, 60) * 1_000_000
    history = History(find_metric("gpu.power_watts"), window, "raw", 60, starts_us, ())
    assert history.is_inside.tolist() == [False, True, True, False]


def test_the_hour_and_the_day_are_those_of_the_windows_time_zone(book):
    berlin = ZoneInfo("Europe/Berlin")
    window = Window(datetime(2026, 10, 24, tzinfo=berlin), datetime(2026, 10, 27, tzinfo=berlin), "Europe/Berlin", "")
    starts_us = np.arange(window.start_us, window.end_us, 3_600_000_000)
    calendar = Calendar.of(starts_us, 3600, window)
    assert len(starts_us) == 73  # autumn brings an hour twice
    assert calendar.hour[[0, 24, 26, 27, 28, 72]].tolist() == [0, 0, 2, 2, 3, 23]
    assert (calendar.weekday[0], len(np.unique(calendar.day))) == (5, 3)


def test_the_day_before_is_the_same_by_the_clock():
    berlin = ZoneInfo("Europe/Berlin")
    window = Window(
        datetime(2026, 10, 25, 9, tzinfo=berlin), datetime(2026, 10, 25, 12, tzinfo=berlin), "Europe/Berlin", ""
    )
    before = day_before(window)
    assert (before.start, before.end) == (
        datetime(2026, 10, 24, 9, tzinfo=berlin),
        datetime(2026, 10, 24, 12, tzinfo=berlin),
    )


def test_runs_are_the_neighbours_that_are_true():
    assert runs(np.array([True, False, True, True, False, True])) == [(0, 1), (2, 4), (5, 6)]
    assert runs(np.zeros(3, bool)) == []


def test_what_is_usually_looked_at_are_metrics_and_of_a_gpu_those_of_gpus():
    assert all(find_metric(name) for name in usual_metrics())
    assert {name.partition(".")[0] for name in usual_metrics(gpus=(0,))} == {"gpu"}
