"""A leak is found with its slope and its end; steps, plateaus and chance are not called one."""

import numpy as np
import pytest
from scipy import stats

from query.costs.leaks import PARTS, T_99, memory_leaks, rise

MIB = 2**20
GIB = 2**30
HOURS = 2


def test_the_slope_is_scipys_and_the_quantile_too():
    random = np.random.default_rng(5)
    time_s = np.sort(random.uniform(0, 7200, 200))
    values = 3.0 * time_s + random.standard_cauchy(200) * 500
    assert rise(time_s, values).slope == pytest.approx(stats.theilslopes(values, time_s).slope)
    assert pytest.approx(stats.t.ppf(0.995, PARTS - 2), abs=1e-4) == T_99


def test_of_levels_that_wander_by_chance_about_one_in_two_hundred_is_called_a_leak():
    """What a test for independent readings would call a trend more often than not."""
    random = np.random.default_rng(6)
    time_s = np.arange(240) * 30.0
    walks = np.cumsum(random.normal(size=(2000, 240)), axis=1)
    called = sum(rise(time_s, walk).low > 0 for walk in walks)
    assert called / len(walks) < 0.012
    naive = sum(stats.kendalltau(time_s, walk).pvalue < 0.01 for walk in walks[:100])
    assert naive > 50


def test_the_interval_of_a_leak_in_noise_covers_it():
    random = np.random.default_rng(7)
    time_s = np.arange(240) * 30.0
    found = [rise(time_s, 2.0 * time_s + random.normal(0, 300, 240)) for _ in range(300)]
    assert np.mean([one.low <= 2.0 <= one.high for one in found]) >= 0.97
    assert np.mean([one.low > 0 for one in found]) >= 0.97


def story(book, memory_mib, *, pid=7, **values):
    """Two hours of a process on GPU 0, which has 80 GiB, of which what it leaves is free."""
    row = {"gpu_uuid": "GPU-0", "gpu_index": 0, "pid": pid, "name": "python", "user": "ana", "interval_seconds": 30.0}
    used = [round(memory_mib(s / 3600) * MIB) for s in range(0, HOURS * 3600, 30)]
    events = [
        book.event("process_sample", 30 * at, **row | values, memory_used_bytes=one) for at, one in enumerate(used)
    ]
    free = {"memory_free_bytes": 80 * GIB - used[-1], "memory_total_bytes": 80 * GIB}
    return [*events, book.gpu(HOURS * 3600 - 1, **free)]


def ask(book):
    return memory_leaks(book.source, book.window(0, HOURS * 3600), now=book.at(HOURS * 3600)).processes


def test_a_planted_leak_has_its_slope_and_its_end(book):
    random = np.random.default_rng(8)
    book.record(story(book, lambda hours: 20_000 + 1024 * hours + random.normal(0, 20)))
    [found] = ask(book)
    assert (found.verdict, found.pid, found.user) == ("leak", 7, "ana")
    assert found.slope_bytes_per_hour == pytest.approx(GIB, rel=0.03)
    assert found.slope_low_bytes_per_hour <= GIB <= found.slope_high_bytes_per_hour
    assert found.exhausted_in_seconds == pytest.approx(found.free_bytes / GIB * 3600, rel=0.03)
    assert found.exhausted_in_low_seconds < found.exhausted_in_seconds < found.exhausted_in_high_seconds


@pytest.mark.parametrize(
    ("memory_mib", "verdict"),
    [
        (lambda _: 20_000, "none"),
        (lambda hours: 20_000 - 500 * hours, "none"),
        (lambda hours: 20_000 + 10 * hours, "none"),  # no 64 MiB in two hours
        (lambda hours: min(30_000, 10_000 + 40_000 * hours), "none"),  # fills its cache in half an hour and stays
        (lambda hours: 20_000 if hours < 1 else 40_000, "unsteady"),  # one step
        (lambda hours: 20_000 + 3000 * np.sin(20 * hours), "none"),
    ],
)
def test_what_does_not_leak_is_not_accused(book, memory_mib, verdict):
    book.record(story(book, memory_mib))
    [found] = ask(book)
    assert (found.verdict, found.exhausted_in_seconds) == (verdict, None)


def test_on_unified_memory_it_is_the_hosts_that_is_used_up(book):
    events = story(book, lambda hours: 20_000 + 1024 * hours)[:-1]
    available = {"memory_kind": "unified", "memory_available_bytes": 10 * GIB, "memory_total_bytes": 120 * GIB}
    book.record([*events, book.gpu(HOURS * 3600 - 1, **available)])
    [found] = ask(book)
    assert found.exhausted_in_seconds == pytest.approx(10 * 3600, rel=0.01)


def test_in_a_window_that_begins_long_before_it_is_found_all_the_same(book):
    book.record(story(book, lambda hours: 20_000 + 1024 * hours))
    years = book.window(-10 * 365 * 86_400, HOURS * 3600)
    [found] = memory_leaks(book.source, years, now=book.at(HOURS * 3600)).processes
    assert found.verdict == "leak"


def test_a_process_that_was_there_briefly_is_not_judged(book):
    short = [one for one in story(book, lambda hours: 20_000 + 9000 * hours) if one.observed_at_us < at_us(book, 1200)]
    book.record(short)
    [found] = ask(book)
    assert (found.verdict, found.slope_bytes_per_hour) == ("too_short", None)


def test_two_processes_of_one_pid_are_two(book):
    first = story(book, lambda _: 20_000, started_at=at_us(book, -10))[:-1]
    second = story(book, lambda hours: 20_000 + 1024 * hours, started_at=at_us(book, -5))
    book.record(sorted([*first, *second], key=lambda one: one.observed_at_us))
    assert [one.verdict for one in ask(book)] == ["leak", "none"]


def at_us(book, seconds: float) -> int:
    return round(book.at(seconds).timestamp() * 1e6)
