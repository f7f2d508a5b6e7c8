"""kill -9 at each system call that changes the disk: while a ledger is begun, appended to, sealed, kept up."""

import shutil
from collections import Counter

import msgspec

from store.events import Event
from store.ledger import Ledger
from store.upkeep.retention import RetentionRules
from store.upkeep.run import upkeep
from store.upkeep.sealing import seal
from store.upkeep.settings import UpkeepSettings

APPEND_TWICE = """
import sys
from pathlib import Path
from store.events import Event
from store.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
for number in range(2):
    seqs = ledger.append([Event("annotation", number, {"text": "a"}), Event("ledger_event", number, {"event": "gap"})])
    print(*seqs, flush=True)
"""


def test_a_ledger_killed_while_it_is_begun_and_appended_to_keeps_what_was_acknowledged(
    tmp_path, killed_at_every_step, count_of_each_seq
):
    folders = (tmp_path / f"ledger-{number}" for number in range(1000))
    steps = []
    for step, folder, acknowledged in killed_at_every_step(["-c", APPEND_TWICE], lambda: next(folders)):
        steps.append(step)
        with Ledger(folder) as ledger:  # opens, whatever was left
            seqs = ledger.append([Event("annotation", 9, {"text": "after"})])
        seen = count_of_each_seq(folder)
        assert set(map(int, acknowledged.split())) <= set(seen), step
        assert set(seen.values()) == {1}, step
        assert sorted(seen) == list(range(1, seqs.start + 1)), step
    assert len(steps) > 20  # the creation alone takes as many


def test_a_sealing_killed_at_any_step_loses_nothing_and_counts_nothing_twice(
    tmp_path, killed_at_every_step, count_of_each_seq, stray_files
):
    template = tmp_path / "template"
    with Ledger(template) as ledger:
        for number in range(3):
            ledger.append([Event("annotation", number, {"text": "a"}), Event("ledger_event", number, {"event": "gap"})])
        seal(template)
        ledger.append(
            [Event("annotation", 90_000_000_000, {"text": "next day"}), Event("annotation", 5, {"text": "a"})]
        )
    numbers = iter(range(1000))

    def copy():
        return shutil.copytree(template, tmp_path / f"copy-{next(numbers)}")

    steps = []
    for step, folder, _ in killed_at_every_step(["-m", "store"], copy):
        steps.append(step)
        assert count_of_each_seq(folder) == Counter(range(1, 9)), step
        with Ledger(folder) as ledger:
            ledger.append([Event("annotation", 7, {"text": "b"})])
        seal(folder)
        assert count_of_each_seq(folder) == Counter(range(1, 10)), step
        assert stray_files(folder) == set(), step
    assert {step.split()[0] for step in steps} >= {"mkdir", "pwrite64", "fsync", "fdatasync", "rename"}


def test_an_upkeep_killed_at_any_step_loses_only_what_retention_took_and_leaves_no_file_behind(
    tmp_path, killed_at_every_step, count_of_each_seq, stray_files, removable_files
):
    rules = UpkeepSettings(grace_s=0, retention=RetentionRules(max_age_days={"request": 1}))
    template = tmp_path / "template"
    with Ledger(template) as ledger:
        for number in range(4):
            ledger.append([Event("annotation", number, {"text": "a"}), Event("request", number, {"service": "a"})])
            seal(template)
            if number == 1:
                upkeep(template, UpkeepSettings(grace_s=0))  # leaves two files that may be removed by now
        ledger.append([Event("annotation", 9, {"text": "in the tail"})])
    assert len(removable_files(template)) == 4
    assert count_of_each_seq(template) == Counter(range(1, 10))
    kept, aged = {1, 3, 5, 7, 9}, {2, 4, 6, 8}
    numbers = iter(range(1000))

    def copy():
        return shutil.copytree(template, tmp_path / f"copy-{next(numbers)}")

    steps = []
    command = ["-m", "store", "--settings", msgspec.json.encode(rules).decode()]
    for step, folder, _ in killed_at_every_step(command, copy):
        steps.append(step)
        seen = count_of_each_seq(folder)
        assert set(seen.values()) == {1}, step
        # What was to go is there, all of it, or the event that says so is.
        assert set(seen) in (kept | aged, kept | {10}), step
        upkeep(folder, rules)
        assert set(count_of_each_seq(folder)) == kept | {10}, step
        upkeep(folder, rules)
        upkeep(folder, rules)
        assert count_of_each_seq(folder) == Counter(kept | {10}), step
        assert (stray_files(folder), removable_files(folder)) == (set(), set()), step
    assert {step.split()[0] for step in steps} >= {"pwrite64", "fsync", "fdatasync", "rename", "unlink"}
