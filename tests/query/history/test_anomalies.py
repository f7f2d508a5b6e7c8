"""What was unusual for its hour is found; what was usual, and what was not recorded, is not."""

from datetime import timedelta

import numpy as np
import pytest
from scipy import stats

from query.history.anomalies import SCALE_SHARE, Anomalies, _robust, find_anomalies
from store.events import Event

DAY_S = 86_400
STEP_S = 300
NOW_S = 15 * DAY_S  # the day that is judged is the fifteenth
METRIC = "gpu.power_watts"


def days(book, count: int, *, seed: int, planted: dict[int, tuple[float, float, float | None]] | None = None):
    """Busy from nine to seventeen, with noise; `planted` says of a GPU from when to when it draws what instead."""
    random = np.random.default_rng(seed)
    events: list[Event] = []
    for second in range(0, count * DAY_S, STEP_S):
        is_busy = 9 <= (second // 3600 + 8) % 24 < 17  # the book begins at eight
        for gpu in range(2):
            watts = (600.0 if is_busy else 80.0) + random.normal(0, 10 if is_busy else 2)
            begin, end, instead = (planted or {}).get(gpu, (0, 0, 0.0))
            if begin <= second < end:
                if instead is None:
                    continue
                watts = instead + random.normal(0, 2)
            events.append(book.gpu(second, gpu, power_watts=watts, interval_seconds=float(STEP_S)))
    return events


def ask(book, start_s: float = NOW_S - DAY_S, end_s: float = NOW_S, **asked) -> Anomalies:
    return find_anomalies(book.source, [METRIC], book.window(start_s, end_s), **asked)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory, open_book):
    """Two weeks; on the last day GPU 0 is busy in the night for 40 minutes, and GPU 1 is not recorded for two hours."""
    book = open_book(tmp_path_factory.mktemp("planted") / "ledger")
    night_s = NOW_S - 8 * 3600  # midnight
    cut = {0: (night_s + 1200, night_s + 3600, 600.0), 1: (night_s + 7200, night_s + 14_400, None)}
    book.record(days(book, 15, seed=1, planted=cut))
    return book


def test_a_load_that_is_usual_by_day_stands_out_at_night_with_its_begin_end_and_size(planted):
    found = ask(planted)
    (spell,) = found.spells
    night_s = NOW_S - 8 * 3600
    assert (spell.label, spell.is_above, spell.n) == ("0", True, 4)
    assert (spell.begins_at, spell.ends_at) == (planted.at(night_s + 1200), planted.at(night_s + 3600))
    assert (spell.value, spell.usual) == (pytest.approx(600, abs=5), pytest.approx(80, abs=2))
    assert spell.difference == pytest.approx(spell.value - spell.usual)
    assert spell.score > 20


def test_a_gap_is_not_blamed_and_lowers_what_is_said_of_coverage(planted):
    one, other = ask(planted).judged
    assert (one.coverage, one.n, one.why_not) == (1.0, 144, "")
    assert (other.coverage, other.n, other.why_not) == (132 / 144, 132, "")
    assert "what was not recorded is not judged" in ask(planted).limits


@pytest.mark.parametrize("seed", range(3))
def test_ordinary_days_have_no_anomaly(book, seed):
    book.record(days(book, 10, seed=seed))
    found = ask(book, 9 * DAY_S, 10 * DAY_S)
    assert (found.spells, found.n) == ((), 288)


def test_too_little_history_is_said_and_nothing_is_judged(book):
    book.record(days(book, 4, seed=1))
    found = ask(book, 3 * DAY_S, 4 * DAY_S)
    assert (found.n, found.spells) == (0, ())
    assert {one.why_not for one in found.judged} == {"too little history: 4 days, of some hours fewer than 5"}
    assert "2 of 2 series have too little history to judge every step" in found.limits


def test_the_weekday_counts_where_there_are_enough_of_it(book):
    """Busy on Sundays alone: the fifth Sunday is usual, and a Wednesday that is busy too is not."""
    random = np.random.default_rng(5)
    weeks = [
        book.gpu(
            second,
            power_watts=(500.0 if book.at(second).weekday() == 6 or second >= 31 * DAY_S else 80.0)
            + random.normal(0, 3),
            interval_seconds=600.0,
        )
        for second in range(0, 32 * DAY_S, 600)
    ]
    book.record(weeks)
    sunday = book.at(28 * DAY_S)
    assert sunday.weekday() == 6
    assert ask(book, 28 * DAY_S, 28 * DAY_S + 12 * 3600).spells == ()
    wednesday = ask(book, 31 * DAY_S, 31 * DAY_S + 12 * 3600)
    assert [one.n for one in wednesday.spells] == [wednesday.n]
    assert wednesday.n > 0


def test_a_short_look_back_is_all_that_is_compared_with(planted):
    found = ask(planted, look_back=timedelta(days=3))
    assert found.past.seconds == 3 * DAY_S
    assert found.n == 0


def test_the_scale_is_scipys_median_absolute_deviation():
    values = np.random.default_rng(3).standard_t(2, 500)
    median, scale = _robust(values)
    assert median == pytest.approx(np.median(values))
    assert scale == pytest.approx(stats.median_abs_deviation(values, scale=1.4826**-1))


def test_what_never_moved_may_move_a_little(book):
    """A constant has no spread of its own: two percent of its level is the least that counts as one scale."""
    steady = [
        book.gpu(second, power_watts=100.0 if second < 9 * DAY_S else level, interval_seconds=float(STEP_S))
        for second in range(0, 10 * DAY_S, STEP_S)
        for level in [104.0 if second < 9.5 * DAY_S else 150.0]
    ]
    book.record(steady)
    (spell,) = ask(book, 9 * DAY_S, 10 * DAY_S).spells
    assert spell.begins_at == book.at(9.5 * DAY_S)
    assert spell.score == pytest.approx(50 / (SCALE_SHARE * 100))
