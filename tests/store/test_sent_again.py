"""Batches that are sent again, and clocks that step: nothing is stored twice and nothing is refused."""

from collections import Counter

import pytest

from store.events import Event
from store.ledger import Ledger
from store.sent_events import Receipt, SentBatch
from store.upkeep.sealing import seal

DAY_US = 86_400_000_000


def test_a_batch_with_a_key_that_was_seen_is_stored_once_and_gets_the_range_it_got(ledger, folder, tick, seqs_seen):
    first = ledger.append(tick(0), idempotency_key="import 1")
    assert ledger.append(tick(1)) == range(3, 5)
    with Ledger(folder) as another:
        assert another.append(tick(0), idempotency_key="import 1") == first == range(1, 3)
    assert ledger.append(tick(0), idempotency_key="import 2") == range(5, 7)
    assert seqs_seen(folder) == Counter(range(1, 7))


def test_a_key_is_not_taken_by_a_batch_that_was_refused(ledger, tick):
    with pytest.raises(ValueError, match="not a declared kind"):
        ledger.append([Event("nothing", 1, {})], idempotency_key="a")
    assert ledger.append(tick(0), idempotency_key="a") == range(1, 3)


def test_keys_are_forgotten_after_a_week_and_when_there_are_too_many(folder, tick, monkeypatch):
    now_us = 1_795_435_200_000_000
    clock = [now_us]
    with Ledger(folder, clock_us=lambda: clock[0]) as ledger:
        ledger.append(tick(0), idempotency_key="old")
        clock[0] += 7 * DAY_US
        assert ledger.append(tick(0), idempotency_key="old") == range(1, 3)
        ledger.append(tick(0), idempotency_key="new")
        clock[0] += 1
        ledger.append(tick(0), idempotency_key="newer")
        assert ledger.append(tick(0), idempotency_key="old") == range(7, 9)
        clock[0] -= 30 * DAY_US  # a clock that stepped back
        monkeypatch.setattr("store.ledger.KEYS_KEPT_MAX", 2)
        ledger.append(tick(0), idempotency_key="after the step")
        keys = [key for (key,) in ledger._head.execute("select key from batch_key order by number")]
    assert keys == ["old", "after the step"]


def test_a_clock_that_stepped_back_refuses_nothing(ledger, folder, tick, seqs_seen):
    ledger.append(tick(100_000))
    seal(folder)
    ledger.append(tick(0))  # a day earlier
    ledger.append(tick(100_001))
    seal(folder)
    assert seqs_seen(folder) == Counter(range(1, 7))
    days = sorted({path.parts[-2] for path in (folder / "events").rglob("*.parquet")})
    assert days == ["date=2026-11-23", "date=2026-11-24"]


# --- what sources send over HTTP: batches by their key, requests by their source's id


def request(own_id, source="otlp", time_us=1_795_435_200_000_000):
    return Event("request", time_us, {"source": source, "source_event_id": own_id})


def test_a_request_is_stored_once_however_often_and_in_whatever_batch_it_comes(ledger, folder, seqs_seen):
    assert ledger.append_sent([SentBatch([request("a"), request("b"), request("a")])]) == [Receipt(2, 1)]
    again = [SentBatch([request("b"), request("c")]), SentBatch([request("c"), request("a", source="litellm")])]
    with Ledger(folder) as after_a_restart:
        assert after_a_restart.append_sent(again) == [Receipt(1, 1), Receipt(1, 1)]
    assert seqs_seen(folder) == Counter(range(1, 5))


def test_events_without_an_id_of_their_source_are_all_stored(ledger, folder, seqs_seen):
    assert ledger.append_sent([SentBatch([request(None), request(None)])]) == [Receipt(2, 0)]
    assert seqs_seen(folder) == Counter(range(1, 3))


def test_a_batch_is_stored_once_by_its_key_also_within_one_commit(ledger, folder, seqs_seen):
    batch = SentBatch([request(None)], key="one")
    assert ledger.append_sent([batch, batch, SentBatch([request(None)], key="two")]) == [
        Receipt(1, 0),
        Receipt(0, 1),
        Receipt(1, 0),
    ]
    assert ledger.append_sent([batch]) == [Receipt(0, 1)]
    assert seqs_seen(folder) == Counter(range(1, 3))


def test_nothing_of_a_commit_that_is_refused_is_remembered(ledger):
    with pytest.raises(ValueError, match="no field 'nothing'"):
        ledger.append_sent([SentBatch([request("a")], key="k"), SentBatch([Event("request", 1, {"nothing": 1})])])
    assert ledger.append_sent([SentBatch([request("a")], key="k")]) == [Receipt(1, 0)]


def test_as_many_requests_are_known_as_a_generation_has_and_no_more_than_two_have(ledger, monkeypatch):
    monkeypatch.setattr("store.sent_events.KEYS_PER_GENERATION", 10)
    for number in range(100):
        assert ledger.append_sent([SentBatch([request(f"id-{number}")])]) == [Receipt(1, 0)]
        ((kept,),) = ledger._head.execute("select count(*) from event_key")
        assert kept <= 20
    newest = [request(f"id-{number}") for number in range(90, 100)]
    assert ledger.append_sent([SentBatch(newest)]) == [Receipt(0, 10)]
    assert ledger.append_sent([SentBatch([request("id-0")])]) == [Receipt(1, 0)]
