"""A forecast is checked on data whose future is known, and says so where there is nothing to say."""

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from query.history.forecast import Forecast, forecast, sen_line, totals

HOUR_S = 3600
DAY_S = 86_400
METRIC = "gpu.power_watts"


def recorded(book, days: float, value, *, every_s: int = 600, seed: int = 1, noise: float = 1.0, metric="power_watts"):
    random = np.random.default_rng(seed)
    book.record(
        book.gpu(
            second, interval_seconds=float(every_s), **{metric: float(value(second / DAY_S) + random.normal(0, noise))}
        )
        for second in range(0, round(days * DAY_S), every_s)
    )
    return book


def ask(book, days: float, **asked) -> Forecast:
    return forecast(book.source, asked.pop("metric", METRIC), book.window(0, days * DAY_S), **asked)


@given(st.lists(st.integers(-100, 100), min_size=3, max_size=40))
@settings(max_examples=60, deadline=None)
def test_the_line_is_scipys_theil_sen(values):
    ours = sen_line(np.array(values, float), DAY_S)
    slope, intercept, _, _ = stats.theilslopes(values, np.arange(len(values)), method="joint")
    assert (ours.slope, ours.base) == (pytest.approx(slope), pytest.approx(intercept))
    assert ours.low_per_day <= ours.slope_per_day <= ours.high_per_day


def test_the_interval_of_the_slope_is_scipys_where_values_are_independent():
    random = np.random.default_rng(3)
    values = 0.5 * np.arange(80) + random.normal(0, 3, 80)
    ours = sen_line(values, DAY_S)
    _, _, low, high = stats.theilslopes(values, np.arange(80))
    assert (ours.low_per_day, ours.high_per_day) == (pytest.approx(low, rel=0.05), pytest.approx(high, rel=0.05))


def test_what_grows_steadily_is_foretold_with_its_slope_and_the_time_of_the_limit(book):
    recorded(book, 12, lambda day: 10 + 2 * day, noise=0.1)
    found = ask(book, 12, limit=40.0)
    (one,) = found.series
    assert (one.verdict, one.way[:5], found.ahead_s) == ("rises", "trend", 4 * DAY_S)
    assert one.slope_per_day == pytest.approx(2, rel=0.02)
    assert one.slope_low < one.slope_per_day < one.slope_high
    assert one.points[-1].value == pytest.approx(42, rel=0.01)
    assert one.limit.at == pytest.approx(book.at(15 * DAY_S), abs=timedelta(hours=3))
    assert one.limit.earliest <= one.limit.at
    assert one.limit.words.startswith("is met about 2026-12-07")
    assert one.mase < 0.5


def test_a_limit_beyond_what_can_be_tried_is_only_extrapolated_and_said_to_be(book):
    recorded(book, 6, lambda day: 1000.0 - 10 * day)
    (one,) = ask(book, 6, limit=500.0).series
    assert (one.verdict, one.limit.is_upper, one.limit.at) == ("falls", False, None)
    assert one.limit.extrapolated_at == pytest.approx(book.at(50 * DAY_S), abs=timedelta(days=2))
    assert one.limit.words.endswith("if the trend held, which has not been tried")


@pytest.mark.parametrize("seed", range(4))
def test_noise_has_no_trend_and_never_meets_a_limit_far_away(book, seed):
    recorded(book, 6, lambda _: 500.0, noise=20.0, seed=seed)
    (one,) = ask(book, 6, limit=2000.0).series
    assert (one.verdict, one.slope_per_day, one.limit.at, one.limit.earliest) == ("no trend", None, None, None)
    assert one.limit.words.endswith("there is no trend towards it")
    assert one.points[0].value == pytest.approx(500, abs=10)
    assert one.independent_n > 50


def test_a_walk_that_goes_nowhere_in_particular_is_no_trend(book):
    random = np.random.default_rng(11)
    steps = np.cumsum(random.normal(0, 1, 6 * 144)) + 500
    recorded(book, 6, lambda day: steps[round(day * 144)], noise=0.0)
    found = ask(book, 6)
    assert found.series[0].verdict == "no trend"
    assert "1 of 1 series wander so slowly that the interval may be too narrow" in found.limits


def course(day: float) -> float:
    return 300.0 + 200.0 * np.sin(2 * np.pi * day)


