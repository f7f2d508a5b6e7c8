"""kill -9 of the running collector, again and again."""

import random
import re
import subprocess
import sys
import time
from collections import Counter

from store.ledger import lock_holder
from store.upkeep.sealing import seal_lock

KILLS = 50
FAST = {
    "sample_interval_s": 0.02,
    "seal_interval_s": 0.25,  # so that most kills fall into a sealing, or between one and the next
    "log_level": "debug",
}
APPENDED = re.compile(r"appended (\d+)-(\d+)$", re.MULTILINE)


def test_fifty_kills_in_a_row_lose_no_acknowledged_event_and_count_none_twice(
    tmp_path, count_of_each_seq, stray_files, collector_command
):
    folder = tmp_path / "ledger"
    moments = random.Random(20261123)
    acknowledged: list[range] = []
    for number in range(KILLS):
        log = tmp_path / f"log-{number}"
        with log.open("w") as stderr, subprocess.Popen(collector_command(folder, **FAST), stderr=stderr) as collector:
            _wait_for_an_append(log, collector)
            time.sleep(moments.uniform(0.0, 0.6))  # the random moment, not a wait for anything
            collector.kill()
        acknowledged += [range(int(first), int(last) + 1) for first, last in APPENDED.findall(log.read_text())]
    assert lock_holder(folder) is None
    assert len(acknowledged) > 10 * KILLS
    seen = count_of_each_seq(folder)
    lost = [seq for seqs in acknowledged for seq in seqs if seq not in seen]
    twice = [seq for seq, times in seen.items() if times > 1]
    assert (lost, twice) == ([], [])
    assert seen == Counter(range(1, max(seen) + 1))  # nor is there a hole between them

    # And it goes on: one more run ends in order, and its sealing leaves no stray file behind.
    with (
        (tmp_path / "log").open("w") as stderr,
        subprocess.Popen(collector_command(folder, **FAST), stderr=stderr) as collector,
    ):
        _wait_for_an_append(tmp_path / "log", collector)
        collector.terminate()
    assert collector.returncode == 0
    with seal_lock(folder, wait=True):
        pass  # a child of the last collector that was killed may be at it still
    subprocess.run([sys.executable, "-P", "-m", "store", str(folder)], check=True)
    assert stray_files(folder) == set()
    assert set(count_of_each_seq(folder).values()) == {1}


def _wait_for_an_append(log, collector) -> None:
    deadline = time.monotonic() + 60
    while not APPENDED.search(log.read_text()):
        assert collector.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.01)
