"""Batches that are sent again, and clocks that step: nothing is stored twice and nothing is refused."""

from collections import Counter

import pytest

from store.events import Event
from store.ledger import Ledger
from store.sealing import seal

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
