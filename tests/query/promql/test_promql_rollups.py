"""PromQL over more samples than are read at once: rollups answer, and say so."""

from contextlib import closing

import numpy as np
import pytest

from query.promql.asking import ask_between
from query.promql.errors import EvaluationError
from query.reading import trend_reading
from query.reading.local_source import LocalSource
from store.rollups.updating import update_rollups

HOURS = 60
EVERY_S = 20


@pytest.fixture(scope="module")
def days(tmp_path_factory, open_book):
    """Two and a half days, a value each 20 s, a counter that begins anew after 30 hours."""
    book = open_book(tmp_path_factory.mktemp("days") / "ledger")
    rows = []
    for second in range(0, HOURS * 3600, EVERY_S):
        is_after = second >= 30 * 3600
        joules = 200.0 * (second - 30 * 3600 * is_after)
        load = 50 + 40 * np.sin(second / 5000) + second % 7
        rows.append(
            book.gpu(
                second,
                power_watts=float(load),
                energy_joules=joules,
                counter_epoch=int(is_after),
                interval_seconds=float(EVERY_S),
            )
        )
    book.append(rows)
    book.seal()
    update_rollups(book.folder, now_us=round(book.at(HOURS * 3600 + 60).timestamp() * 1e6), until_done=True)
    return book


def answers(book, expression, step_s, monkeypatch, *, events_max=None):
    """What each moment comes to, and what is said about it; from samples where `events_max` allows."""
    if events_max is not None:
        monkeypatch.setattr(trend_reading, "EVENTS_MAX", events_max)
    start_ms, end_ms = (round(book.at(hour * 3600).timestamp() * 1000) for hour in (6, HOURS))
    with closing(LocalSource(book.folder)) as source:
        answer = ask_between(source, expression, start_ms, end_ms, step_s * 1000)
    (series,) = answer.series
    return dict(zip(series.time_ms.tolist(), series.values.tolist(), strict=True)), answer.warnings


QUESTIONS = [  # the expression, the step, what answers it, and how near to the samples' own answer
    ("dgx_gpu_power_usage_watts", 900, "minute", {"abs": 7}),
    ("max_over_time(dgx_gpu_power_usage_watts[1h])", 3600, "minute", {"abs": 6}),  # the sample at the edge itself
    ("min_over_time(dgx_gpu_power_usage_watts[1h])", 3600, "minute", {"abs": 6}),
    ("avg_over_time(dgx_gpu_power_usage_watts[1h])", 3600, "minute", {"rel": 0.01}),
    ("rate(dgx_gpu_energy_joules_total[1h])", 3600, "minute", {"rel": 0.01}),
    ("increase(dgx_gpu_energy_joules_total[6h])", 3600, "minute", {"rel": 0.01}),
]


@pytest.mark.parametrize(("expression", "step_s", "resolution", "tolerance"), QUESTIONS)
def test_rollups_answer_for_too_many_samples_nearly_alike(days, monkeypatch, expression, step_s, resolution, tolerance):
    exact, said = answers(days, expression, step_s, monkeypatch)
    assert said == []
    rolled, said = answers(days, expression, step_s, monkeypatch, events_max=2000)
    assert said == [f"made from rollups per {resolution}; ask for a shorter time to have every sample"]
    assert rolled == {at: pytest.approx(value, **tolerance) for at, value in exact.items()}
    assert len(rolled) > 50


def test_hours_answer_where_minutes_are_too_many(days, monkeypatch):
    monkeypatch.setattr("query.promql.history.HOURS_FROM_DAYS", 1)
    expression = "rate(dgx_gpu_energy_joules_total[6h])"
    exact, _ = answers(days, expression, 6 * 3600, monkeypatch)
    rolled, said = answers(days, expression, 6 * 3600, monkeypatch, events_max=2000)
    assert said == ["made from rollups per hour; ask for a shorter time to have every sample"]
    assert rolled == {at: pytest.approx(value, rel=0.02) for at, value in exact.items()}


@pytest.mark.parametrize(
    ("expression", "step_s"),
    [("rate(dgx_gpu_energy_joules_total[1m])", 3600), ("dgx_gpu_power_usage_watts", 20), ("dgx_gpu_up", 3600)],
)
def test_what_no_rollup_can_answer_is_refused_with_what_to_do(days, monkeypatch, expression, step_s):
    with pytest.raises(EvaluationError, match="ask for a shorter time, or for longer steps and ranges"):
        answers(days, expression, step_s, monkeypatch, events_max=2000)
