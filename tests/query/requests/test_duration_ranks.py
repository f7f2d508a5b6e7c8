"""What is found by durations and cells is what a scan of every request finds."""

import numpy as np
import pytest

from query.reading.local_source import LocalSource
from query.requests.slow import SlowRule, slow_requests
from query.requests.summary import RequestFilter
from store.rollups.sketch import buckets_of, value_of, values_of
from store.rollups.updating import update_rollups

HOUR_S = 3600
DAYS = 4
RULES = (SlowRule("percentile", percentile=99), SlowRule("percentile", percentile=50), SlowRule("threshold", 1.5))


class Scanning(LocalSource):
    """A source that has no columns at hand."""

    def trend(self, question):
        return None if question.metric.kind.name == "request" else super().trend(question)


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory, open_book):
    """Four days of requests of two operations, rolled up but for the newest hours; some came late, some are not sealed."""
    book = open_book(tmp_path_factory.mktemp("month") / "ledger")
    random = np.random.default_rng(5)
    seconds = np.sort(random.uniform(0, DAYS * 24 * HOUR_S, 3000))
    events = [request(book, random, float(second)) for second in seconds]
    book.append(events[:2500])
    book.seal()
    update_rollups(book.folder, now_us=round(book.at(3.3 * 24 * HOUR_S).timestamp() * 1e6), until_done=True)
    book.append([*events[2500:2900], request(book, random, 30 * HOUR_S + 5.0, slow_s=40.0)])
    book.seal()
    book.append(events[2900:])
    return book


def request(book, random, second: float, slow_s: float = 0.0):
    return book.event(
        "request", second, operation="chat" if random.random() < 0.7 else "completion", service="api",
        response_model="llama", status="ok" if random.random() < 0.95 else "error",
        duration_seconds=float(random.lognormal(-1, 0.6)) + slow_s,
    )  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("hours", [(0, 96), (1.5, 80.25), (90, 94), (40, 64)])
@pytest.mark.parametrize("only", [RequestFilter(), RequestFilter(operation="chat", status="error")])
def test_the_worst_are_those_that_a_scan_finds(month, rule, hours, only):
    window = month.window(hours[0] * HOUR_S, hours[1] * HOUR_S)
    found = slow_requests(month.source, window, rule, now=month.at(96 * HOUR_S), only=only, top=12)
    limits = {(one.operation, one.model): one.limit_seconds for one in found.judged}
    scanned = scan(month, window, limits, only)
    assert [one.seq for one in found.requests] == [seq for seq, _ in scanned[:12]]
    assert found.slow_count == pytest.approx(len(scanned), rel=0.03, abs=1)


def scan(month, window, limits, only: RequestFilter) -> list[tuple[int, float]]:
    """Every request of the window at or beyond its limit, the furthest first."""
    with month.source.engine(["request"], start_us=window.start_us, end_us=window.end_us) as engine:
        rows = engine.query(
            "select seq, operation, response_model, status, duration_seconds from request "
            f"where epoch_us(observed_at) >= {window.start_us} and epoch_us(observed_at) < {window.end_us}"
        ).to_pylist()
    beyond = [
        (row["seq"], row["duration_seconds"] - limits[row["operation"], row["response_model"]])
        for row in rows
        if all(row[name] == value for name, value in only.given.items())
        and (row["operation"], row["response_model"]) in limits
    ]
    return sorted((one for one in beyond if one[1] >= 0), key=lambda one: (-one[1], one[0]))


@pytest.mark.parametrize("rule", RULES)
def test_without_columns_at_hand_the_engine_finds_the_same(month, rule):
    window = month.window(40 * HOUR_S, 44 * HOUR_S)
    source = Scanning(month.folder)
    now = month.at(96 * HOUR_S)
    asked = [slow_requests(one, window, rule, now=now) for one in (month.source, source)]
    source.close()
    assert [one.seq for one in asked[0].requests] == [one.seq for one in asked[1].requests]
    assert (asked[0].n, asked[0].slow_count) == (asked[1].n, asked[1].slow_count)


def test_what_stands_for_buckets_is_what_stands_for_each():
    buckets = buckets_of(np.array([-3.0, -0.001, 0.0, 0.02, 1.0, 5e6]))
    assert values_of(buckets) == pytest.approx([value_of(bucket) for bucket in buckets.tolist()])
