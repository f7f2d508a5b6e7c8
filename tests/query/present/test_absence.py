"""Why a trend has no values, in words."""

import pytest

from query.history.trends import trend
from query.present.absence import why_no_values


def why(book, metric: str, start_s: float, end_s: float) -> str:
    found = trend(book.source, metric, book.window(start_s, end_s), now=book.at(end_s))
    assert found.series == ()
    return why_no_values(book.source, found)


@pytest.mark.parametrize(
    ("absence", "words"),
    [
        ({"power_watts": "not_supported"}, "not_supported: this device, driver or kernel has no such reading"),
        ({"power_watts": "no_permission"}, "no_permission: the collector's user may not read it"),
        ({"*": "lost"}, "lost: the GPU was lost"),
        ({"power_watts": "no_data"}, "no_data: the driver had nothing to say"),
        (None, "not_asked: nothing that is recorded here has it"),
        ({"power_watts": "moonlight"}, "moonlight: see its meaning"),
    ],
)
def test_the_rows_own_reason_is_told(book, absence, words):
    book.record(book.gpu(s, absence=absence) for s in range(4))
    assert why(book, "gpu.power_watts", 0, 4) == f"4 rows were recorded without it ({words})"


def test_of_several_reasons_the_most_frequent_is_told(book):
    reasons = ["lost", "no_data", "no_data", "lost", "no_data"]
    book.record(book.gpu(s, absence={"power_watts": reason}) for s, reason in enumerate(reasons))
    assert why(book, "gpu.power_watts", 0, 9) == (
        "5 rows were recorded without it (no_data: the driver had nothing to say)"
    )


@pytest.mark.parametrize("edges", [(0, 100), (200, 300)])
def test_outside_of_what_was_recorded_it_is_told_when_that_was(book, edges):
    book.record(book.gpu(s, power_watts=1.0) for s in (100, 130, 199.5))
    assert why(book, "gpu.power_watts", *edges) == "the ledger holds it from 2026-11-22 08:01:40 to 2026-11-22 08:03:19"


def test_a_gap_is_called_a_gap(book):
    book.record(book.gpu(s, power_watts=1.0) for s in (0, 3600))
    assert why(book, "gpu.power_watts", 60, 120) == (
        "the ledger holds it from 2026-11-22 08:00:00 to 2026-11-22 09:00:00, with a gap there"
    )


def test_one_reading_of_a_counter_is_called_too_few(book):
    book.record([book.gpu(0, energy_joules=5.0), book.host(0)])
    assert why(book, "gpu.energy_joules", 0, 60) == "a rate needs two readings"


def test_where_nothing_was_ever_recorded_the_recorder_says_why(book):
    assert why(book, "gpu.power_watts", 0, 60) == "none was ever recorded"
    told = {"event": "probe_status", "probe": "gpu", "message": "no GPU: no driver"}
    book.record([book.event("ledger_event", 0, **told), book.host(0)])
    assert why(book, "gpu.power_watts", 0, 60) == "none was ever recorded (no GPU: no driver)"
    assert why(book, "request.duration_seconds", 0, 60) == "none was ever recorded"
