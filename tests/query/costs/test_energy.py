"""What is known of energy is shared out whole: nothing is made up, nothing is lost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query.costs.energy import energy_of_requests
from query.costs.energy_sharing import counter_meter, power_meter, share_out
from query.costs.prices import Prices
from query.errors import GroupingError
from query.requests.summary import RequestFilter

times = st.integers(-2_000_000, 12_000_000)
spans = st.lists(st.tuples(times, times).map(sorted), max_size=40)
steps = st.lists(st.tuples(st.integers(1, 3_000_000), st.integers(0, 900), st.booleans()), min_size=2, max_size=30)


@given(spans, steps)
@settings(deadline=None)
def test_shares_and_remainder_are_what_the_counter_grew_by(requests, readings):
    """Whatever runs when, over wraps and restarts of the counter."""
    time_us = np.cumsum([step for step, _, _ in readings])
    joules = np.cumsum([float(grown) for _, grown, _ in readings])
    run = np.cumsum([restarts for _, _, restarts in readings])
    edges = (int(time_us[0]), int(time_us[-1]))
    start_us, end_us = (np.array([span[at] for span in requests], np.int64) for at in (0, 1))
    shares = share_out(counter_meter(time_us, run, joules), edges, start_us, end_us)
    known = sum(grown for _, grown, restarts in readings[1:] if not restarts)
    assert shares.attributed_joules + shares.unattributed_joules == pytest.approx(known, abs=1e-6)
    assert shares.joules.sum() == pytest.approx(shares.attributed_joules, abs=1e-6)
    assert (shares.joules >= -1e-9).all()
    assert (shares.together_joules <= shares.joules + 1e-9).all()


def test_the_integral_of_power_is_that_of_the_trapezoidal_rule():
    from scipy.integrate import trapezoid

    random = np.random.default_rng(1)
    time_us = np.cumsum(random.integers(500_000, 1_500_000, 500))
    watts = random.uniform(50, 700, 500)
    meter = power_meter(time_us, watts, reach_us=3_000_000)
    assert meter.joules[-1] == pytest.approx(trapezoid(watts, time_us / 1e6))


def test_over_a_gap_the_power_is_not_known():
    meter = power_meter(np.array([0, 1, 2, 10, 11]) * 1_000_000, np.full(5, 100.0), reach_us=3_000_000)
    assert (meter.joules[-1], meter.known_us[-1]) == (300.0, 3_000_000)


def request(book, start_s: float, end_s: float, **values):
    row = {"operation": "chat", "response_model": "llama", "status": "ok", "duration_seconds": end_s - start_s}
    return book.event("request", end_s, **row | values)


def counters(book, seconds: int, watts: float = 100.0, gpu: int = 0, **values):
    return [book.gpu(s, gpu, energy_joules=1000.0 + watts * s, **values) for s in range(seconds + 1)]


def test_each_instants_power_is_shared_among_the_requests_then_running(book):
    """100 W: A runs from 10 to 20, B from 15 to 25. A has 10 - 15 alone and half of 15 - 20: 750 J; so has B."""
    book.record(counters(book, 60))
    asked = [
        request(book, 10, 20, gpu_uuids=["GPU-0"], input_tokens=100, output_tokens=50),
        request(book, 15, 25, gpu_uuids=["GPU-0"], input_tokens=300, output_tokens=150),
    ]
    book.record(asked)
    found = energy_of_requests(book.source, book.window(0, 60), prices=Prices(0.3, "EUR", 400.0, 1.5))
    assert (found.joules, found.attributed_joules, found.unattributed_joules) == pytest.approx((6000, 1500, 4500))
    assert (found.coverage, found.n) == (pytest.approx(1.0), 2)
    assert [one.joules for one in found.requests] == pytest.approx([750, 750])
    assert [one.is_estimate for one in found.requests] == [True, True]
    [group] = found.groups
    assert (group.operation, group.model, group.n, group.request_count) == ("chat", "llama", 2, pytest.approx(2))
    assert (group.joules_per_request, group.watt_hours_per_request) == pytest.approx((750, 750 / 3600))
    assert group.joules_per_1000_input_tokens == pytest.approx(1500 / 0.4)
    assert group.joules_per_1000_output_tokens == pytest.approx(1500 / 0.2)
    assert group.together_ratio == pytest.approx(2 * 250 / 1500)
    assert group.cost.kwh == pytest.approx(1500 / 3.6e6)
    assert group.cost.price == pytest.approx(1500 / 3.6e6 * 1.5 * 0.3)
    assert group.cost.co2_grams == pytest.approx(1500 / 3.6e6 * 1.5 * 400)
    assert found.gpus[0].basis == "counter"


def test_a_request_alone_is_measured_and_no_estimate(book):
    book.record([*counters(book, 60), request(book, 10, 20, gpu_uuids=["GPU-0"])])
    found = energy_of_requests(book.source, book.window(0, 60))
    assert [(one.joules, one.is_estimate) for one in found.requests] == [(pytest.approx(1000), False)]
    assert not any("estimate" in words for words in found.limits)
    assert found.cost.price is None
    assert found.cost.co2_grams is None


def test_a_request_on_two_gpus_has_the_energy_of_both_and_of_no_third(book):
    events = [row for gpu in range(3) for row in counters(book, 60, watts=100.0 * (gpu + 1), gpu=gpu)]
    book.record([*events, request(book, 10, 20, gpu_uuids=["GPU-0", "GPU-1"])])
    found = energy_of_requests(book.source, book.window(0, 60))
    assert found.requests[0].joules == pytest.approx(10 * (100 + 200))
    assert [one.attributed_joules for one in found.gpus] == pytest.approx([1000, 2000, 0])


def test_one_that_names_no_gpu_is_taken_to_run_on_all_of_its_host_and_that_is_said(book):
    events = [row for gpu in range(2) for row in counters(book, 60, gpu=gpu)]
    book.record([*events, request(book, 10, 20)])
    book.append(counters(book, 60, gpu=7), host="other")
    found = energy_of_requests(book.source, book.window(0, 60))
    assert (found.requests[0].joules, found.requests[0].gpus_told_by) == (pytest.approx(2000), "host")
    assert any("do not say which GPUs" in words for words in found.limits)


def test_one_that_names_its_process_alone_ran_where_that_was_seen(book):
    events = [row for gpu in range(2) for row in counters(book, 60, gpu=gpu)]
    seen = book.event("process_sample", 12, gpu_uuid="GPU-1", pid=77)
    book.record([*events, seen, request(book, 10, 20, pid=77), request(book, 40, 50, pid=78)])
    found = energy_of_requests(book.source, book.window(0, 60))
    assert [one.attributed_joules for one in found.gpus] == pytest.approx([1000, 2000])
    assert {one.gpus_told_by: one.joules for one in found.requests} == pytest.approx({"process": 1000, "host": 2000})


def test_gpuledgers_own_calls_use_no_gpu(book):
    book.record([*counters(book, 60), request(book, 10, 20, source="mcp")])
    found = energy_of_requests(book.source, book.window(0, 60))
    assert (found.n, found.attributed_joules, found.unattributed_joules) == (0, 0, pytest.approx(6000))


def test_without_a_counter_it_is_the_integral_of_power_and_says_so(book):
    book.record([book.gpu(s, power_watts=200.0) for s in range(61)])
    book.append([request(book, 10, 20, gpu_uuids=["GPU-0"])])
    found = energy_of_requests(book.source, book.window(0, 60))
    assert (found.requests[0].joules, found.gpus[0].basis) == (pytest.approx(2000), "power")
    assert "integral of sampled power" in found.method


def test_what_runs_over_an_edge_counts_by_its_part_within(book):
    book.record(counters(book, 60))
    book.append([request(book, 10, 30, gpu_uuids=["GPU-0"], output_tokens=100)])
    [group] = energy_of_requests(book.source, book.window(20, 50)).groups
    assert (group.joules, group.request_count, group.n) == (pytest.approx(1000), pytest.approx(0.5), 1)
    assert group.joules_per_request == pytest.approx(2000)
    assert group.joules_per_1000_output_tokens == pytest.approx(20_000)
    [group] = energy_of_requests(book.source, book.window(0, 20)).groups
    assert (group.joules, group.n) == (pytest.approx(1000), 0)


def test_a_counter_that_restarts_makes_no_energy_up(book):
    before = [book.gpu(s, energy_joules=1e6 + 100 * s) for s in range(30)]
    after = [book.gpu(s, energy_joules=100.0 * (s - 30), counter_epoch=1) for s in range(30, 61)]
    book.record([*before, *after])
    found = energy_of_requests(book.source, book.window(0, 60))
    assert found.joules == pytest.approx(100 * 59)
    assert found.coverage == pytest.approx(59 / 60)


def test_a_request_on_a_gpu_that_was_not_recorded_has_no_energy(book):
    book.record([*counters(book, 60), request(book, 10, 20, gpu_uuids=["GPU-9"])])
    found = energy_of_requests(book.source, book.window(0, 60))
    assert (found.groups[0].joules_per_request, found.requests) == (None, ())
    assert any("no energy is known" in words for words in found.limits)


def test_a_filter_tells_of_some_and_still_shares_with_the_others(book):
    book.record(counters(book, 60))
    book.append([request(book, 10, 20, service="a"), request(book, 10, 20, service="b")])
    found = energy_of_requests(book.source, book.window(0, 60), by=("service",), only=RequestFilter(service="a"))
    assert [(one.service, one.joules) for one in found.groups] == [("a", pytest.approx(500))]
    assert found.attributed_joules == pytest.approx(1000)


@pytest.mark.parametrize("hours", [7, 72])
def test_long_windows_use_readings_further_apart_and_conserve_all_the_same(book, hours):
    book.record(book.gpu(s, energy_joules=50.0 * s) for s in range(0, hours * 3600 + 1, 120))
    book.append([request(book, 3600, 7200, gpu_uuids=["GPU-0"])])
    found = energy_of_requests(book.source, book.window(0, hours * 3600))
    assert found.joules == pytest.approx(50 * hours * 3600)
    assert found.requests[0].joules == pytest.approx(50 * 3600)


def test_what_it_is_not_grouped_by_is_refused(book):
    with pytest.raises(GroupingError, match="did you mean 'model'"):
        energy_of_requests(book.source, book.window(0, 60), by=("modle",))


def test_more_requests_than_fit_are_refused_with_what_to_do(book, monkeypatch):
    monkeypatch.setattr("query.costs.energy_reading.REQUESTS_MAX", 2)
    book.record([*counters(book, 60), *(request(book, s, s + 5) for s in range(3))])
    with pytest.raises(GroupingError, match=r"More than 2 requests .*: give a shorter one"):
        energy_of_requests(book.source, book.window(0, 60))


def test_nothing_recorded_is_no_energy(book):
    found = energy_of_requests(book.source, book.window(0, 60))
    assert (found.joules, found.groups, found.gpus, found.coverage) == (0, (), (), 0.0)
