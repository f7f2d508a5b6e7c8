"""How many requests there were and how long they took, from events and from rollups."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from query.errors import GroupingError
from query.requests import summary as requests
from query.requests.summary import MEASURES, SHARES, RequestFilter, RequestSummary, summarize_requests
from store.events import Event
from store.rollups.sketch import RELATIVE_ERROR
from store.rollups.updating import update_rollups

HOUR_S = 3600
MODELS = {"llama": {"response_model": "llama"}, "qwen": {"request_model": "qwen"}}


def served(book, n: int, *, every_s: float, seed: int = 7) -> list[Event]:
    """Requests of two operations and two models from a seed: one says only the model asked for, some fail."""
    random = np.random.default_rng(seed)
    events = []
    for number in range(n):
        duration = float(random.lognormal(0, 1))
        values: dict[str, Any] = {
            "service": "vllm",
            "operation": ("chat", "embedding")[number % 3 == 0],
            **MODELS[("llama", "qwen")[number % 2]],
            "status": ("ok", "error", "timeout", "cancelled")[int(random.choice(4, p=[0.9, 0.05, 0.03, 0.02]))],
            "duration_seconds": duration,
            "queue_seconds": duration / 10 if number % 4 else None,
            "output_tokens": int(random.integers(1, 500)) if number % 3 else None,
        }
        events.append(book.event("request", number * every_s, **values))
    return events


def ask(book, start_s: float, end_s: float, **asked: Any) -> RequestSummary:
    return summarize_requests(book.source, book.window(start_s, end_s), now=book.at(end_s), **asked)


def from_cells(book, start_s: float, end_s: float, **asked: Any) -> RequestSummary:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("query.reading.resolutions.RAW_UPTO_S", -1.0)
        patched.setattr("query.reading.resolutions.MINUTE_UPTO_S", -1.0)
        patched.setattr(requests, "RAW_UPTO_S", -1.0)
        found = ask(book, start_s, end_s, **asked)
    assert found.resolution == "hour"
    return found


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory, open_book):
    """Five hours of requests of which four are rolled up; the last is part sealed, part in the tail. Not to be added to."""
    book = open_book(tmp_path_factory.mktemp("busy") / "ledger")
    events = served(book, 3600, every_s=5)
    book.append([*events[:3200], *(book.host(s, cpu_utilization_percent=1.0) for s in range(1800))])
    book.seal()
    update_rollups(book.folder, now_us=round(book.at(4 * HOUR_S + 60).timestamp() * 1e6))
    book.append(events[3200:])
    return book


def test_each_group_is_counted_and_measured_as_numpy_does_it(busy):
    found = ask(busy, 0, HOUR_S)
    events = [one.values for one in served(busy, 720, every_s=5)]
    assert (found.n, found.resolution, found.coverage) == (720, "raw", pytest.approx(0.5, abs=0.01))
    assert [(one.operation, one.model) for one in found.groups] == [
        (operation, model) for operation in ("chat", "embedding") for model in ("llama", "qwen")
    ]
    for one in found.groups:
        of_group = [
            values
            for values in events
            if values["operation"] == one.operation
            and (values.get("response_model") or values.get("request_model")) == one.model
        ]
        durations = np.array([values["duration_seconds"] for values in of_group])
        queued = np.array([values["queue_seconds"] for values in of_group if values["queue_seconds"] is not None])
        failed = sum(values["status"] in ("error", "timeout") for values in of_group)
        tokens = [values["output_tokens"] for values in of_group if values["output_tokens"] is not None]
        assert (one.n, one.error_ratio) == (len(of_group), pytest.approx(failed / len(of_group)))
        assert (one.per_second, one.concurrency_mean) == pytest.approx((one.n / 3600, durations.sum() / 3600))
        assert (one.queue.n, one.queue.p99) == (len(queued), pytest.approx(np.quantile(queued, 0.99)))
        assert (one.duration.mean, one.duration.max) == pytest.approx((durations.mean(), durations.max()))
        assert [getattr(one.duration, name) for name in SHARES] == pytest.approx(
            [np.quantile(durations, share) for share in SHARES.values()]
        )
        assert one.output_tokens_per_second == (pytest.approx(sum(tokens) / 3600) if tokens else None)
        assert one.time_to_first_token is None


@pytest.mark.parametrize("by", [(), ("model",), ("service", "operation", "model", "status")])
@pytest.mark.parametrize("step_s", [None, HOUR_S, 2 * HOUR_S])
def test_cells_and_events_say_the_same_and_percentiles_within_one_percent(busy, by, step_s):
    exact = ask(busy, 0, 5 * HOUR_S, by=by, step_s=step_s)
    rolled = from_cells(busy, 0, 5 * HOUR_S, by=by, step_s=step_s)
    assert exact.n == rolled.n == 3600
    assert len(exact.groups) == len(rolled.groups) > 0
    for ours, theirs in zip(rolled.groups, exact.groups, strict=True):
        for name in MEASURES:
            spread, wanted = getattr(ours, name), getattr(theirs, name)
            if wanted is None:
                assert spread is None
                continue
            assert (spread.n, spread.max) == (wanted.n, wanted.max)
            assert spread.mean == pytest.approx(wanted.mean)
            for share in SHARES:
                tolerance = RELATIVE_ERROR * (1 + 1e-6)
                assert getattr(spread, share) == pytest.approx(getattr(wanted, share), rel=tolerance), share
        plain = dict.fromkeys(MEASURES)
        assert replace(ours, **plain, **near(theirs)) == replace(theirs, **plain)


def near(one) -> dict[str, Any]:
    """The sums of another: they are added up in another order."""
    return {"concurrency_mean": one.concurrency_mean, "output_tokens_per_second": one.output_tokens_per_second}


def test_only_what_is_asked_for_is_counted_by_both(busy):
    only = RequestFilter(model="qwen", status="ok")
    exact, rolled = ask(busy, 0, 5 * HOUR_S, by=(), only=only), from_cells(busy, 0, 5 * HOUR_S, by=(), only=only)
    expected = sum(
        one.values.get("request_model") == "qwen" and one.values["status"] == "ok"
        for one in served(busy, 3600, every_s=5)
    )
    assert exact.n == rolled.n == expected > 0
    assert exact.groups[0].error_ratio == rolled.groups[0].error_ratio == 0


def test_a_step_at_the_edge_is_as_long_as_it_lies_in_the_window(busy):
    found = ask(busy, 1800, 1800 + HOUR_S, by=(), step_s=HOUR_S)
    assert [(one.begins_at, one.n, one.per_second) for one in found.groups] == [
        (busy.at(0), 360, pytest.approx(0.2)),
        (busy.at(HOUR_S), 360, pytest.approx(0.2)),
    ]


def test_a_step_that_is_not_whole_hours_is_answered_from_every_request(busy, monkeypatch):
    monkeypatch.setattr(requests, "RAW_UPTO_S", -1.0)
    found = ask(busy, 0, 5 * HOUR_S, by=(), step_s=1800)
    assert (found.resolution, [one.n for one in found.groups]) == ("raw", [360] * 10)


def test_no_requests_are_no_groups(busy):
    assert ask(busy, 100 * HOUR_S, 101 * HOUR_S).groups == ()


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"by": ("modle",)}, "Requests are not grouped by 'modle': did you mean 'model'?"),
        ({"step_s": 1}, "This window has more than 2,000 steps of 1 s: give a longer step"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_one_sentence(busy, asked, sentence):
    with pytest.raises(GroupingError) as refused:
        ask(busy, 0, HOUR_S, **asked)
    assert str(refused.value) == sentence
