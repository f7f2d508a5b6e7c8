"""What is different between two windows, checked against scipy and against data made with a known difference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal, stats

from query.catalogue import metrics
from query.errors import UnknownMetricError
from query.history.comparison import Comparison, compare_windows, shared_metrics, step_of
from query.statistics.effect_size import effect_size

HOUR_S = 3600


@given(st.lists(st.integers(-5, 5), min_size=2, max_size=40), st.lists(st.integers(-5, 5), min_size=2, max_size=40))
@settings(max_examples=100, deadline=None)
def test_delta_is_that_of_scipys_mann_whitney_with_ties_and_all(before, after):
    ours = effect_size(np.array(before, float), np.array(after, float))
    u = stats.mannwhitneyu(after, before).statistic
    assert ours.delta == pytest.approx(2 * u / (len(before) * len(after)) - 1)
    assert (ours.median_before, ours.median_after) == (np.median(before), np.median(after))
    assert -1 <= ours.delta_low <= ours.delta_high <= 1
    assert ours.delta_low - 1e-12 <= ours.delta <= ours.delta_high + 1e-12


def noise(random: np.random.Generator, n: int, correlation: float) -> np.ndarray:
    """Normal values of which neighbours resemble each other."""
    made = signal.lfilter([np.sqrt(1 - correlation**2)], [1, -correlation], random.normal(size=n + 100))
    return made[100:]


@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.85])
@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_the_interval_holds_the_true_delta_in_19_of_20_cases_also_where_neighbours_are_alike(correlation, shift):
    random = np.random.default_rng(7)
    true = 2 * stats.norm.cdf(shift / np.sqrt(2)) - 1
    held = 0
    for _ in range(400):
        one = effect_size(noise(random, 144, correlation), shift + noise(random, 144, correlation))
        held += one.delta_low <= true <= one.delta_high
    assert 0.91 <= held / 400 <= 0.995


def test_all_of_one_beyond_all_of_the_other_is_certain_and_still_has_an_interval():
    one = effect_size(100 + np.arange(20.0) % 7, np.arange(20.0) % 5)
    assert (one.delta, one.delta_low, one.is_certain) == (-1.0, -1.0, True)
    assert -1 < one.delta_high < 0


def test_a_certain_difference_of_nothing_that_matters_is_negligible():
    one = effect_size(np.full(30, 40.0), np.full(30, 40.1))
    assert (one.delta, one.strength) == (1.0, "negligible")
    assert effect_size(np.full(30, 40.0), np.full(30, 44.0)).strength == "large"


@pytest.fixture(scope="module")
def two_hours(tmp_path_factory: pytest.TempPathFactory, open_book):
    """In the second hour GPU 0 is hotter by ten degrees and half of GPU 1 is not recorded; GPU 2 is there alone then."""
    book = open_book(tmp_path_factory.mktemp("hours") / "ledger")
    random = np.random.default_rng(2)
    events = []
    for second in range(0, 2 * HOUR_S, 10):
        is_after = second >= HOUR_S
        for gpu in range(3 if is_after else 2):
            if is_after and gpu == 1 and second >= 1.5 * HOUR_S:
                continue
            celsius = 50.0 + random.normal(0, 1) + (10 if is_after and gpu == 0 else 0)
            values = {"temperature_celsius": celsius, "power_watts": 300.0 + random.normal(0, 5)}
            events.append(book.gpu(second, gpu, interval_seconds=10.0, **values))
    book.record(events)
    return book


def ask(book, *names: str, **asked) -> Comparison:
    return compare_windows(book.source, book.window(0, HOUR_S), book.window(HOUR_S, 2 * HOUR_S), names, **asked)


def test_what_was_planted_comes_first_with_its_size_and_nothing_else_changed(two_hours):
    found = ask(two_hours)
    (changed,) = found.changed
    assert found.differences[0] == changed
    assert (changed.metric, changed.label, changed.unit, changed.strength) == (
        "gpu.temperature_celsius", "0", "°C", "large",
    )  # fmt: skip
    assert changed.effect.difference == pytest.approx(10, abs=0.5)
    assert changed.effect.delta_low > 0.8
    assert found.n == 4  # two metrics of the two GPUs that both have


def test_a_difference_in_coverage_and_what_only_one_window_has_are_said(two_hours):
    found = ask(two_hours, "gpu.power_watts")
    other = next(one for one in found.differences if one.label == "1")
    assert (other.coverage_before, other.coverage_after) == (1.0, pytest.approx(0.5))
    assert (found.only_before, found.only_after) == ((), ("gpu.power_watts 2",))
    assert "of 1 series clearly more was recorded in one window than in the other" in found.limits


def test_only_the_gpus_that_are_asked_for_are_compared(two_hours):
    assert {one.label for one in ask(two_hours, gpus=(0,)).differences} == {"0"}


def test_the_metrics_that_both_windows_have_are_found(machine):
    window = machine.window(0, 10)
    found = {one.name for one in shared_metrics(machine.source, window, window, ())}
    assert {"gpu.power_watts", "gpu.utilization_percent", "cpu.utilization_percent"} <= found < set(metrics())
    assert "gpu.fan_speed_percent" not in found
    assert {one.partition(".")[0] for one in found} == {"gpu", "cpu", "request"}


def test_what_has_too_few_steps_is_said_and_not_compared(machine):
    window = machine.window(0, 10)
    found = compare_windows(machine.source, window, window, ["gpu.power_watts"])
    assert (found.n, found.differences, found.coverage) == (0, (), 0.0)
    assert "2 series have fewer than 8 recorded steps in a window" in found.limits


@pytest.mark.parametrize(
    ("hours", "step_s"), [(0.1, 5), (1, 15), (8, 120), (24, 300), (24 * 7, 3600), (24 * 365, 43_200)]
)
def test_a_window_is_cut_into_steps_that_rollups_have_beyond_six_hours(hours, step_s):
    assert step_of(hours * 3600) == step_s


def test_an_unknown_metric_is_refused(machine):
    with pytest.raises(UnknownMetricError, match=r"did you mean 'gpu\.power_watts'"):
        ask(machine, "gpu.powr_watts")