def test_a_daily_course_is_foretold_hour_by_hour(book):
    recorded(book, 9, course, noise=5.0)
    found = ask(book, 9)
    (one,) = found.series
    assert (one.way, one.verdict) == ("daily", "no trend")
    truth = np.array(
        [course((point.at - book.at(0)) / timedelta(days=1) + found.step_s / DAY_S / 2) for point in one.points]
    )
    values = np.array([point.value for point in one.points])
    assert np.abs(values - truth).max() < 15
    assert one.mase_by_way["daily"] < 0.2 * one.mase_by_way["level"]


def test_a_course_that_also_grows_is_both(book):
    recorded(book, 12, lambda day: course(day) + 60 * day, noise=5.0)
    (one,) = ask(book, 12).series
    assert (one.way, one.verdict) == ("trend_daily", "rises")
    assert one.slope_per_day == pytest.approx(60, rel=0.15)


def test_nine_of_ten_values_to_come_lie_in_the_interval(book):
    """Each GPU is a series of its own: forty futures of correlated noise about a line, each compared as it came."""
    random = np.random.default_rng(8)
    days, per_day, gpus = 8, 24, 40
    noise = random.normal(0, 5, (gpus, days * per_day))
    for at in range(1, days * per_day):
        noise[:, at] += 0.5 * noise[:, at - 1]
    values = noise + 20 * np.arange(days * per_day) / per_day
    hours = range(days * per_day)
    book.record(book.gpu(hour * HOUR_S + 600 * part, gpu, power_watts=1000 + float(values[gpu, hour]), interval_seconds=600.0)
                for hour in hours for gpu in range(gpus) for part in range(6))  # fmt: skip
    found = ask(book, 6, ahead_s=2 * DAY_S)
    held = []
    for gpu, one in enumerate(found.series):
        of_hour = [round((point.at - book.at(0)) / timedelta(hours=1) - 0.4) for point in one.points]
        came = 1000 + values[gpu, of_hour]
        held += [point.low <= value <= point.high for point, value in zip(one.points, came, strict=True)]
    assert {one.verdict for one in found.series} == {"rises"}
    assert 0.8 <= np.mean(held) <= 0.97


def test_too_little_history_is_said(book):
    recorded(book, 0.02, lambda _: 1.0, every_s=60)
    found = ask(book, 0.02, limit=5.0)
    (one,) = found.series
    assert (one.verdict, one.way, one.points, one.limit) == ("too little history", None, (), None)
    assert "fewer than 48 known steps are too little history" in found.limits


def test_a_gap_is_not_a_value(book):
    """Two of ten days are missing; what was recorded before and after says the same line."""
    random = np.random.default_rng(2)
    book.record(
        book.gpu(second, power_watts=1000 + 10 * second / DAY_S + random.normal(0, 1), interval_seconds=600.0)
        for second in range(0, 10 * DAY_S, 600)
        if not 4 * DAY_S <= second < 6 * DAY_S
    )
    found = ask(book, 10)
    assert found.coverage == pytest.approx(0.8, abs=0.01)
    assert found.series[0].slope_per_day == pytest.approx(10, rel=0.03)


def test_it_reaches_no_further_than_a_third_of_the_past_and_says_so(book):
    recorded(book, 6, lambda _: 500.0)
    found = ask(book, 6, ahead_s=30 * DAY_S)
    assert found.ahead_s == 2 * DAY_S
    assert any(limit.startswith("reaches as far as a third of the past") for limit in found.limits)


def test_the_memory_that_there_is_limits_what_is_used_of_it_for_each_gpu_apart(book):
    book.record(
        book.gpu(
            second, gpu, interval_seconds=600.0,
            memory_used_bytes=10_000 + 500 * second // DAY_S, memory_total_bytes=13_500 * (1 + gpu),
        )
        for second in range(0, 6 * DAY_S, 600)
        for gpu in range(2)
    )  # fmt: skip
    metric = "gpu.memory_used_bytes"
    there_is = totals(book.source, metric, book.window(0, 6 * DAY_S))
    assert there_is == {"GPU-0": 13_500, "GPU-1": 27_000}
    small, large = ask(book, 6, metric=metric, limit=there_is).series
    assert small.limit.at == pytest.approx(book.at(7 * DAY_S), abs=timedelta(hours=3))
    assert (large.limit.limit, large.limit.at) == (27_000, None)
    assert totals(book.source, METRIC, book.window(0, DAY_S)) == {}
