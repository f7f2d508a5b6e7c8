"""Care for a ledger on the command line: compact, retain, hold, release."""

import fcntl
import json
from datetime import UTC, datetime, timedelta

import pytest

from store.events import Event
from store.ledger import Ledger
from store.snapshot import LedgerReader
from store.upkeep.sealing import seal


@pytest.fixture
def old(gpuledger):
    """A home with two files of two GPU rows each of 20 days ago, and one of a day ago."""
    now = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    with Ledger(gpuledger.data, host="spark-1") as ledger:
        for age_days, minute in ((20, 0), (20, 5), (1, 0)):
            at_us = int((now - timedelta(days=age_days) + timedelta(minutes=minute)).timestamp()) * 1_000_000
            ledger.append([Event("gpu_sample", at_us + number, {"gpu_uuid": "GPU-1"}) for number in range(2)])
            seal(gpuledger.data)
    return gpuledger


def event_count(old) -> int:
    with LedgerReader(old.data) as reader:
        return reader.extents()["gpu_sample"].event_count


def test_compact_merges_what_is_due_and_a_dry_run_only_says_so(old):
    (planned,) = json.loads(old("compact", "--dry-run", "--json").stdout)
    assert (planned["kind"], planned["files"], planned["events"]) == ("gpu_sample", 2, 4)
    assert "1 merges would be made" in old("compact", "--dry-run").stdout
    (done,) = json.loads(old("compact", "--json").stdout)
    assert {name: done[name] for name in planned} == planned
    assert (old.data / done["became"]).stat().st_size == done["became_bytes"]
    assert "nothing is due" in old("compact").stdout
    assert event_count(old) == 6


def test_retain_says_what_would_go_and_why_and_then_takes_it(old):
    old.environment = {"GPULEDGER_RETENTION__GPU_SAMPLE_MAX_AGE_DAYS": "10"}
    rows = json.loads(old("retain", "--dry-run", "--json").stdout)
    assert [(row["kind"], row["rule"], row["events"]) for row in rows] == [("gpu_sample", "age", 2)] * 2
    assert event_count(old) == 6
    assert "2 files, " in old("retain").stdout
    assert event_count(old) == 2
    assert "nothing is too much" in old("retain").stdout


def test_a_held_window_is_listed_kept_and_released(old):
    old.environment = {"GPULEDGER_RETENTION__MAX_AGE_DAYS": "10"}
    assert old("hold", "--window", "30d", "--why", "the outage").stdout.startswith("hold 1: ")
    (held,) = json.loads(old("hold", "--json").stdout)
    assert (held["hold"], held["why"]) == (1, "the outage")
    assert "nothing is too much" in old("retain").stdout
    assert old("release", "1").stdout == "hold 1 is released (the outage)\n"
    assert json.loads(old("hold", "--json").stdout) == []
    assert len(json.loads(old("retain", "--json").stdout)) == 2


def test_what_cannot_be_done_is_one_sentence(old):
    assert old.error("release", "7", code=2) == ("There is no held window 7: see 'gpuledger hold' for those there are")
    with (old.data / "seal.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for command in ("compact", "retain"):
            assert old.error(command, code=4) == (
                f"The ledger {old.data} is being sealed or compacted by another process: try again in a minute"
            )


@pytest.mark.parametrize(
    "command", [["compact"], ["retain", "--dry-run"], ["hold"], ["hold", "-w", "1h"], ["release", "1"]]
)
def test_without_a_ledger_none_is_begun(gpuledger, command):
    assert gpuledger.error(*command, code=3).startswith(f"There is no ledger in {gpuledger.data}")
    assert not gpuledger.data.exists()
