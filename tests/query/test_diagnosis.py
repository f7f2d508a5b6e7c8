"""A diagnosis finds what was planted, and blames nothing where nothing was."""

from typing import Any

import numpy as np
import pytest

from query.diagnosis import Diagnosis, diagnose
from store.errors import NoDataError

SECONDS = 1200
AT = 1000  # when the request that is asked about begins


def story(book, plant: str, seed: int) -> int:
    """Twenty minutes of a GPU, its host, its server and a request every 5 s; returns the seq of the last request.

    What is planted lasts from AT to AT + 8; each plant is what such a cause looks like in the samples.
    """
    random = np.random.default_rng(seed)
    events, throttled, stalled = [], 0.0, 0.0
    for s in range(SECONDS):
        is_on = AT <= s < AT + 8
        throttled += 0.9 if is_on and plant == "throttling" else float(random.uniform(0, 0.02))
        stalled += 0.8 if is_on and plant == "io_pressure" else float(random.uniform(0, 0.03))
        if not (plant == "gap" and AT - 20 <= s < AT + 30):
            clock = 1.1e9 if is_on and plant in ("throttling", "clock_deficit") else 1.98e9
            clock += float(random.normal(0, 5e6))
            events.append(book.gpu(s, throttle_sw_power_cap_seconds=round(throttled, 3), clock_sm_hertz=round(clock)))
            events.append(
                book.host(s, pressure_cpu_some_seconds=round(s * 0.01, 3), pressure_io_some_seconds=round(stalled, 3))
            )
        if s % 5 == 0:
            waiting = 30 if is_on and plant == "queueing" else int(random.integers(0, 2))
            server = {"server_address": "a:8000", "interval_seconds": 5.0, "counter_epoch": 0}
            events.append(
                book.event("server_sample", s, **server, requests_waiting_count=waiting, kv_cache_used_ratio=0.4)
            )
            pids = (7, 99) if is_on and plant == "other_process" else (7,)
            events += [
                book.event(
                    "process_sample",
                    s,
                    gpu_uuid="GPU-0",
                    pid=pid,
                    name="python",
                    sm_utilization_percent=60,
                    interval_seconds=5.0,
                )
                for pid in pids
            ]
            if s < AT:
                events.append(request(book, random, s + 3.0, int(random.integers(50, 150)), {}))
    slow: dict[str, Any] = {} if plant in ("nothing", "innocent") else {"slower_s": 4.0}
    if plant == "queueing":
        slow["queued_s"] = 4.0
    book.record(sorted(events, key=lambda one: one.observed_at_us))
    last = request(book, random, AT + 7.0, 300 if plant == "innocent" else 100, slow)
    book.append([last])
    with book.source.engine(["request"]) as engine:
        return engine.query("select max(seq) as seq from request")["seq"][0].as_py()


def request(book, random, ended_s: float, tokens: int, slow: dict[str, float]):
    queue = 0.02 + slow.get("queued_s", 0.0)
    duration = (0.1 + 0.02 * tokens) * float(np.exp(random.normal(0, 0.03))) + slow.get("slower_s", 0.0)
    return book.event(
        "request", ended_s, operation="chat", response_model="llama", status="ok", duration_seconds=duration,
        queue_seconds=queue, input_tokens=200, output_tokens=tokens, gpu_uuids=["GPU-0"], server_address="a:8000",
    )  # fmt: skip


def ask(book, plant: str, seed: int = 1) -> Diagnosis:
    return diagnose(book.source, str(story(book, plant, seed)), now=book.at(SECONDS))


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("plant", ["throttling", "clock_deficit", "io_pressure", "other_process", "queueing"])
def test_what_was_planted_is_found_and_nothing_else(book, plant, seed):
    found = ask(book, plant, seed)
    assert found.is_slow
    assert [one.name for one in found.causes] == [plant]
    assert found.causes[0].effect_seconds > 1
    assert (found.coverage, found.n) == (1.0, 40)
    assert found.expected_seconds == pytest.approx(2.1, rel=0.05)


@pytest.mark.parametrize("plant", ["nothing", "innocent"])
def test_a_request_that_took_what_its_tokens_explain_has_nothing_to_explain(book, plant):
    found = ask(book, plant)
    assert (found.is_slow, found.causes) == (False, ())


def test_a_slow_request_around_which_nothing_stands_out_has_no_cause(book):
    found = ask(book, "unexplained")
    assert (found.is_slow, found.causes, found.coverage) == (True, (), 1.0)


def test_where_nothing_was_sampled_it_says_that_it_cannot_know(book):
    found = ask(book, "gap")
    assert (found.is_slow, found.causes, found.coverage) == (True, (), 0.0)
    assert any("what went on then cannot be known" in words for words in found.limits)


def test_a_request_without_others_like_it_is_not_judged(book):
    book.record([book.event("request", 5, operation="odd", duration_seconds=9.0, trace_id="t-1"), book.host(5)])
    found = diagnose(book.source, "t-1", now=book.at(60))
    assert (found.is_slow, found.expected_seconds, found.causes) == (None, None, ())
    assert found.limits[0].startswith("fewer than 8 requests like it ended well")


@pytest.mark.parametrize("name", ["12345", "nobody"])
def test_a_request_that_there_is_not_is_refused(book, name):
    with pytest.raises(NoDataError, match=f"There is no request '{name}'"):
        diagnose(book.source, name, now=book.at(60))
