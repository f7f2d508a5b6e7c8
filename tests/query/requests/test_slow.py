"""Which requests were slow, by each rule, and that a long answer alone is none."""

from typing import Any

import numpy as np
import pytest

from query.requests.slow import SlowRequests, SlowRule, slow_requests, slow_rule
from query.requests.summary import RequestFilter
from store.errors import UsageError


def chat(book, second: float, duration: float, tokens_in: int | None, tokens_out: int | None, **more: Any):
    values = {"operation": "chat", "response_model": "llama", "status": "ok", "duration_seconds": duration}
    return book.event("request", second, **values, input_tokens=tokens_in, output_tokens=tokens_out, **more)


def usual(book, n: int, seed: int = 1):
    """Requests that take 50 ms and 10 ms a token, give or take 3 %."""
    random = np.random.default_rng(seed)
    tokens = random.integers(20, 200, n)
    noise = np.exp(random.normal(0, 0.03, n))
    durations = (0.05 + 0.01 * tokens) * noise
    return [chat(book, s, float(durations[s]), 100, int(tokens[s])) for s in range(n)]


def ask(book, rule: SlowRule, end_s: float = 3600, **asked: Any) -> SlowRequests:
    return slow_requests(book.source, book.window(0, end_s), rule, now=book.at(end_s), **asked)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, open_book):
    """300 usual requests; a long answer at 400 s in its usual time; a short one at 401 s that took 3 s; an embedding."""
    book = open_book(tmp_path_factory.mktemp("served") / "ledger")
    book.record(
        [
            *usual(book, 300),
            chat(book, 400, 20.1, 100, 2000, trace_id="innocent"),
            chat(book, 401, 3.0, 100, 50, trace_id="slow"),
            chat(book, 402, 9.0, None, None, trace_id="untold"),
            book.event("request", 403, operation="embedding", status="ok", duration_seconds=60.0, trace_id="alone"),
        ]
    )
    return book


def traces(found: SlowRequests) -> list[str | None]:
    return [one.trace_id for one in found.requests]


def test_by_a_threshold_whatever_took_at_least_that_long_is_slow(served):
    found = ask(served, SlowRule("threshold", threshold_seconds=3.0))
    assert traces(found) == ["alone", "innocent", "untold", "slow"]
    assert (found.n, found.slow_count, found.method) == (304, 4, "at least 3 s")
    assert (found.requests[0].expected_seconds, found.requests[0].excess_seconds) == (3.0, 57.0)


def test_by_percentile_a_request_is_judged_by_its_own_operation_and_model(served):
    found = ask(served, SlowRule("percentile", percentile=99))
    durations = [one.values["duration_seconds"] for one in usual(served, 300)] + [20.1, 3.0, 9.0]
    limit = float(np.quantile(durations, 0.99))
    assert found.requests[0].expected_seconds == pytest.approx(limit)
    assert found.slow_count == sum(duration >= limit for duration in durations)
    assert traces(found)[:2] == ["innocent", "untold"]
    assert "alone" not in traces(found)
    assert "1 requests are of an operation and model with too few that ended well to be judged" in found.limits


def test_by_excess_a_long_answer_is_innocent_and_a_slow_short_one_is_not(served):
    found = ask(served, SlowRule("excess"))
    assert traces(found) == ["slow"]
    (one,) = found.requests
    assert one.expected_seconds == pytest.approx(0.55, rel=0.03)
    assert one.excess_seconds == pytest.approx(2.45, rel=0.03)
    (group,) = found.judged
    assert (group.operation, group.model, group.n) == ("chat", "llama", 302)
    assert group.line.per_output_token_seconds == pytest.approx(0.01, rel=0.03)


def test_nothing_is_slow_by_excess_where_all_is_as_usual(book):
    book.record(usual(book, 500, seed=11))
    assert ask(book, SlowRule("excess")).requests == ()


def test_only_so_many_are_told_and_all_are_counted(served):
    found = ask(served, SlowRule("percentile", percentile=50), top=3)
    assert (len(found.requests), found.slow_count) == (3, 152)


def test_only_what_is_asked_for_is_judged(served):
    only = RequestFilter(operation="embedding")
    assert traces(ask(served, SlowRule("threshold", threshold_seconds=1.0), only=only)) == ["alone"]


def test_a_window_without_requests_has_none(served):
    for rule in (SlowRule("threshold"), SlowRule("percentile"), SlowRule("excess")):
        found = slow_requests(served.source, served.window(7200, 7300), rule, now=served.at(7300))
        assert (found.n, found.slow_count, found.requests) == (0, 0, ())


@pytest.mark.parametrize(
    ("asked", "rule"),
    [
        ({}, SlowRule("percentile", percentile=99)),
        ({"percentile": 95}, SlowRule("percentile", percentile=95)),
        ({"threshold": "1.5s"}, SlowRule("threshold", threshold_seconds=1.5)),
        ({"excess": True}, SlowRule("excess")),
    ],
)
def test_one_rule_is_asked_for(asked, rule):
    assert slow_rule(**{"threshold": None, "percentile": None, "excess": False, **asked}) == rule


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"percentile": 97.0}, "There is no percentile 97: give 50, 90, 95 or 99"),
        (
            {"percentile": 99.0, "excess": True},
            "Requests are slow by one rule: give one of a threshold, a percentile and excess",
        ),
        ({"threshold": "fast"}, "'fast' is no length of time: write it as 500ms, 2s, 15m or 1h30m"),
    ],
)
def test_a_rule_that_there_is_not_is_refused_with_one_sentence(asked, sentence):
    with pytest.raises(UsageError) as refused:
        slow_rule(**{"threshold": None, "percentile": None, "excess": False, **asked})
    assert str(refused.value) == sentence
