"""What changed is found in what was recorded, and what was different after it is measured at the same hours."""

from datetime import timedelta

import numpy as np
import pytest

from query.history.changes import Changes, change_effects, find_changes

HOUR_S = 3600
DAY_S = 86_400
METRIC = "gpu.power_watts"


def watts(book, first_s: int, after_s: int, level, *, every_s: int = 60):
    """Twice as much by day as by night, times what `level` says."""
    random = np.random.default_rng(4)
    for second in range(first_s, after_s, every_s):
        is_day = (second // HOUR_S + 8) % 24 in range(8, 20)
        value = (400.0 if is_day else 200.0) * level(second) + random.normal(0, 5)
        yield book.gpu(second, power_watts=value, interval_seconds=float(every_s))


def driver(book, second: float, version: str = "580.95", before: str = "575.57"):
    message = f"the NVIDIA driver is now {version}, it was {before}"
    return book.event("gpu_event", second, event="driver_changed", source="sampler", message=message)


def described(book, second: float, gpu: int = 0, **values):
    return book.event("inventory", second, subject="gpu", gpu_uuid=f"GPU-{gpu}", gpu_index=gpu, **values)


def ask(book, end_s: float, **asked) -> Changes:
    return change_effects(book.source, [METRIC], book.window(0, end_s), **asked)


@pytest.fixture(scope="module")
def two_days(tmp_path_factory: pytest.TempPathFactory, open_book):
    """A driver that costs a fifth of the power comes on the second day, ten hours after the beginning of the first."""
    book = open_book(tmp_path_factory.mktemp("days") / "ledger")
    at_s = DAY_S + 10 * HOUR_S
    book.record(watts(book, 0, 2 * DAY_S, lambda second: 0.8 if second >= at_s else 1.0))
    book.record([described(book, 0, driver_version="575.57"), driver(book, at_s)])
    book.append([described(book, at_s + 20, driver_version="580.95")])
    return book


def test_a_driver_and_the_descriptions_that_follow_it_are_one_change(two_days):
    (change,) = find_changes(two_days.source, two_days.window(0, 2 * DAY_S))
    assert (change.at, change.until) == (two_days.at(DAY_S + 10 * HOUR_S), two_days.at(DAY_S + 10 * HOUR_S + 20))
    assert change.what == (
        "the NVIDIA driver is now 580.95, it was 575.57",
        "GPU 0: driver_version 575.57 → 580.95",
    )


def test_what_it_did_is_measured_against_the_same_hours_of_the_day_before(two_days):
    """It came as the day ended: right before it twice as much was drawn, and not for its sake."""
    (effect,) = ask(two_days, 2 * DAY_S, span=timedelta(hours=8)).effects
    assert (effect.matched, effect.why_not) == ("day_before", "")
    (found,) = effect.comparison.changed
    assert found.effect.median_after / found.effect.median_before == pytest.approx(0.8, abs=0.02)
    assert (found.strength, found.coverage_before, found.coverage_after) == ("large", 1.0, 1.0)


def test_a_change_that_did_nothing_is_told_and_nothing_is_said_to_differ(book):
    book.record(watts(book, 0, 2 * DAY_S, lambda _: 1.0))
    book.append([driver(book, DAY_S)])
    (effect,) = ask(book, 2 * DAY_S).effects
    assert effect.matched == "whole_days"
    assert (effect.comparison.n, effect.comparison.changed) == (1, ())


def test_without_a_day_before_the_hours_right_before_are_compared_and_that_is_said(book):
    book.record(watts(book, 0, 4 * HOUR_S, lambda second: 1.5 if second >= 2 * HOUR_S else 1.0))
    book.append([described(book, 0, power_limit_watts=500.0), described(book, 2 * HOUR_S, power_limit_watts=700.0)])
    found = ask(book, 4 * HOUR_S)
    (effect,) = found.effects
    assert effect.change.what == ("GPU 0: power_limit_watts 500.0 → 700.0",)
    assert effect.matched == "adjacent"
    assert effect.comparison.window.seconds == effect.comparison.reference.seconds == 2 * HOUR_S
    assert [one.effect.difference for one in effect.comparison.changed] == [pytest.approx(200, rel=0.05)]
    assert any("they are not the same hours" in limit for limit in found.limits)


def by(interval_s):
    return {"settings": {"collector.sample_interval_s": interval_s}}


def test_no_time_reaches_over_another_change(book):
    book.record(watts(book, 0, 4 * HOUR_S, lambda _: 1.0))
    notes = [book.event("annotation", hour * HOUR_S, text=f"note {hour}") for hour in (1, 2, 3)]
    versions = [
        book.event("ledger_event", 0, event="start", gpuledger_version="0.1"),
        book.event("ledger_event", 2 * HOUR_S + 60, event="start", gpuledger_version="0.2", details=by(1.0)),
        book.event("ledger_event", 3 * HOUR_S + 1200, event="start", gpuledger_version="0.2", details=by(5.0)),
    ]
    book.append([*notes, *versions])
    found = ask(book, 4 * HOUR_S)
    assert [one.change.what for one in found.effects] == [
        ("collector.sample_interval_s 1.0 → 5.0",),
        ("note: note 3",),
        ("note: note 2", "gpuledger 0.1 → 0.2"),
        ("note: note 1",),
    ]
    third = found.effects[2].comparison
    assert (third.reference.start, third.reference.end) == (book.at(HOUR_S + 60), book.at(2 * HOUR_S))
    assert (third.window.start, third.window.end) == (book.at(2 * HOUR_S + 60), book.at(3 * HOUR_S))
    assert (ask(book, 4 * HOUR_S, top=1).n, len(ask(book, 4 * HOUR_S, top=1).effects)) == (4, 1)


def test_too_little_time_or_too_few_records_is_said(book):
    book.record(watts(book, HOUR_S, 2 * HOUR_S, lambda _: 1.0))
    book.append([driver(book, HOUR_S), driver(book, 2 * HOUR_S - 120)])
    last, first = ask(book, 2 * HOUR_S).effects
    assert last.why_not == "the time to the next change, or to the end of the window, is below 10 minutes"
    assert first.why_not == "too little was recorded before it or after it"
    assert (last.comparison, first.comparison) == (None, None)


def test_a_machine_that_stays_as_it_is_has_no_change(machine):
    found = change_effects(machine.source, [METRIC], machine.window(0, 10))
    assert (found.n, found.effects, found.coverage) == (0, (), 0.0)
